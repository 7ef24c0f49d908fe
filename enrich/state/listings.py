"""State: which listing is worked on by whom, and what came of it. Every change is one transaction.

A claim leases a listing to one process for as long as that process gives signs of life, and gives it a fresh
token; what carries a stale token changes nothing. `requested` counts the times that something asked for the
listing: a completion whose claim has an older count leaves it pending, so a change during a lease is never
lost. All times are the database's.
"""

import os
import socket
from collections.abc import Mapping, Sequence
from contextlib import suppress
from functools import partial
from itertools import count
from typing import Any
from uuid import uuid4

from sqlalchemy import Connection, Row, TextClause, text
from sqlalchemy.exc import DBAPIError

from enrich.errors import OutageError, UsageError
from enrich.records import Claim, ListingResult, Packed, PhotoResult, PhotoScore, PhotoState
from enrich.state import completion, embeddings, flips, photos, requests, workers
from enrich.state.database import Database, one_line, sqlstate
from enrich.state.refusals import servers_state
from enrich.state.schema import NIGHTLY, WAITS
from enrich.state.settle import clean

# A dead worker's listings are free, and so are those of one whose row is gone. What somebody takes while the
# statement runs is looked at once more when it is locked, and by a token that the statement does not see: its
# worker may be as new.
_FREE = """CASE l.status
                  WHEN 'leased' THEN NOT EXISTS (
                      SELECT FROM worker AS w WHERE w.id = l.lease_worker AND w.expires > clock_timestamp())
                      AND l.lease_token = (SELECT seen.lease_token FROM listing AS seen WHERE seen.id = l.id)
                  ELSE coalesce(l.not_before <= now(), l.status = 'pending') END"""
_UNHARMED = "(l.attempts = 0 AND l.status <> 'leased' OR l.attempts >= :most)"  # or to be quarantined
_WORKER_DIED = "(l.attempts > 0 OR l.status = 'leased')"
# What failed keeps its reason until it comes right or is asked for anew. It comes behind everything else, so
# that no run spends its error budget on the same photos before it gets to others.
_FRESH = "l.error IS NULL"

PAUSED_SECONDS = 300  # that a listing is put off for a paused host, at most: `photos.hosts.LONGEST_PAUSE`
UNWRITABLE = ("22", "23", "54")  # Postgres: data exceptions, integrity constraints, more than fits
LOST_SECONDS = 3600  # until a listing that lost all its photos since discovery is looked at again


def _claiming(which: str, order: str) -> TextClause:
    return text(f"""
        WITH picked AS (
            SELECT l.id, l.attempts < :most AS leased FROM listing AS l
            WHERE l.status IN ('pending', 'retry', 'leased')
              AND {which}
              AND {_FREE}
              AND (CAST(:ids AS text[]) IS NULL OR l.id = ANY(:ids))
            ORDER BY {order} LIMIT :limit
            FOR UPDATE OF l SKIP LOCKED
        )
        UPDATE listing AS l SET
            status = CASE WHEN leased THEN 'leased' ELSE 'quarantined' END,
            error = CASE WHEN leased THEN l.error
                         ELSE 'the worker died ' || l.attempts || ' times while working on it' END,
            lease_token = CASE WHEN leased THEN CAST(:token AS uuid) END,
            lease_worker = CASE WHEN leased THEN CAST(:worker AS uuid) END,
            pending_since = CASE WHEN leased THEN coalesce(l.pending_since, l.not_before, now()) END,
            attempts = least(l.attempts + 1, :most),
            not_before = NULL
        FROM picked WHERE l.id = picked.id
        RETURNING l.id, l.status, l.requested, l.revalidate, l.photo_fp_done, l.priority
    """)  # noqa: S608 (built from the constants here)


_CLAIM_FRESH = _claiming(f"{_UNHARMED} AND {_FRESH}", "l.priority, l.id")
_CLAIM = _claiming(_UNHARMED, "l.priority, l.id")
_CLAIM_ALONE = _claiming(_WORKER_DIED, "l.attempts, l.priority, l.id")

_ORPHANED = text(f"""
    SELECT EXISTS (
        SELECT FROM listing AS l
        WHERE l.status IN ('pending', 'retry', 'leased') AND l.priority = {NIGHTLY}
          AND {_WORKER_DIED} AND {_FREE}
          AND (CAST(:ids AS text[]) IS NULL OR l.id = ANY(:ids)))
""")  # noqa: S608 (put together from the constants here)

