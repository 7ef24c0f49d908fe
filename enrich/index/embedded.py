"""The embedded index: table `document`, for running everything with no search server.

It keeps the promises of mode `own`: the higher revision wins, whatever the order of arrival, and a removed
document leaves a tombstone that keeps its revision.
"""

import json
import re
from collections.abc import Iterator, Mapping, Sequence, Set
from datetime import UTC, datetime
from math import inf, nan
from typing import Any

from sqlalchemy import Connection, text

from enrich.errors import UsageError
from enrich.index.document import encode
from enrich.index.protocol import Facets, Hits, Query, ended
from enrich.index.query import KINDS, conditions, counted, facets, ranking, search_body
from enrich.model.head import Head
from enrich.model.kind import Condition
from enrich.records import DocumentWrite, WriteResult, WriteStatus
from enrich.state.database import Database
from enrich.state.settle import clean

PAGE = 1_000
_DATE = re.compile(r"\d{4}(-\d\d(-\d\d(T\d\d(:\d\d(:\d\d(\.\d{1,6})?)?)?(Z|[+-]\d\d:\d\d)?)?)?)?", re.ASCII)
_PUT = text(
    """
    INSERT INTO document AS held (index, id, revision, document)
    SELECT :index, sent.id, sent.revision, nullif(sent.document, 'null')
    FROM jsonb_to_recordset(cast(:writes AS jsonb)) AS sent (id text, revision bigint, document jsonb)
    ORDER BY sent.id COLLATE "C"
    ON CONFLICT (index, id) DO UPDATE SET revision = excluded.revision, document = excluded.document
    WHERE held.revision < excluded.revision
    """
)
_THERE = text("SELECT id FROM document WHERE index = :index AND id = ANY(:ids) AND document IS NOT NULL")
_HELD = text("SELECT id, revision FROM document WHERE index = :index AND id = ANY(:ids)")
_DOCUMENTS = text("""
    SELECT id, document FROM document WHERE index = :index AND id = ANY(:ids) AND document IS NOT NULL
""")
_IDS = text("""
    SELECT id FROM document WHERE index = :index AND document IS NOT NULL AND id > :after
    ORDER BY id LIMIT :limit
""")

# What is asked of a field, with one of: `holds` (its value, or one of its values), `least`, `most`, `absent`,
# or `first` and `last` (see `_moment`).
_FAILS = """
    jsonb_to_recordset(CAST(:asked AS jsonb))
        AS asked (field text, holds jsonb, least float, most float, first text, last text, absent boolean)
    WHERE NOT coalesce(
        CASE WHEN holds IS NOT NULL THEN jsonb_path_exists(
                 document -> field, 'strict $.** ? (@ == $x)', jsonb_build_object('x', holds))
             WHEN least IS NOT NULL THEN
                 jsonb_path_exists(document -> field, '$[*] ? (@ >= $x)', jsonb_build_object('x', least))
             WHEN most IS NOT NULL THEN
                 jsonb_path_exists(document -> field, '$[*] ? (@ <= $x)', jsonb_build_object('x', most))
             WHEN absent THEN coalesce(document -> field, 'null') = 'null'
             ELSE jsonb_path_exists(document -> field, '$[*] ? (@ >= $first && @ <= $last)',
                 jsonb_build_object('first', first, 'last', last)) END, false)
"""
_MATCHING = f"""
    FROM document
    WHERE index = :index AND document IS NOT NULL AND NOT EXISTS (SELECT FROM {_FAILS})
"""
_TOTAL = text(f"SELECT count(*) {_MATCHING}")
# An array is sorted by its first element that differs, and NULL is last.
_HITS = text(f"""
    SELECT document {_MATCHING}
    ORDER BY ARRAY(SELECT -(document ->> name)::float
                   FROM unnest(CAST(:ranks AS text[])) WITH ORDINALITY AS rank (name, number)
                   ORDER BY number), id
    LIMIT :limit OFFSET :offset
""")  # noqa: S608 (put together from the constants here)
# A document that only a field's own filter keeps out counts for that field, unless its values add up. Values
# of another type are of before the column changed its own: no search finds them.
_FACETS = text(f"""
    WITH judged AS MATERIALIZED (
        SELECT document, ARRAY(SELECT DISTINCT field FROM {_FAILS}) AS failed
        FROM document WHERE index = :index AND document IS NOT NULL
    )
    SELECT facet.field, CASE WHEN kind <> 'number' THEN value END AS value, count(*) AS documents,
           min(CASE WHEN kind = 'number' THEN value::float END) AS least,
           max(CASE WHEN kind = 'number' THEN value::float END) AS most
    FROM jsonb_to_recordset(CAST(:counted AS jsonb)) AS facet (field text, kind text)
    JOIN judged ON failed = '{{}}' OR (failed = ARRAY[facet.field] AND kind <> 'types')
    LEFT JOIN LATERAL (
        SELECT DISTINCT jsonb_path_query(
            document -> facet.field, 'strict $.** ? (@.type() == $type)', jsonb_build_object('type', CASE
                WHEN kind = 'number' THEN kind WHEN kind IN ('keyword', 'types') THEN 'string' ELSE 'boolean'
            END)) #>> '{{}}'
    ) AS held (value) ON true
    GROUP BY 1, 2
""")  # noqa: S608 (put together from the constants here)


