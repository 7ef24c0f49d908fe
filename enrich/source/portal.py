"""The portal's tables, read only: what listings there are, their fingerprints, photos and copied columns.

Two fingerprints per listing, computed in Postgres: `photo_fp` over the ordered (position, stripped URL,
version) of its photos, `doc_fp` over the copied columns. They are only ever compared for equality.
"""

import json
import logging
import math
import re
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property
from itertools import pairwise
from typing import Any, TypeVar
from uuid import UUID

from sqlalchemy import Connection, text
from sqlalchemy.exc import DatabaseError

from enrich.errors import SourceError
from enrich.records import ListingPhotos, Photo
from enrich.settings import Settings
from enrich.source import statements
from enrich.source.catalogue import INTEGERS, PortalTables, Table, read_portal
from enrich.source.urls import patterns, strip_url, url_key
from enrich.state.database import READ_ONLY, Database, one_line, passing, sqlstate

log = logging.getLogger(__name__)

T = TypeVar("T")
DATA = "22"  # how the SQLSTATE of a value that cannot be computed begins
BIGINT = range(-(2**63), 2**63)

# To the end of the transaction: nothing is written to the portal's tables, whatever a query does; their names
# are looked up as the role has set up; the planner uses the index on listing_id where there is one, and sorts
# in memory.
_TRANSACTION = """
SET TRANSACTION READ ONLY; SET LOCAL search_path TO DEFAULT;
SET LOCAL random_page_cost = 1.1; SET LOCAL work_mem = '64MB'; SET LOCAL jit = off
"""


@dataclass(frozen=True, slots=True)
class SourceListing:
    """One active listing as the source has it now."""

    id: str
    updated_at: datetime | None
    photo_fp: str
    doc_fp: str
    versioned: bool
    """Every photo carries a version, so a change of bytes behind a URL would show in `photo_fp`."""
    pictured: bool
    """A photo has a URL: of a listing whose photos all lack theirs nothing can be seen."""


class Source:
    """The portal's tables or views.

    Args:
        database: where they are: the state's database, or a read replica.
        settings: names of the tables, copied columns, ignored URL parameters.
        reserved: names of our own document fields, which no copied column may have.

    All methods raise `SourceError` when the tables are not as needed, and `OutageError` when the database is
    away for too long.
    """

    def __init__(self, database: Database, settings: Settings, reserved: Collection[str] = ()) -> None:
        self._database = database
        self._settings = settings
        self._reserved = reserved
        self._ignore = settings.url_ignore_params

    def ids(self, after: str | None, limit: int) -> list[str]:
        """Active listings behind id `after`, of `limit` rows, as text in byte order; [] at the end."""
        rows = self._read(statements.IDS, params={"after": after, "limit": limit})
        return _once([id for (id,) in rows], self._tables.listings)

    def by_ids(self, ids: Sequence[str]) -> list[SourceListing]:
        """Those of the listings named that are there and active, by id as text in byte order."""
        return [SourceListing(*row) for row in self._read_named(statements.FINGERPRINTS, ids)]

    def photos(self, ids: Sequence[str]) -> list[ListingPhotos]:
        """Photos, fingerprint and `updated_at` of each listing, as one statement saw them.

        Listings that vanished or are inactive are absent from the answer. A row without a URL has the URL "".
        """
        return [
            ListingPhotos(id, photo_fp, updated_at, tuple(self._photo(n, *row) for n, row in enumerate(rows)))
            for id, updated_at, photo_fp, rows in self._read_named(statements.PHOTOS, ids)
        ]

    def documents(self, ids: Sequence[str]) -> dict[str, tuple[str, dict[str, Any]]]:
        """Id -> (doc_fp, copied columns ready for JSON: dates ISO in UTC, numbers finite or null)."""
        kinds = self.copied_columns()
        documents = {}
        for id, doc_fp, found in self._read_named(statements.DOCUMENTS, ids):
            values = json.loads(found, parse_int=_integer)
            documents[id] = (doc_fp, {name: _clean(values[name], kind) for name, kind in kinds.items()})
        return documents

    def copied_columns(self) -> dict[str, str]:
        """Copied column -> Elasticsearch type."""
        return {field.name: field.es_type for field in self._tables.copied}

    def tells_active(self, before: int | None) -> bool:
        """Whether the listings have the column `active`; an error where run number `before` read it."""
        return self._tables.tells_active(before)

    def check(self, every_row: bool = True) -> list[str]:
        """Verify tables, columns and privileges, with `every_row` all ids and values, too, which reads the
        whole table; read one listing; say what was found."""
        listings, images = self._tables.listings, self._tables.images
        if every_row and (doubtful := self._read(statements.DOUBTFUL)):
            id, rows = doubtful[0]
            wrong = f"{rows} rows with the id {id}" if id else "a row without an id"
            raise SourceError(f"{listings.sql} has {wrong}: one row per id is needed ({listings.setting})")
        copied = ", ".join(f"{name} ({kind})" for name, kind in self.copied_columns().items())
        found = [
            _describe(listings, "active"),
            _describe(images, "version"),
            f"copied: {copied or 'nothing'}",
        ]
        if lacking := _index_wanted(self._tables, self._parts["listing_id"]):
            found.append(lacking)
        first = self.ids(None, 1)
        ((some, joined),) = self._read(statements.JOINED)
        if first and some and not joined:
            raise SourceError(
                f"{images.sql} has rows, but the listing_id of none is the id of a listing of "
                f"{listings.sql}, such as {first[0]}: have views give both in the same spelling "
                f"({images.setting}, {listings.setting})"
            )
        if every_row:
            self._read(statements.VALUES)
        self.documents(first)
        photos = [len(listing.photos) for listing in self.photos(first)]
        found.append(f"first listing {first[0]}: {photos[0]} photos" if photos else "no active listings")
        return found

    def _photo(self, ordinal: int, position: int | None, url: str | None, version: str | None) -> Photo:
        shown = strip_url(url or "", self._ignore)
        # A bigint may hold a time, or what else photos are sorted by; our views show an integer.
        place = position if position is not None and -(2**31) <= position < 2**31 else ordinal
        return Photo(place, url or "", url_key(shown), shown, version)

    @cached_property
    def _tables(self) -> PortalTables:
        return self._reading(lambda found: read_portal(found, self._settings, self._reserved))

    @cached_property
    def _parts(self) -> dict[str, str]:
        return statements.parts(self._tables, self._ignore)

    def _read_named(self, statement: str, ids: Sequence[str]) -> Sequence[Any]:
        """Read the listings with these ids. Compared as their own type, so that an index can be used."""
        kind = self._tables.listings.columns["id"].type
        if kind in INTEGERS:
            wanted: list[Any] = [
                int(id) for id in ids if re.fullmatch(r"0|-?[1-9][0-9]{0,18}", id) and int(id) in BIGINT
            ]
            which = "l.id = ANY(CAST(:ids AS bigint[]))"
        elif kind == "uuid":
            wanted = [id for id in ids if re.fullmatch("[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", id)]
            which = "l.id = ANY(CAST(:ids AS uuid[]))"
        else:
            wanted = [id for id in ids if "\0" not in id]
            compared = "l.id" if kind in ("text", "varchar") else 'l.id::text COLLATE "C"'
            which = f"{compared} = ANY(CAST(:ids AS text[]))"
        return self._read(statement, which=which, params={"ids": wanted}) if wanted else []

    def _read(
        self, statement: str, which: str = "true", params: dict[str, Any] | None = None
    ) -> Sequence[Any]:
        sql = statement.format(which=which, **self._parts)
        values = {"ignored": patterns(self._ignore), **(params or {})}

        def work(connection: Connection) -> Sequence[Any]:
            try:
                return connection.execute(text(sql), values).fetchall()
            except DatabaseError as error:
                if passing(error) and sqlstate(error) != READ_ONLY:  # of a view that writes: no outage
                    raise
                raise SourceError(_why_not_read(self._tables, error)) from error

        return self._reading(work)

    def _reading(self, work: Callable[[Connection], T]) -> T:
        def read(connection: Connection) -> T:
            connection.exec_driver_sql(_TRANSACTION)
            return work(connection)

        return self._database.run(read)

    def spelled(self, id: str) -> str:
        """An id that a person typed, written as ours are: a uuid or an integer in any of its spellings."""
        kind = self._tables.listings.columns["id"].type
        try:
            if kind == "uuid":
                return str(UUID(id.strip()))
            if kind in INTEGERS:
                return str(int("".join(id.split())))
        except ValueError:
            pass  # no listing has it: whoever looks it up says so
        return id