# What an earlier try of the same claim leased: its commit got through, and only the answer was lost.
_CLAIMED = text("""
    SELECT id, status, requested, revalidate, photo_fp_done, priority FROM listing
    WHERE lease_worker = CAST(:worker AS uuid) AND lease_token = CAST(:token AS uuid)
""")

_WAITING = f"""
    FROM listing
    WHERE {WAITS}
      AND (CAST(:ids AS text[]) IS NULL OR id = ANY(:ids))
"""
_CLAIMABLE = text(f"SELECT EXISTS (SELECT {_WAITING})")
# One in retry that is pending all the same was put off, for a paused host at most so long.
_COUNT_WAITING = text(f"""
    SELECT (SELECT count(*) {_WAITING}) + (
        SELECT count(*) FROM listing
        WHERE status = 'retry' AND pending_since IS NOT NULL
          AND not_before > now() AND not_before <= now() + interval '{PAUSED_SECONDS} seconds'
          AND (CAST(:ids AS text[]) IS NULL OR id = ANY(:ids)))
""")  # noqa: S608 (put together from the constants here)

_LOST = text("""
    SELECT c.number
    FROM unnest(CAST(:ids AS text[]), CAST(:tokens AS uuid[])) WITH ORDINALITY AS c(id, token, number)
    LEFT JOIN listing AS l ON l.id = c.id AND l.lease_token = c.token
    WHERE l.id IS NULL ORDER BY c.number
""")

_RELEASE = text("""
    WITH held AS (
        SELECT l.id
        FROM listing AS l
        JOIN unnest(CAST(:ids AS text[]), CAST(:tokens AS uuid[])) AS c(id, token)
          ON l.id = c.id AND l.lease_token = c.token
        ORDER BY l.id FOR NO KEY UPDATE OF l
    )
    UPDATE listing AS l SET
        status = CASE WHEN :later > 0 THEN 'retry' ELSE 'pending' END,
        not_before = CASE WHEN :later > 0 THEN now() + :later * interval '1 second' END,
        lease_token = NULL, lease_worker = NULL,
        attempts = CASE WHEN :forgive THEN greatest(l.attempts - 1, 0) ELSE l.attempts END
    FROM held WHERE l.id = held.id
""")

_FAIL = text("""
    UPDATE listing SET
        status = CASE WHEN requested = :requested THEN 'quarantined' ELSE 'pending' END,
        error = :reason,
        attempts = CASE WHEN requested = :requested THEN attempts ELSE 0 END,
        pending_since = CASE WHEN requested = :requested THEN NULL ELSE pending_since END,
        lease_token = NULL, lease_worker = NULL, not_before = NULL
    WHERE id = :id AND lease_token = CAST(:token AS uuid)
    RETURNING status
""")


