"""Asking for listings again: people's retries, backfills, and what an outage must not be held against."""

from collections.abc import Sequence
from datetime import datetime

from sqlalchemy import Connection, text

from enrich.state.database import Database
from enrich.state.schema import BACKFILL, NIGHTLY

MARK_PAGE = 10_000  # listings marked per transaction, so that workers beside it are not held up

_FORGIVE_PHOTOS = text("""
    UPDATE photo SET failures = greatest(failures - 1, 0), next_try = now()
    WHERE key IN (
        SELECT p.key FROM photo AS p
        WHERE p.next_try IS NOT NULL AND p.key IN (
            SELECT held.key FROM listing AS l JOIN listing_photo AS held ON held.listing_id = l.id
            WHERE l.id = ANY(:ids) AND l.status = 'retry'
        )
        ORDER BY p.key FOR NO KEY UPDATE
    )
""")

_FORGIVE = text("""
    UPDATE listing SET not_before = now(), transient_rounds = greatest(transient_rounds - 1, 0)
    WHERE id = ANY(:ids) AND status = 'retry'
""")

_ASK_PHOTOS = text("""
    UPDATE photo SET failures = 0, next_try = now()
    WHERE key IN (
        SELECT p.key FROM photo AS p
        WHERE p.status <> 'ok' AND p.key IN (
            SELECT held.key FROM listing AS l JOIN listing_photo AS held ON held.listing_id = l.id
            WHERE CASE WHEN CAST(:ids AS text[]) IS NULL
                       THEN l.status = 'retry' OR (:quarantined AND l.status = 'quarantined')
                       ELSE l.id = ANY(:ids) AND (:quarantined OR l.status <> 'quarantined') END
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
      AND CASE WHEN CAST(:ids AS text[]) IS NULL
               THEN status = 'retry' OR (:quarantined AND status = 'quarantined')
               ELSE id = ANY(:ids) AND (:quarantined OR status <> 'quarantined') END
""")

_MARK = text("""
    WITH page AS (
        SELECT id FROM listing
        WHERE id > :after
          AND status <> 'gone'
          AND CASE WHEN CAST(:ids AS text[]) IS NULL THEN status <> 'quarantined' ELSE id = ANY(:ids) END
          AND (CAST(:since AS timestamptz) IS NULL OR updated_at >= :since)
          AND (CAST(:bundle AS text) IS NULL OR bundle_id IS DISTINCT FROM :bundle)
        ORDER BY id LIMIT :page FOR NO KEY UPDATE
    )
    UPDATE listing AS l SET
        requested = l.requested + 1,
        revalidate = l.revalidate OR :revalidate,
        attempts = CASE WHEN l.status = 'quarantined' THEN 0 ELSE l.attempts END,
        error = CASE WHEN l.status = 'quarantined' THEN NULL ELSE l.error END,
        priority = CASE WHEN l.status IN ('done', 'quarantined') THEN :backfill ELSE l.priority END,
        not_before = NULL,
        pending_since = coalesce(l.pending_since, now()),
        status = CASE WHEN l.status = 'leased' THEN l.status ELSE 'pending' END
    FROM page WHERE l.id = page.id
    RETURNING l.id
""")

_BACKFILL_WAITING = text("""
    SELECT count(*) FROM listing WHERE status IN ('pending', 'leased') AND priority = :backfill
""")


def forgive(connection: Connection, ids: Sequence[str]) -> None:
    """What `WorkQueue.forgive` asks: these listings' failed photos, and then they themselves, are due now."""
    connection.execute(_FORGIVE_PHOTOS, {"ids": list(ids)})
    connection.execute(_FORGIVE, {"ids": list(ids)})


class Requests:
    """Makes listings pending that would otherwise rest or wait."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def retry(self, ids: Sequence[str] | None = None, quarantined: bool = True) -> int:
        """What a person asks: listings in retry and quarantine become pending now; answers how many.

        With `ids` those listings, whatever they are waiting for (not gone ones). Their failed photos are
        asked for again, those that failed for good too. `quarantined=False` leaves quarantined ones alone.
        """
        given = {"ids": None if ids is None else list(ids), "quarantined": quarantined}

        def work(connection: Connection) -> int:
            connection.execute(_ASK_PHOTOS, given)
            return connection.execute(_RETRY, {**given, "nightly": NIGHTLY}).rowcount

        return self._database.run(work)

    def mark_backfill(
        self,
        ids: Sequence[str] | None = None,
        since: datetime | None = None,
        stale_bundle: str | None = None,
        revalidate: bool = False,
    ) -> int:
        """Make listings pending behind the nightly run's; answers how many, those pending already included.

        All of: among `ids`; changed in the portal (`updated_at`) at or after `since`; made with another
        bundle than `stale_bundle`, the current one's id. Quarantined listings are left out unless named.
        `revalidate` has their photos asked for again.
        """
        given = {
            "ids": None if ids is None else list(ids), "since": since, "bundle": stale_bundle,
            "revalidate": revalidate, "backfill": BACKFILL, "page": MARK_PAGE,
        }  # fmt: skip
        marked, after = 0, ""

        def mark_page(connection: Connection) -> Sequence[str]:
            return connection.execute(_MARK, {**given, "after": after}).scalars().all()

        while page := self._database.run(mark_page):
            marked, after = marked + len(page), max(page)
        return marked

    def backfill_waiting(self) -> int:
        """How many listings an earlier backfill marked that are not enriched yet."""
        given = {"backfill": BACKFILL}
        return int(self._database.run(lambda c: c.execute(_BACKFILL_WAITING, given).scalar_one()))