def _describe(table: Table, optional: str) -> str:
    return f"{table.sql}: {'with' if optional in table.columns else 'without'} column {optional}"


def _why_not_read(tables: PortalTables, error: DatabaseError) -> str:
    told = f"reading {tables.listings.sql} and {tables.images.sql} failed: {one_line(error)}"
    if (sqlstate(error) or "").startswith(DATA):
        told += ": mend the value, or have the view give NULL where it cannot be cast"
    return told


def _once(ids: Sequence[str], listings: Table) -> list[str]:
    """Each of the ids, which are in order, once; with a warning where that leaves some out."""
    if double := sorted({id for id, following in pairwise(ids) if id == following}):
        log.warning(
            "%s has several rows for %d ids, such as %s: of each the row that changed last counts; "
            "one row per id is needed (%s)",
            listings.sql,
            len(double),
            double[0],
            listings.setting,
        )
    return list(dict.fromkeys(ids))


def _index_wanted(tables: PortalTables, compared: str) -> str | None:
    """To say of the index that discovery finds photos by; `compared`: as what `listing_id` is compared."""
    images, column = tables.images, tables.images.columns["listing_id"]
    if images.view:
        return None
    if tables.joinable:
        none = f"{images.sql} has no index on listing_id: discovery will be slow"
        return None if column.indexed else none
    index = f"{images.sql} (({compared.replace('i.listing_id', 'listing_id')}))"
    kinds = f"listing_id ({column.shown}) and id ({tables.listings.columns['id'].shown})"
    return f"{kinds} are compared as text: discovery is fast with an index on {index}"


def _integer(digits: str) -> int | float:
    """Postgres numbers may have any length; those beyond bigint become floats (and may become infinite)."""
    return int(digits) if len(digits) <= 20 and int(digits) in BIGINT else float(digits)


def _clean(value: Any, kind: str) -> Any:
    """A copied value as the index takes it; what it cannot (NaN, infinity, years beyond 9999) is null."""
    if kind == "geo_point":
        place = {axis: _clean(value[axis], "double") for axis in ("lat", "lon")}
        lat, lon = place.values()
        known = lat is not None and lon is not None and abs(lat) <= 90 and abs(lon) <= 180
        return place if known else None
    if isinstance(value, list):
        return [_clean(item, kind) for item in value]
    if kind in ("long", "double"):
        return value if isinstance(value, int | float) and math.isfinite(value) else None
    if kind == "date" and value is not None:
        return value if re.fullmatch(r"\d{4}-[^ ]*", value) else None
    return value
