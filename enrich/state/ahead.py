"""Photos scored ahead of their listings' claims: what a cluster reads and writes of state.

Nothing here touches a listing's lease. What is saved ahead is found by whoever claims the listing; what is
not, that one asks for itself.
"""

from collections.abc import Sequence
from functools import partial

from sqlalchemy import text

from enrich.records import PhotoResult, PhotoScore
from enrich.state import photos
from enrich.state.database import Database
from enrich.state.settle import MAY_BE_FORGIVEN

# Listings that killed a worker are left to the queue, which hands them out one at a time; those to be
# revalidated have every photo asked for once more by their claim.
_WAITING = text("""
    SELECT id, photo_fp_done FROM listing
    WHERE status IN ('pending', 'retry') AND coalesce(not_before <= now(), status = 'pending')
      AND attempts = 0 AND NOT revalidate
      AND (CAST(:ids AS text[]) IS NULL OR id = ANY(:ids))
      AND id > :after
    ORDER BY id LIMIT :limit
""")

_FORGIVE = text(f"""
    UPDATE photo SET failures = greatest(failures - 1, 0), next_try = now()
    WHERE key IN (
        SELECT key FROM photo AS p WHERE key = ANY(:keys) AND {MAY_BE_FORGIVEN}
        ORDER BY key FOR NO KEY UPDATE
    )
""")  # noqa: S608 (our own condition)


class Ahead:
    """Reads `listing`, writes `photo` and `photo_score`; all raise `OutageError` as `Database.run` does."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def waiting(
        self, after: str | None, limit: int, ids: Sequence[str] | None = None
    ) -> dict[str, str | None]:
        """The next `limit` listings (of `ids`, if given) behind id `after` that can be claimed now, in order,
        each with the fingerprint of the photos that it was last completed with."""
        among = None if ids is None else list(ids)
        rows = self._database.rows(_WAITING, after=after or "", limit=limit, ids=among)
        return {row.id: row.photo_fp_done for row in rows}

    def scores(self, shas: Sequence[str], model_ids: Sequence[str]) -> dict[str, PhotoScore]:
        """As `WorkQueue.scores`."""
        return self._database.run(lambda connection: photos.scores(connection, shas, model_ids))

    def save(self, results: Sequence[PhotoResult]) -> None:
        """Record how requested photos ended, with their scores, in one transaction.

        Listings that hold other bytes of such a photo are asked for again.

        Raises:
            ValueError: a score is not a finite number; nothing is saved.
        """
        self._database.run(partial(photos.record, results=results))

    def forgive(self, keys: Sequence[str]) -> None:
        """Ask for these photos again now, and do not count their last failures: an outage caused them."""
        self._database.execute(_FORGIVE, keys=list(keys))
