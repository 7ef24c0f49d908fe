"""What is known of listings, beside what the portal has of them now: read, and nothing written."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, Row, text

from enrich.source.foresee import read
from enrich.source.pages import DOCUMENT_DIFFERS, PHOTOS_DIFFER, SOURCE, Page, as_json
from enrich.state.database import Database
from enrich.state.outbox import OutboxRow
from enrich.state.schema import SERVED, WAITS

_KNOWN = """
    SELECT listing.id, coalesce(listing.revision, 0), listing.status = 'gone', listing.attributes,
           listing.columns, listing.bundle_id, listing.enriched_at, s.id IS NOT NULL AS here,
           coalesce({differs}, false) AS other_columns,
           coalesce(({waits}) OR {photos_differ}, false) AS to_enrich,
           coalesce(served.status = 'done' AND served.revision = listing.revision, false) AS published
    FROM listing LEFT JOIN {source} ON s.id = listing.id
    LEFT JOIN (SELECT p.* FROM {served}) AS served ON served.listing_id = listing.id
    WHERE {ours} AND listing.id > :cursor
    ORDER BY listing.id LIMIT :limit
"""


@dataclass(frozen=True, slots=True)
class Known:
    """A listing of ours."""

    row: OutboxRow
    """What its document is made of; `revision` is 0 where it has none yet."""
    here: bool
    """The portal has it, and it is active."""
    other_columns: bool
    """The portal's copied columns are not those of the document."""
    to_enrich: bool
    """It waits to be enriched, or will since its photos are others."""
    published: bool
    """By our records, the index that serves holds its revision."""


def known(state: Database, page: Page, limit: int) -> Iterator[list[Known]]:
    """Our listings of a page of the source, by id, `limit` in memory at a time."""
    conditions = {"differs": DOCUMENT_DIFFERS, "photos_differ": PHOTOS_DIFFER, "waits": WAITS}
    statement = text(_KNOWN.format(**conditions, source=SOURCE, served=SERVED, ours=page.ours))
    cursor = ""

    def chunk(connection: Connection) -> list[Row[Any]]:
        given = {**page.scope, "page": as_json(page.listings), "cursor": cursor, "limit": limit}
        return list(connection.execute(statement, given).all())

    while rows := read(state, chunk):
        yield [Known(OutboxRow(*tuple(row)[:7]), *tuple(row)[7:]) for row in rows]
        if len(rows) < limit:
            return
        cursor = rows[-1].id