class EmbeddedIndex:
    """The documents of one alias. See `SearchIndex`; a lost connection is `Database`'s to wait out."""

    def __init__(
        self, database: Database, alias: str, heads: Sequence[Head], copied: Mapping[str, str]
    ) -> None:
        self._database = database
        self._alias = alias
        self._heads = heads
        self._copied = copied

    def prepare(self) -> str:
        return f"embedded:{self._alias}"

    def identity(self) -> str:
        return self.prepare()

    def check(self) -> list[str]:
        count = self._database.scalar(_TOTAL, index=self._alias, asked="[]")
        return [f"embedded in Postgres as {self._alias} with {count} documents"]

    def unmapped(self, columns: Set[str]) -> Set[str]:
        return frozenset()

    def write(self, writes: Sequence[DocumentWrite]) -> list[WriteResult]:
        """See `SearchIndex`. The ids of `writes` are distinct."""
        results: dict[str, WriteResult] = {}
        sent: list[DocumentWrite] = []
        for write in writes:
            try:
                encode(write.document or {})
                sent.append(write)
            except ValueError as error:
                results[write.id] = ended(write, WriteStatus.REFUSED, str(error))
        held, there = self._database.run(lambda connection: self._put(connection, sent))
        for write in sent:
            revision = held[write.id]
            if revision == write.revision:
                absent = write.document is None and write.id not in there
                results[write.id] = ended(write, WriteStatus.DONE, absent=absent)
            else:
                reason = f"the index holds revision {revision}"
                results[write.id] = ended(write, WriteStatus.OUTDATED, reason, revision)
        return [results[write.id] for write in writes]

    def _put(
        self, connection: Connection, writes: Sequence[DocumentWrite]
    ) -> tuple[dict[str, int], Set[str]]:
        """The revisions held now, and which of the documents to take away were there."""
        taken = [write.id for write in writes if write.document is None]
        there = set(connection.scalars(_THERE, {"index": self._alias, "ids": taken})) if taken else set()
        rows = [
            {"id": write.id, "revision": write.revision, "document": write.document and dict(write.document)}
            for write in writes
        ]
        connection.execute(_PUT, {"index": self._alias, "writes": json.dumps(rows)})
        found = connection.execute(_HELD, {"index": self._alias, "ids": [write.id for write in writes]})
        return {row.id: row.revision for row in found}, there

    def lost(self) -> Iterator[Sequence[str]]:
        return iter(())

    def gone(self, uuids: Sequence[str]) -> list[str]:
        return []

    def documents(self, ids: Sequence[str]) -> dict[str, Mapping[str, Any]]:
        rows = self._database.rows(_DOCUMENTS, index=self._alias, ids=list(ids))
        return {row.id: row.document for row in rows}

    def ids(self) -> Iterator[Sequence[str]]:
        after = ""
        while ids := self._database.scalars(_IDS, index=self._alias, after=after, limit=PAGE):
            yield ids
            after = ids[-1]

    def search(self, query: Query) -> Hits:
        given = {
            "index": self._alias,
            "asked": json.dumps(self._asked(query)),
            "ranks": ranking(query, self._heads),
            "limit": query.limit,
            "offset": query.offset,
        }

        def run(connection: Connection) -> tuple[tuple[Mapping[str, Any], ...], int]:
            return tuple(connection.scalars(_HITS, given).all()), connection.scalar(_TOTAL, given) or 0

        documents, total = self._database.run(run)
        return Hits(total, documents, search_body(query, self._heads, self._fields()))

    def facets(self, query: Query) -> Facets:
        kinds = counted(self._heads, self._fields())
        given = {
            "index": self._alias,
            "asked": json.dumps(self._asked(query)),
            "counted": json.dumps([{"field": field, "kind": kind} for field, kind in kinds.items()]),
        }
        rows = self._database.rows(_FACETS, **given)
        bounds = {row.field: (row.least, row.most) for row in rows if kinds[row.field] == "number"}
        counts = [(row.field, row.value, row.documents) for row in rows]
        return facets(self._heads, kinds, counts, bounds)

    def _fields(self) -> dict[str, str]:
        return {"listing_id": "keyword", **self._copied}

    def _asked(self, query: Query) -> list[dict[str, Any]]:
        asked = [_demand(one) for one in conditions(query, self._heads, self._fields())]
        for name in query.between:
            if KINDS.get(self._copied.get(name, "keyword")) != "number":
                raise UsageError(f"{name} is no number: there is nothing between two of it")
        return asked + [self._equals(name, clean(value) or "") for name, value in query.where.items()]

    def _equals(self, name: str, value: str) -> dict[str, Any]:
        """A copied column equals a value, or holds it where the column is an array."""
        es_type = self._copied.get(name, "keyword")
        if es_type == "geo_point":
            raise UsageError(f"{name} is a point: the embedded index finds none, set ELASTICSEARCH_URL")
        if es_type == "date":
            first, last = _moment(name, value)
            return {"field": name, "first": first, "last": last}
        return {"field": name, "holds": value if es_type == "keyword" else _read(name, es_type, value)}

    def close(self) -> None:
        """Nothing to release: the database is the caller's."""


