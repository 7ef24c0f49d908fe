"""Rescoring: listings made with another bundle, taken to the current one from kept features.

Whatever a page of listings gets is committed before the next one, so whoever starts again goes on there.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor

from sqlalchemy import Connection, text

from enrich.cores import usable_cores
from enrich.records import PhotoScore, Scores
from enrich.state import embeddings, photos
from enrich.state.backfills import Selection
from enrich.state.database import Database
from enrich.state.embeddings import Packed
from enrich.state.schema import BACKFILL

PAGE = 1_000  # listings that are enriched at once
SLICE = 50  # listings whose photos are looked for at once
CONNECTIONS = 4  # transactions side by side, at most
CHUNK = 2_000  # photos scored per transaction, at most: 10 MB of features of the starter bundle

Heads = Callable[[Packed], Sequence[Scores]]
"""From kept features to each photo's logits by head."""

_STALE = """
    FROM listing
    WHERE id > :after
      AND status <> 'gone'
      AND bundle_id IS DISTINCT FROM :stale_bundle AND bundle_id IS NOT NULL
      AND (CAST(:ids AS text[]) IS NULL OR id = ANY(:ids))
      AND (CAST(:since AS timestamptz) IS NULL OR updated_at >= :since)
"""
_PAGE = text(f"SELECT id {_STALE} ORDER BY id LIMIT :page")
_COUNT = text(f"SELECT count(*) {_STALE}")

# The pipeline finds all photos of such a listing known: it asks for none.
_MARK = text("""
    WITH ready AS (
        SELECT l.id FROM listing AS l
        WHERE l.id = ANY(:ids)
          AND l.status IN ('done', 'retry', 'pending') AND l.attempts = 0
          AND l.bundle_id <> :stale_bundle
          AND l.photo_fp = l.photo_fp_done AND NOT l.revalidate
          AND NOT EXISTS (
              SELECT FROM listing_photo AS h LEFT JOIN photo AS p USING (key)
              WHERE h.listing_id = l.id
                AND CASE p.status
                        WHEN 'ok' THEN (
                            SELECT count(*) FROM photo_score AS s
                            WHERE s.sha256 = p.sha256 AND s.model_id = ANY(:models)) < cardinality(:models)
                        ELSE coalesce(p.next_try <= now(), p.key IS NULL) END)
        ORDER BY l.id FOR NO KEY UPDATE OF l SKIP LOCKED
    )
    UPDATE listing AS l SET
        requested = l.requested + 1,
        priority = CASE WHEN l.status = 'done' THEN :priority ELSE l.priority END,
        not_before = NULL,
        pending_since = coalesce(l.pending_since, now()),
        status = 'pending'
    FROM ready WHERE l.id = ready.id
    RETURNING l.id
""")


class Rescoring:
    """Listings that a bundle's heads are to be applied to.

    `selection.stale_bundle`: the id of that bundle. `heads`: (feature_id, model_id) of its members -> their
    heads.
    """

    def __init__(
        self, database: Database, selection: Selection, heads: Mapping[tuple[str, str], Heads]
    ) -> None:
        self._database = database
        self._given = selection.as_row()
        self._heads = heads
        self._after = ""

    def pages(self) -> Iterator[list[str]]:
        """The ids of the listings made with another bundle, in pages."""
        while page := self._page():
            yield page
            self._after = page[-1]

    def left(self, everything: bool = False) -> int:
        """How many such listings there are, from the page in hand on unless `everything` is asked for."""
        given = self._given | {"after": "" if everything else self._after}
        return self._database.run(lambda connection: int(connection.execute(_COUNT, given).scalar_one()))

    def score(self, listings: Sequence[str], stopping: Callable[[], bool]) -> int:
        """Score the photos of these listings from their features, on all cores; how many there were."""
        slices = [listings[start : start + SLICE] for start in range(0, len(listings), SLICE)]
        with ThreadPoolExecutor(min(usable_cores(), CONNECTIONS), "rescore") as pool:
            return sum(pool.map(lambda some: self._score_all(some, stopping), slices))

    def mark(self, listings: Sequence[str]) -> list[str]:
        """Make those of these listings pending whose photos are all scored; their ids."""
        given = self._given | {
            "ids": list(listings),
            "models": [model_id for _, model_id in self._heads],
            "priority": BACKFILL,
        }
        return self._database.run(lambda connection: sorted(connection.execute(_MARK, given).scalars()))

    def _page(self) -> list[str]:
        given = self._given | {"after": self._after, "page": PAGE}
        return self._database.run(lambda connection: list(connection.execute(_PAGE, given).scalars()))

    def _score_all(self, listings: Sequence[str], stopping: Callable[[], bool]) -> int:
        total = 0
        for (feature_id, model_id), heads in self._heads.items():
            scored = CHUNK
            while scored == CHUNK and not stopping():
                scored = self._score(listings, feature_id, model_id, heads)
                total += scored
        return total

    def _score(self, listings: Sequence[str], feature_id: str, model_id: str, heads: Heads) -> int:
        def work(connection: Connection) -> int:
            found = embeddings.unscored(connection, listings, feature_id, model_id, CHUNK)
            scores = [
                PhotoScore(sha, dhash, {model_id: by_head})
                for packed in found
                for sha, dhash, by_head in zip(packed.shas, packed.hashes, heads(packed), strict=True)
            ]
            photos.save_scores(connection, scores)
            return len(scores)

        return self._database.run(work)
