"""Rescoring: listings made with another bundle, taken to the current one from kept features.

A page of listings is done before the next one is read, so whoever starts again goes on there.
"""

from collections.abc import Iterator, Mapping, Sequence

from sqlalchemy import text

from enrich.state.backfills import Selection
from enrich.state.database import Database
from enrich.state.schema import BACKFILL

PAGE = 1_000  # listings that are enriched at once

_STALE = """
    FROM listing
    WHERE id > :after
      AND status <> 'gone'
      AND bundle_id <> :stale_bundle
      AND (CAST(:ids AS text[]) IS NULL OR id = ANY(:ids))
      AND (CAST(:since AS timestamptz) IS NULL OR updated_at >= :since)
"""
_PAGE = text(f"SELECT id {_STALE} ORDER BY id LIMIT :page")
_COUNT = text(f"SELECT count(*) {_STALE}")

# The pipeline finds all photos of such a listing known: it asks for none. Features alone are not enough: the
# hash that tells near-duplicates apart stands beside a photo's scores. While a photo fails for a reason
# that may pass, its scores stand in for it. One that was forbidden is looked at anew: a backfill's to do.
_MARK = text("""
    WITH ready AS (
        SELECT l.id, l.status FROM listing AS l
        WHERE l.id = ANY(:ids)
          AND l.status IN ('done', 'retry', 'pending', 'leased')
          AND l.bundle_id <> :stale_bundle
          AND l.photo_fp = l.photo_fp_done AND NOT l.revalidate
          AND NOT EXISTS (
              SELECT FROM listing_photo AS h LEFT JOIN photo AS p USING (key)
              CROSS JOIN unnest(CAST(:models AS text[]), CAST(:features AS text[])) AS m(model, feature)
              WHERE h.listing_id = l.id
                AND CASE
                        WHEN p.status = 'ok' OR p.next_try > now() THEN NOT EXISTS (
                            SELECT FROM photo_score AS s
                            LEFT JOIN photo_embedding AS e ON e.sha256 = s.sha256 AND e.feature_id = m.feature
                            WHERE s.sha256 = p.sha256 AND (s.model_id = m.model OR e.sha256 IS NOT NULL))
                            AND (p.status = 'ok' OR EXISTS (
                                SELECT FROM photo_score AS s WHERE s.sha256 = p.sha256))
                        ELSE coalesce(p.next_try <= now(),
                                      p.key IS NULL OR p.status = 'forbidden_address') END)
        ORDER BY l.id FOR NO KEY UPDATE OF l SKIP LOCKED
    ), marked AS (
        UPDATE listing AS l SET
            requested = l.requested + 1,
            priority = CASE WHEN l.status = 'done' THEN :priority ELSE l.priority END,
            not_before = NULL,
            pending_since = coalesce(l.pending_since, now()),
            status = 'pending'
        FROM ready WHERE l.id = ready.id AND ready.status <> 'leased'
    )
    SELECT id FROM ready
""")


class Rescoring:
    """Listings that a bundle's heads are to be applied to.

    `selection.stale_bundle`: the id of that bundle. `features`: model_id -> feature_id of its members.
    """

    def __init__(self, database: Database, selection: Selection, features: Mapping[str, str]) -> None:
        self._database = database
        self._given = selection.as_row()
        self._features = features
        self._after = ""

    def pages(self) -> Iterator[list[str]]:
        """The ids of the listings made with another bundle, in pages."""
        while page := self._page():
            yield page
            self._after = page[-1]

    def left(self, everything: bool = False) -> int:
        """How many such listings there are, from the page in hand on unless `everything` is asked for."""
        given = self._given | {"after": "" if everything else self._after}
        return int(self._database.scalar(_COUNT, **given))

    def mark(self, listings: Sequence[str]) -> list[str]:
        """Make those of these listings pending whose photos are all scored, or have features; their ids.

        What a worker has in its hands is among them, and stays there: it may have died, and be an earlier one
        of ours.
        """
        given = self._given | {
            "ids": list(listings),
            "models": list(self._features),
            "features": list(self._features.values()),
            "priority": BACKFILL,
        }
        return sorted(self._database.scalars(_MARK, **given))

    def _page(self) -> list[str]:
        return self._database.scalars(_PAGE, **self._given, after=self._after, page=PAGE)
