"""Labels: what people said of single photos, and of which photos they might say more.

A label is about bytes (their sha256), for the next model to learn from; no document depends on it. What a
person says of a listing is an override, see `overrides`.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, text

from enrich.records import WhichPhoto, which_photo
from enrich.state.database import Database

_PUT = text("""
    INSERT INTO label AS l (sha256, head, value, created_by, created_at)
    SELECT sha256, head, value, by, least(at, now())
    FROM jsonb_to_recordset(CAST(:rows AS jsonb))
        AS r(sha256 text, head text, value jsonb, by text, at timestamptz)
    ORDER BY sha256, head
    ON CONFLICT (sha256, head) DO UPDATE
    SET value = excluded.value, created_by = excluded.created_by, created_at = excluded.created_at
    WHERE (l.value, l.created_by) IS DISTINCT FROM (excluded.value, excluded.created_by)
      AND (l.created_at <= excluded.created_at OR NOT :newer)
""")

_OF = text("SELECT sha256, head, value, created_by, created_at FROM label WHERE sha256 = ANY(:shas)")

_DROP = text("DELETE FROM label WHERE sha256 = :sha256 AND head = :head")

_KEYS = text("SELECT key, sha256 FROM photo WHERE key = ANY(:keys) AND sha256 IS NOT NULL")

_PLACES = text("""
    SELECT l.id, (p ->> 'position')::integer AS position, p ->> 'sha256' AS sha256
    FROM listing AS l CROSS JOIN LATERAL jsonb_array_elements(l.photos) AS p
    WHERE l.id = ANY(:ids) AND p ->> 'sha256' IS NOT NULL
""")

_KNOWN = text("SELECT DISTINCT sha256 FROM photo_score WHERE sha256 = ANY(:shas)")

# Listings of which a person said something, or of a photo of which; what is said outlives their being sold.
_TAUGHT = text("""
    SELECT l.id, l.model_attributes, l.photos FROM listing AS l
    WHERE l.id > :after AND l.model_attributes IS NOT NULL
      AND (EXISTS (SELECT FROM override AS o WHERE o.listing_id = l.id)
           OR EXISTS (SELECT FROM listing_photo AS h JOIN photo USING (key) JOIN label USING (sha256)
                      WHERE h.listing_id = l.id))
    ORDER BY l.id LIMIT :page
""")

_ANSWERS = text("SELECT to_jsonb(a) FROM photo_attributes AS a WHERE listing_id = ANY(:ids)")

# What only listings show that are gone is not asked for.
_SHOWN = """
    s.sha256 IN (SELECT photo.sha256 FROM photo JOIN listing_photo AS h USING (key)
                 JOIN listing ON listing.id = h.listing_id WHERE listing.status <> 'gone')
"""

# Nearest to even odds first: what a look teaches most (uncertainty sampling, Lewis and Gale 1994).
_DOUBTFUL = text(f"""
    SELECT s.sha256 FROM photo_score AS s
    WHERE s.model_id = :model AND s.scores ? :head AND {_SHOWN}
      AND NOT EXISTS (SELECT FROM label AS l WHERE l.sha256 = s.sha256)
    ORDER BY abs((s.scores -> :head ->> 0)::float8), s.sha256 LIMIT :limit
""")  # noqa: S608 (our own expression)

# A hash is as good as a random number.
_ANY = text(f"""
    SELECT s.sha256 FROM photo_score AS s
    WHERE s.model_id = :model AND s.sha256 >= :start AND {_SHOWN}
      AND NOT EXISTS (SELECT FROM label AS l WHERE l.sha256 = s.sha256)
    ORDER BY s.sha256 LIMIT :limit
""")  # noqa: S608 (our own expression)

_HOLDERS = text("""
    SELECT DISTINCT ON (p.sha256) p.sha256, l.id, p.key, (shown ->> 'position')::integer AS position
    FROM photo AS p JOIN listing_photo AS h USING (key) JOIN listing AS l ON l.id = h.listing_id
    CROSS JOIN LATERAL jsonb_array_elements(l.photos) AS shown
    WHERE p.sha256 = ANY(:shas) AND l.status <> 'gone' AND shown ->> 'key' = p.key
    ORDER BY p.sha256, l.id, position
