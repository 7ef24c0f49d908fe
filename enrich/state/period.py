"""What happened to listings in a time: filters that came, answers near their threshold, and failures."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import TextClause, text

from enrich.state.database import Database

# The last change of each field in that time, and what was there before the first one, of listings that are
# still there; lists as lists, also where there was or is none.
_CHANGED = """
    changed AS (
        SELECT listing_id, field, before, after, confidence, cause,
               jsonb_typeof(after) = 'array' OR coalesce(jsonb_typeof(before) = 'array', false) AS is_list,
               CASE WHEN jsonb_typeof(before) = 'array' THEN before ELSE '[]' END AS had,
               CASE WHEN jsonb_typeof(after) = 'array' THEN after ELSE '[]' END AS has
        FROM (
            SELECT listing_id, field, after, confidence, cause,
                   first_value(before) OVER (PARTITION BY listing_id, field ORDER BY id) AS before,
                   row_number() OVER (PARTITION BY listing_id, field ORDER BY id DESC) AS from_last
            FROM history WHERE at >= :since AND at <= :until
        ) AS h
        WHERE from_last = 1
              AND NOT EXISTS (SELECT FROM listing AS l WHERE l.id = h.listing_id AND l.status = 'gone')
    ), came AS (
        SELECT *, after = 'true' AS yes FROM changed
        WHERE after = 'true' AND before IS DISTINCT FROM 'true' OR is_list AND NOT has <@ had
    )
"""

_TALLY = text(f"""
    WITH {_CHANGED}
    SELECT field, word, count(*) FILTER (WHERE gained) AS gained, count(*) FILTER (WHERE lost) AS lost
    FROM (
        SELECT field, NULL AS word, after = 'true' AND before IS DISTINCT FROM 'true' AS gained,
               before = 'true' AND after <> 'true' AS lost
        FROM changed WHERE NOT is_list
        UNION ALL
        SELECT field, word, old IS NULL, new IS NULL
        FROM changed CROSS JOIN LATERAL (
            SELECT coalesce(new, old) AS word, old, new
            FROM jsonb_array_elements_text(has) AS n(new) FULL JOIN jsonb_array_elements_text(had) AS o(old)
                 ON old = new
        ) AS words
        WHERE is_list
    ) AS answers
    WHERE gained OR lost
    GROUP BY field, word
    ORDER BY word IS NOT NULL, gained DESC, field, word
""")  # noqa: S608 (our own statement)

_CAME = text(f"""
    WITH {_CHANGED}
    SELECT listing_id, count(*) OVER () AS in_all FROM came
    GROUP BY listing_id
    ORDER BY count(*) FILTER (WHERE yes) DESC, max(confidence) FILTER (WHERE yes) DESC NULLS LAST, listing_id
    LIMIT :most
""")  # noqa: S608 (our own statement)

_CHANGES = text(f"""
    WITH {_CHANGED}
    SELECT listing_id, field, before, after, confidence, cause FROM came WHERE listing_id = ANY(:ids)
    ORDER BY listing_id, yes DESC, confidence DESC NULLS LAST, field
""")  # noqa: S608 (our own statement)

_LISTINGS = text("""
    SELECT id, photos, attributes, columns FROM listing
    WHERE id = ANY(:ids) AND attributes IS NOT NULL AND status <> 'gone'
""")

_ENRICHED = "status <> 'gone' AND attributes IS NOT NULL AND enriched_at >= :since AND enriched_at <= :until"

_CONFIDENCE = "(attributes -> 'fields' ->> :field)::float"

_NEAR = text(f"""
    SELECT id, {_CONFIDENCE} AS confidence FROM listing
    WHERE {_ENRICHED} AND {_CONFIDENCE} IS NOT NULL
          AND NOT EXISTS (SELECT FROM override WHERE listing_id = listing.id)
    ORDER BY abs({_CONFIDENCE} - :turn), id LIMIT :most
""")  # noqa: S608 (our own condition)

_CONFIDENCES = text(f"""
    SELECT least(floor({_CONFIDENCE} * :bins), :bins - 1)::int AS bin, count(*) AS listings
    FROM listing WHERE {_ENRICHED} AND {_CONFIDENCE} IS NOT NULL
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
class Tally:
    """A filter (a field's yes, or one of its classes), and how many listings came to have it or lost it."""

    field: str
    word: str | None
    gained: int
    lost: int


@dataclass(frozen=True, slots=True)
class Came:
    """An answer by which a filter finds a listing at the end of a period, and not before it."""

    listing: str
    field: str
    before: Any
    after: Any
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


def tally(database: Database, period: Period) -> list[Tally]:
    """How many listings each filter gained and lost, those by a yes first."""
    return [Tally(*row) for row in _rows(database, _TALLY, period)]


def came(database: Database, period: Period, most: int) -> tuple[dict[str, list[Came]], int]:
    """Listings that filters find now and did not before, with the answers that brought them, at most so many:
    those with the most yeses, and of these the surest. And how many there are in all."""
    found = _rows(database, _CAME, period, most=most)
    by_listing: dict[str, list[Came]] = {row.listing_id: [] for row in found}
    for row in _rows(database, _CHANGES, period, ids=list(by_listing)):
        by_listing[row.listing_id].append(Came(*row))
    return by_listing, found[0].in_all if found else 0


def listings(database: Database, ids: Sequence[str]) -> dict[str, Mapping[str, Any]]:
    """Id -> photos, attributes and columns, of those that are there."""
    return {row.id: row._asdict() for row in database.rows(_LISTINGS, ids=list(ids))}


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
    return database.rows(statement, since=period.since, until=period.until, **given)