def _demand(one: Condition) -> dict[str, Any]:
    if one.value is None:
        return {"field": one.field, "absent": True}
    how = "least" if one.at_least else "most" if one.at_most else "holds"
    return {"field": one.field, how: one.value}


def _moment(name: str, value: str) -> tuple[str, str]:
    """Between which two texts the times lie that a person means, however they are written, in UTC.

    As in Elasticsearch, a day, an hour and so on stand for all of their moments, a month or a year for its
    first day, and times are told apart by milliseconds.
    """
    wrong = UsageError(f"{name} is of type date: {value!r} is not")
    found = _DATE.fullmatch(value)
    if found is None:
        raise wrong
    zone = found[7] or ""
    time = value.removesuffix(zone)
    ends = [time + end[len(time) :] for end in ("0001-01-01T00:00:00.000", "0001-01-01T23:59:59.999")]
    if "." in time:  # one moment
        ends[1] = ends[0]
    try:
        first, last = (_utc(end + (zone or "Z")) for end in ends)
    except (ValueError, OverflowError):
        raise wrong from None
    # What is left out where it is nothing sorts first, and more digits of the last millisecond before "~".
    return first.rstrip("0").rstrip(".").removesuffix("T00:00:00"), f"{last}~"


def _utc(moment: str) -> str:
    told = datetime.fromisoformat(moment).astimezone(UTC)
    return told.replace(tzinfo=None).isoformat(timespec="milliseconds")


def _read(name: str, es_type: str, value: str) -> bool | int | float:
    """A number or boolean that a person typed."""
    try:
        wanted: bool | int | float = json.loads(value)
    except ValueError:
        wanted = nan
    if type(wanted) not in ((bool,) if es_type == "boolean" else (int, float)) or not abs(wanted) < inf:
        raise UsageError(f"{name} is of type {es_type}: {value!r} is not")
    return wanted