""")

_SOLD = text("SELECT id FROM listing WHERE id = ANY(:ids) AND status = 'gone'")

PAGE = 200  # listings read at once


@dataclass(frozen=True, slots=True)
class Label:
    """What a person said of a photo. `value`: True or False of a binary head, else a class."""

    sha256: str
    head: str
    value: bool | str
    by: str | None = None
    at: datetime | None = field(default=None, compare=False)
    """When it was said; None, or in the future: now."""


@dataclass(frozen=True, slots=True)
class Place:
    """Where a photo is shown."""

    listing: str
    key: str
    """Its URL key."""
    position: int


@dataclass(frozen=True, slots=True)
class Taught:
    """A listing that people said something of."""

    id: str
    model: Mapping[str, Any]
    """What the model says of the listing: `listing.model_attributes`."""
    photos: Sequence[Mapping[str, Any]]
    """Its photos whose bytes are known: entries of `listing.photos`."""
    answers: Mapping[WhichPhoto, Mapping[str, Any]]
    """Photo -> its row of the view `photo_attributes`, which has none of listings that are gone."""


class Labels:
    """The table `label`."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def put(self, labels: Sequence[Label], *, newer: bool = False) -> int:
        """Record labels, over what was said before of these photos and heads; how many are new or changed.

        `newer`: what was said later than they were stays.
        """
        return self._database.run(lambda connection: put(connection, labels, newer=newer))

    def of(self, shas: Sequence[str]) -> dict[str, dict[str, Label]]:
        """sha256 -> head -> label, of those of these photos that have some."""
        found: dict[str, dict[str, Label]] = {}
        for row in self._database.rows(_OF, shas=list(shas)):
            found.setdefault(row.sha256, {})[row.head] = Label(*row)
        return found

    def by_key(self, keys: Sequence[str]) -> dict[str, str]:
        """URL key -> sha256, of those that are known."""
        return dict(map(tuple, self._database.rows(_KEYS, keys=list(keys))))

    def by_place(self, ids: Sequence[str]) -> dict[tuple[str, int], set[str]]:
        """(listing id, position) -> sha256 of these listings' photos there whose bytes are known."""
        found: dict[tuple[str, int], set[str]] = {}
        for id, position, sha in self._database.rows(_PLACES, ids=list(ids)):
            found.setdefault((id, position), set()).add(sha)
        return found

    def known(self, shas: Sequence[str]) -> set[str]:
        """Those of these photos that were ever scored."""
        return set(self._database.scalars(_KNOWN, shas=list(shas)))

    def taught(self, after: str) -> list[Taught]:
        """The next page of listings behind the id `after` that people said something of; [] at the end."""

        def work(connection: Connection) -> list[Taught]:
            rows = connection.execute(_TAUGHT, {"after": after, "page": PAGE}).all()
            answers: dict[str, dict[WhichPhoto, Any]] = {}
            for row in connection.execute(_ANSWERS, {"ids": [row.id for row in rows]}).scalars():
                answers.setdefault(row["listing_id"], {})[which_photo(row)] = row
            return [
                Taught(
                    row.id,
                    row.model_attributes,
                    [photo for photo in row.photos if photo["sha256"]],
                    answers.get(row.id, {}),
                )
                for row in rows
            ]

        return self._database.run(work)

    def doubtful(self, model_id: str, head: str, limit: int) -> list[str]:
        """Hashes of photos that nobody labelled, the ones with the least sure answers first."""
        return self._database.scalars(_DOUBTFUL, model=model_id, head=head, limit=limit)

    def unlabelled(self, model_id: str, start: str, limit: int) -> list[str]:
        """Photos that nobody labelled at all, by hash from `start` on: a random sample."""
        return self._database.scalars(_ANY, model=model_id, start=start, limit=limit)

    def sold(self, ids: Iterable[str]) -> set[str]:
        """Those of these listings that are gone."""
        return set(self._database.scalars(_SOLD, ids=list(ids)))

    def places(self, shas: Sequence[str]) -> dict[str, Place]:
        """sha256 -> a place where the photo is shown, of those that a listing on the market shows."""
        return {sha: Place(*place) for sha, *place in self._database.rows(_HOLDERS, shas=list(shas))}


def put(connection: Connection, labels: Sequence[Label], *, newer: bool = False) -> int:
    """As `Labels.put`."""
    last = {(label.sha256, label.head): asdict(label) for label in labels}
    rows = json.dumps(list(last.values()), default=str)
    return connection.execute(_PUT, {"rows": rows, "newer": newer}).rowcount


def one(connection: Connection, sha256: str, head: str) -> Label | None:
    """What a person said of a photo; None where nobody did."""
    found = (Label(*row) for row in connection.execute(_OF, {"shas": [sha256]}))
    return next((label for label in found if label.head == head), None)


def drop(connection: Connection, sha256: str, head: str) -> None:
    """Forget what a person said of a photo."""
    connection.execute(_DROP, {"sha256": sha256, "head": head})