class Listings:
    """The table `listing` as the queue of work that it is: `state.queue.WorkQueue`, which says what is not
    said here.

    `lease_seconds`: how long a silent worker keeps its listings. `max_attempts`: how many workers may die on
    a listing before it is quarantined. `doing`: what people call this process's work. The first claim makes
    this process a row in `worker`, and `close` removes it.
    """

    def __init__(
        self, database: Database, *, lease_seconds: float, max_attempts: int, doing: str = "run"
    ) -> None:
        self._database = database
        self._me = workers.Identity(str(uuid4()), socket.gethostname(), os.getpid(), doing)
        self._lease = lease_seconds
        self._most = max_attempts
        self._registered = False
        self.newly_quarantined = 0
        """Listings that `claim` put into quarantine so far, because they kept killing their worker."""

    def claim(self, limit: int, ids: Sequence[str] | None = None, *, alone: bool = False) -> list[Claim]:
        """Of those that killed a worker, the one that killed the fewest comes first; one that cost
        `max_attempts` workers their lives is quarantined instead."""
        given = {
            "limit": 1 if alone else limit,
            "ids": None if ids is None else list(ids),
            "most": self._most,
            "worker": self._me.id,
        }
        for statement in (_CLAIM_ALONE,) if alone else (_CLAIM_FRESH, _CLAIM):
            while rows := self._claimed(statement, given | {"token": (token := str(uuid4()))}):
                leased = sorted((r for r in rows if r.status == "leased"), key=lambda r: (r.priority, r.id))
                self.newly_quarantined += len(rows) - len(leased)
                if leased:
                    return [Claim(r.id, token, r.requested, r.revalidate, r.photo_fp_done) for r in leased]
        return []

    def _claimed(self, statement: TextClause, given: Mapping[str, Any]) -> Sequence[Row[Any]]:
        tries = count()

        def work(connection: Connection) -> Sequence[Row[Any]]:
            earlier = connection.execute(_CLAIMED, given).all() if next(tries) else ()
            rows = earlier or connection.execute(statement, given).all()
            if rows:
                self._registered = True
                workers.renew(connection, self._me, self._lease)
            return rows

        return self._database.run(work)

    def claimable(self, ids: Sequence[str] | None = None) -> bool:
        return bool(self._of(_CLAIMABLE, ids))

    def orphaned(self, ids: Sequence[str] | None = None) -> bool:
        return bool(self._of(_ORPHANED, ids))

    def waiting_count(self, ids: Sequence[str] | None = None) -> int:
        """How many (of `ids`, if given) can be claimed, are in hand, or wait for a paused host."""
        return int(self._of(_COUNT_WAITING, ids))

    def _of(self, statement: TextClause, ids: Sequence[str] | None) -> Any:
        return self._database.scalar(statement, ids=None if ids is None else list(ids))

    def heartbeat(self, claims: Sequence[Claim]) -> list[Claim]:
        def work(connection: Connection) -> Sequence[int]:
            workers.renew(connection, self._me, self._lease)
            return connection.execute(_LOST, completion.named(claims)).scalars().all()

        return [claims[number - 1] for number in self._database.run(work)]

    def close(self) -> None:
        """Leave: what this process still holds is free at once. Without a database, when its time is up."""
        if self._registered:
            with suppress(OutageError):
                self._database.run(lambda connection: workers.leave(connection, self._me), patience=0)

    def release(self, claims: Sequence[Claim], forgive: bool = True, later: float = 0.0) -> None:
        self._database.execute(_RELEASE, **completion.named(claims), forgive=forgive, later=later)

    def fail(self, claim: Claim, reason: str) -> bool:
        given = {"id": claim.id, "token": claim.token, "requested": claim.requested}
        return bool(self._database.scalar(_FAIL, **given, reason=clean(reason)) == "quarantined")

    def photo_states(self, keys: Sequence[str]) -> dict[str, PhotoState]:
        return self._database.run(lambda connection: photos.states(connection, keys))

    def scores(self, shas: Sequence[str], model_ids: Sequence[str]) -> dict[str, PhotoScore]:
        return self._database.run(lambda connection: photos.scores(connection, shas, model_ids))

    def features(self, shas: Sequence[str], feature_id: str) -> list[Packed]:
        return self._database.run(lambda connection: embeddings.of(connection, shas, feature_id))

    def forgive(self, ids: Sequence[str]) -> None:
        """Try these listings' failed photos again now, and do not count their last failures.

        For listings in retry whose passing failures came from an outage, not from the photos.
        """
        self._database.run(lambda connection: requests.forgive(connection, ids))

    def keep(self, claim: Claim, results: Sequence[PhotoResult]) -> None:
        self._database.run(partial(photos.record, results=results, besides=[claim.id]))

    def complete(self, results: Sequence[ListingResult]) -> set[Claim]:
        """Save photos, scores and attributes of listings in one transaction, and say what is next for each.

        A listing is done; or due again later, where photos failed for passing reasons; or pending still,
        where something asked for it, or somebody saw other bytes of a photo, since the claim. The revision
        moves only when the document differs. Answers the claims whose listings were saved. Not among them is
        a stale claim; nor a listing that lost all its photos since discovery, of which the next one is to say
        what to believe. They take nothing from the others. A backfill that would change more filters than it
        may is held, and its listings are stale from then on.

        Raises:
            ValueError: some listing cannot be written down as it is; none of them is saved.
            UsageError: a privilege is missing.
        """
        while results:
            try:
                self._database.run(partial(completion.complete, results=results))
                break
            except completion.NotSavedError as error:
                if error.emptied:
                    self.release(error.emptied, later=LOST_SECONDS)
                results = [r for r in results if r.claim not in {*error.stale, *error.emptied}]
            except flips.FlipsExceededError as error:
                self._database.run(partial(flips.hold, backfill=error.backfill, why=error.why))
            except DBAPIError as error:
                if isinstance(ended := servers_state(error), UsageError):
                    raise ended from error  # no fault of these listings
                if not (sqlstate(error) or "").startswith(UNWRITABLE):
                    raise
                raise ValueError(one_line(error)) from error
        return {result.claim for result in results}
