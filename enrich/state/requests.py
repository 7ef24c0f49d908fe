"""Asking for listings again: people's retries, and what an outage must not be held against."""

from collections.abc import Sequence

from sqlalchemy import Connection, text

from enrich.state.database import Database
from enrich.state.schema import NIGHTLY
from enrich.state.settle import MAY_BE_FORGIVEN

# A photo that was not found is not asked for at once: an outage says nothing of it, and dead links would be
# new ones for ever.
_FORGIVE_PHOTOS = text(f"""
    UPDATE photo SET failures = greatest(failures - 1, 0), next_try = now()
    WHERE key IN (
        SELECT p.key FROM photo AS p
        WHERE {MAY_BE_FORGIVEN} AND p.key IN (
            SELECT held.key FROM listing AS l JOIN listing_photo AS held ON held.listing_id = l.id
            WHERE l.id = ANY(:ids) AND l.status = 'retry'
        )
        ORDER BY p.key FOR NO KEY UPDATE
    )
""")  # noqa: S608 (our own condition)

_FORGIVE = text("""
    UPDATE listing SET not_before = now(), transient_rounds = greatest(transient_rounds - 1, 0)
    WHERE id = ANY(:ids) AND status = 'retry' AND EXISTS (
        SELECT FROM listing_photo AS held JOIN photo AS p USING (key)
        WHERE held.listing_id = listing.id AND p.next_try <= now())
""")

_ASK_PHOTOS = text("""
    UPDATE photo SET failures = 0, next_try = now()
    WHERE key IN (
        SELECT p.key FROM photo AS p
        WHERE p.status <> 'ok' AND p.key IN (
            SELECT held.key FROM listing AS l JOIN listing_photo AS held ON held.listing_id = l.id
            WHERE CASE WHEN CAST(:ids AS text[]) IS NULL THEN l.status IN ('retry', 'quarantined')
                       ELSE l.id = ANY(:ids) END
        )
        ORDER BY p.key FOR NO KEY UPDATE
    )
""")

_RETRY = text("""
    UPDATE listing SET
        requested = requested + 1,
        attempts = CASE WHEN status = 'leased' THEN attempts ELSE 0 END,
        transient_rounds = 0, priority = :nightly, not_before = NULL, error = NULL,
        pending_since = coalesce(pending_since, now()),
        status = CASE WHEN status = 'leased' THEN status ELSE 'pending' END
    WHERE status <> 'gone'
      AND CASE WHEN CAST(:ids AS text[]) IS NULL THEN status IN ('retry', 'quarantined')
               ELSE id = ANY(:ids) END
""")


def forgive(connection: Connection, ids: Sequence[str]) -> None:
    """What `WorkQueue.forgive` asks: these listings' failed photos, and then they themselves, are due now.

    Not photos that were not found, nor listings all of whose failed photos are such ones.
    """
    connection.execute(_FORGIVE_PHOTOS, {"ids": list(ids)})
    connection.execute(_FORGIVE, {"ids": list(ids)})


class Requests:
    """Makes listings pending that would otherwise rest or wait."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def retry(self, ids: Sequence[str] | None = None) -> int:
        """What a person asks: listings in retry and quarantine become pending now; answers how many.

        With `ids` those listings, whatever they are waiting for (not gone ones). Their failed photos are
        asked for again, those that failed for good too.
        """
        given = {"ids": None if ids is None else list(ids)}

        def work(connection: Connection) -> int:
            connection.execute(_ASK_PHOTOS, given)
            return connection.execute(_RETRY, {**given, "nightly": NIGHTLY}).rowcount

        return self._database.run(work)
