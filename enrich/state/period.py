"""What happened to listings in a time: filters that came, answers near their threshold, and failures."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, TextClause, text

from enrich.state.database import Database

# The last change of a field in that time, and what was there before the first one.
_CHANGES = text("""
    SELECT listing_id, field, before, after, at, confidence, cause FROM (
        SELECT listing_id, field, at, after, confidence, cause,
               first_value(before) OVER by_time AS before,
               row_number() OVER (PARTITION BY listing_id, field ORDER BY id DESC) AS from_last
        FROM history WHERE at >= :since AND at <= :until
        WINDOW by_time AS (PARTITION BY listing_id, field ORDER BY id)
    ) AS h
    WHERE from_last = 1 AND after IS DISTINCT FROM coalesce(before, 'null')
    ORDER BY at DESC, listing_id, field
""")

_LISTINGS = text("""
    SELECT id, photos, attributes, columns FROM listing
    WHERE id = ANY(:ids) AND attributes IS NOT NULL AND status <> 'gone'
""")

_ENRICHED = "status <> 'gone' AND attributes IS NOT NULL AND enriched_at >= :since AND enriched_at <= :until"

_NEAR = text(f"""
    SELECT id, (attributes -> 'fields' ->> :field)::float AS confidence FROM listing
    WHERE {_ENRICHED} AND attributes -> 'fields' ->> :field IS NOT NULL
          AND NOT EXISTS (SELECT FROM override WHERE listing_id = listing.id)
    ORDER BY abs((attributes -> 'fields' ->> :field)::float - :turn), id LIMIT :most
""")  # noqa: S608 (our own condition)

_CONFIDENCES = text(f"""
    SELECT least(floor((attributes -> 'fields' ->> :field)::float * :bins), :bins - 1)::int AS bin,
           count(*) AS listings
    FROM listing WHERE {_ENRICHED} AND attributes -> 'fields' ->> :field IS NOT NULL
    GROUP BY bin
""")  # noqa: S608 (our own condition)

_FAILED = text(f"""
    SELECT photo ->> 'status' AS status,
           coalesce(substring(photo ->> 'url' FROM '^[A-Za-z0-9+.-]+://([^/]+)'), '') AS host,
           count(*) AS photos, count(DISTINCT id) AS listings,
           (array_agg(photo ->> 'error' ORDER BY id))[1] AS error, min(id) AS example
    FROM listing CROSS JOIN LATERAL jsonb_array_elements(photos) AS photo
    WHERE {_ENRICHED} AND photo ->> 'status' <> ALL(:fine)
    GROUP BY 1, 2 ORDER BY photos DESC, status, host LIMIT :most
""")  # noqa: S608 (our own condition)


@dataclass(frozen=True, slots=True)
class Period:
    """From a time to another, both in it."""

    since: datetime
    until: datetime


@dataclass(frozen=True, slots=True)
class Changed:
    """An answer that is another one at the end of a period than before it; `before` None: it was unknown."""

    listing: str
    field: str
    before: Any
    after: Any
    at: datetime
    confidence: float | None
    cause: str


@dataclass(frozen=True, slots=True)
class Failed:
    """Photos of one status and host, of listings that were enriched in a period."""

    status: str
    host: str
    photos: int
    listings: int
    error: str | None
    """That of one of them."""
    example: str
    """The id of a listing."""


def changes(database: Database, period: Period) -> list[Changed]:
    """What changed in what is published, the latest first."""
    return [Changed(*row) for row in _rows(database, _CHANGES, period)]


def listings(database: Database, ids: Sequence[str]) -> dict[str, Mapping[str, Any]]:
    """Id -> photos, attributes and columns, of those that are there."""
    rows = database.run(lambda connection: connection.execute(_LISTINGS, {"ids": list(ids)}).mappings().all())
    return {row["id"]: dict(row) for row in rows}


def nearest(
    database: Database, period: Period, field: str, turn: float, most: int
) -> list[tuple[str, float]]:
    """Listings of which no person said anything, with their confidence `field`: the nearest to `turn`."""
    return [(id, near) for id, near in _rows(database, _NEAR, period, field=field, turn=turn, most=most)]


def confidences(database: Database, period: Period, field: str, bins: int) -> list[int]:
    """How many listings have a confidence in each of `bins` parts of 0 to 1."""
    found = {row.bin: row.listings for row in _rows(database, _CONFIDENCES, period, field=field, bins=bins)}
    return [found.get(number, 0) for number in range(bins)]


def failed(database: Database, period: Period, fine: Sequence[str], most: int) -> list[Failed]:
    """Photos whose status is not among `fine`, by status and host, the most first."""
    return [Failed(*row) for row in _rows(database, _FAILED, period, fine=list(fine), most=most)]


def _rows(database: Database, statement: TextClause, period: Period, **given: Any) -> Sequence[Any]:
    values = {"since": period.since, "until": period.until, **given}

    def work(connection: Connection) -> Sequence[Any]:
        return connection.execute(statement, values).all()

    return database.run(work)
