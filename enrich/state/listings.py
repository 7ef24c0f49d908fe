"""State: which listing is worked on by whom, and what came of it. Every change is one transaction.

A claim leases a listing to one process for a while and gives it a fresh token; what carries a stale token
changes nothing. `requested` counts the times that something asked for the listing: a completion whose claim
has an older count leaves it pending, so a change during a lease is never lost. All times are the database's.
"""

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any
from uuid import UUID, uuid4

from sqlalchemy import Connection, Row, func, select, text, update

from enrich.records import Claim, ListingResult, PhotoResult, PhotoScore, PhotoState
from enrich.state import overrides, photos
from enrich.state.database import Database
from enrich.state.outbox import enqueue
from enrich.state.overrides import Overrides
from enrich.state.requests import Requeue
from enrich.state.schema import NEXT_REVISION, NIGHTLY, listing

RETRY_HOURS = (*photos.RETRY_HOURS, *[24] * 7)  # then daily for a week, then it is left at that
CROSSING_SECONDS = 2  # until another worker has surely saved the photo that both worked on

_CLAIM = text("""
    WITH picked AS (
        SELECT id FROM listing
        WHERE status IN ('pending', 'retry', 'leased')
          AND CASE status WHEN 'leased' THEN lease_expires < now()
                          ELSE coalesce(not_before <= now(), status = 'pending') END
          AND (CAST(:ids AS text[]) IS NULL OR id = ANY(:ids))
        ORDER BY priority, id LIMIT :limit
        FOR UPDATE SKIP LOCKED
    )
    UPDATE listing AS l SET
        status = CASE WHEN l.attempts < :most THEN 'leased' ELSE 'quarantined' END,
        error = CASE WHEN l.attempts < :most THEN l.error
                     ELSE 'the worker died ' || l.attempts || ' times while working on it' END,
        lease_token = CASE WHEN l.attempts < :most THEN CAST(:token AS uuid) END,
        lease_expires = CASE WHEN l.attempts < :most THEN now() + :lease * interval '1 second' END,
        pending_since = CASE WHEN l.attempts < :most THEN coalesce(l.pending_since, l.not_before, now()) END,
        attempts = least(l.attempts + 1, :most),
        not_before = NULL
    FROM picked WHERE l.id = picked.id
    RETURNING l.id, l.status, l.requested, l.revalidate, l.transient_rounds, l.priority
""")

_CLAIMABLE = text("""
    SELECT count(*) FROM listing
    WHERE status IN ('pending', 'retry', 'leased') AND (status <> 'retry' OR not_before <= now())
      AND (CAST(:ids AS text[]) IS NULL OR id = ANY(:ids))
""")

_HEARTBEAT = text("""
    WITH held AS (
        SELECT l.id
        FROM listing AS l
        JOIN unnest(CAST(:ids AS text[]), CAST(:tokens AS uuid[])) AS c(id, token)
          ON l.id = c.id AND l.lease_token = c.token
        ORDER BY l.id FOR NO KEY UPDATE OF l
    )
    UPDATE listing AS l SET lease_expires = clock_timestamp() + :lease * interval '1 second'
    FROM held WHERE l.id = held.id
    RETURNING l.id
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
        lease_token = NULL, lease_expires = NULL,
        attempts = CASE WHEN :forgive THEN greatest(l.attempts - 1, 0) ELSE l.attempts END
    FROM held WHERE l.id = held.id
""")

_FAIL = text("""
    UPDATE listing SET
        status = CASE WHEN requested = :requested THEN 'quarantined' ELSE 'pending' END,
        error = :reason,
        attempts = CASE WHEN requested = :requested THEN attempts ELSE 0 END,
        pending_since = CASE WHEN requested = :requested THEN NULL ELSE pending_since END,
        lease_token = NULL, lease_expires = NULL, not_before = NULL
    WHERE id = :id AND lease_token = CAST(:token AS uuid)
    RETURNING status
""")


class _StaleClaim(Exception):
    """The listing went to another worker: rolls the completion back."""


class State(Requeue, Overrides):
    """The table `listing` and all that hangs on it.

    `lease_seconds`: how long a silent worker keeps its listings. `max_attempts`: how many workers may die on
    a listing before it is quarantined.
    """

    def __init__(self, database: Database, *, lease_seconds: float, max_attempts: int) -> None:
        super().__init__(database)
        self._lease = lease_seconds
        self._most = max_attempts
        self.newly_quarantined = 0
        """Listings that `claim` put into quarantine so far, because they kept killing their worker."""

    def claim(self, limit: int, ids: Sequence[str] | None = None) -> list[Claim]:
        """Lease up to `limit` listings that wait (of `ids`, if given), those of the nightly run first.

        A listing that cost `max_attempts` workers their lives is quarantined instead.
        """
        given = {
            "limit": limit,
            "ids": None if ids is None else list(ids),
            "most": self._most,
            "lease": self._lease,
        }

        def work(connection: Connection) -> tuple[str, Sequence[Row[Any]]]:
            token = str(uuid4())
            return token, connection.execute(_CLAIM, {**given, "token": token}).all()

        while True:
            token, rows = self._database.run(work)
            leased = sorted((r for r in rows if r.status == "leased"), key=lambda r: (r.priority, r.id))
            self.newly_quarantined += len(rows) - len(leased)
            if leased or not rows:
                return [Claim(r.id, token, r.requested, r.revalidate, r.transient_rounds) for r in leased]

    def claimable(self, ids: Sequence[str] | None = None) -> int:
        """How many listings (of `ids`, if given) can be claimed now or are in some worker's hands."""
        given = {"ids": None if ids is None else list(ids)}
        return int(self._database.run(lambda connection: connection.execute(_CLAIMABLE, given).scalar_one()))

    def heartbeat(self, claims: Sequence[Claim]) -> set[str]:
        """Renew the leases; answers the ids that are no longer ours."""
        given = {**_held(claims), "lease": self._lease}
        kept = self._database.run(lambda c: c.execute(_HEARTBEAT, given).scalars().all())
        return {claim.id for claim in claims} - set(kept)

    def release(self, claims: Sequence[Claim], forgive: bool = True, later: float = 0.0) -> None:
        """Give listings back unworked; with `forgive` the attempt does not count.

        They can be claimed again at once, or `later` seconds from now.
        """
        given = {**_held(claims), "forgive": forgive, "later": later}
        self._database.run(lambda connection: connection.execute(_RELEASE, given))

    def fail(self, claim: Claim, reason: str) -> bool:
        """Quarantine a listing that cannot be worked on. False: asked for again meanwhile, or not ours."""
        given = {
            "id": claim.id,
            "token": claim.token,
            "requested": claim.requested,
            "reason": photos.clean(reason),
        }
        status = self._database.run(lambda connection: connection.execute(_FAIL, given).scalar())
        return bool(status == "quarantined")

    def photo_states(self, keys: Sequence[str]) -> dict[str, PhotoState]:
        """What is known of these URL keys; unknown ones are absent."""
        return self._database.run(lambda connection: photos.states(connection, keys))

    def scores(self, shas: Sequence[str], model_ids: Sequence[str]) -> dict[str, PhotoScore]:
        """Scores on record for these bytes by these models; `by_model` holds only the models found."""
        return self._database.run(lambda connection: photos.scores(connection, shas, model_ids))

    def save_scores(self, scores: Sequence[PhotoScore]) -> None:
        """Record scores; what is on record already stays."""
        self._database.run(lambda connection: photos.save_scores(connection, scores))

    def save_photos(self, results: Sequence[PhotoResult], except_listing: str) -> None:
        """Record how requested photos ended. Other listings that hold a changed photo become pending."""

        def work(connection: Connection) -> None:
            saved = photos.save(connection, results)
            photos.ask_holders_again(connection, saved.changed, except_listing)

        self._database.run(work)

    def complete(self, result: ListingResult) -> bool:
        """Save a listing's photos, scores and attributes, and say what is next for it.

        It is done; or due again later, where photos failed for passing reasons; or pending still, where
        something asked for it, or another worker saw other bytes of a photo, since the claim. The revision
        moves only when the document differs. False where the claim is stale: then nothing was changed.
        """

        def work(connection: Connection) -> None:
            photos.save_scores(connection, [r.score for r in result.results if r.score])
            saved = photos.save(connection, result.results)
            photos.ask_holders_again(connection, saved.changed, result.claim.id)
            row = connection.execute(_locked(result.claim)).one_or_none()
            if row is None:
                raise _StaleClaim
            changes = _work_left(result, row, saved.current) | _findings(connection, result, row)
            connection.execute(update(listing).where(listing.c.id == row.id).values(changes))
            if "revision" in changes:
                enqueue(connection, [row.id])

        try:
            self._database.run(work)
        except _StaleClaim:
            return False
        return True


def _held(claims: Sequence[Claim]) -> dict[str, list[str]]:
    return {"ids": [claim.id for claim in claims], "tokens": [claim.token for claim in claims]}


def _locked(claim: Claim) -> Any:
    held = select(listing).where(listing.c.id == claim.id, listing.c.lease_token == UUID(claim.token))
    return held.with_for_update(key_share=True)


def _work_left(result: ListingResult, row: Row[Any], current: bool) -> dict[str, Any]:
    """The columns that say whether and when the listing is worked on again."""
    claim, source = result.claim, result.source
    changes: dict[str, Any] = {
        "photo_fp_done": source.photo_fp,
        "updated_at_done": source.updated_at,
        "lease_token": None,
        "lease_expires": None,
        "attempts": 0,
        "error": None,
        "not_before": None,
        "pending_since": None,
    }
    if claim.revalidate:
        changes["revalidated_at"] = func.now()
    if row.requested != claim.requested:
        return changes | {"status": "pending", "pending_since": func.now()}
    changes |= {"photo_fp": source.photo_fp, "revalidate": False}
    if not current:
        soon = func.now() + text(f"interval '{CROSSING_SECONDS} seconds'")
        return changes | {"status": "pending", "pending_since": func.now(), "not_before": soon}
    kinds = Counter(r.status.value for r in result.results if r.transient)
    rounds = row.transient_rounds + 1
    changes["priority"] = NIGHTLY  # a backfill is over for a listing once it is done with it
    if not kinds or rounds > len(RETRY_HOURS):
        return changes | {"status": "done", "transient_rounds": 0}
    return changes | {
        "status": "retry",
        "transient_rounds": rounds,
        "not_before": func.now() + text(f"interval '{RETRY_HOURS[rounds - 1]} hours'"),
        "error": "photos to be tried again: " + ", ".join(f"{k} ({n})" for k, n in kinds.most_common()),
    }


def _findings(connection: Connection, result: ListingResult, row: Row[Any]) -> dict[str, Any]:
    """The columns that say what was found, and the revision where the document is another one."""
    model = json.loads(json.dumps(asdict(result.attributes), allow_nan=False))
    attributes = overrides.published(connection, row.id, model)
    changes: dict[str, Any] = {
        "photos": [_photo(r) for r in result.results],
        "model_attributes": model,
        "attributes": attributes,
        "bundle_id": result.bundle_id,
        "model_ids": sorted({model_id for r in result.results if r.score for model_id in r.score.by_model}),
        "enriched_at": func.now(),
    }
    if row.revision is None or (attributes, result.bundle_id) != (row.attributes, row.bundle_id):
        changes["revision"] = NEXT_REVISION
    return changes


def _photo(result: PhotoResult) -> dict[str, Any]:
    photo = result.photo
    return {
        "position": photo.position,
        "key": photo.key,
        "url": photo.shown_url,
        "version": photo.version,
        "sha256": result.sha256 if result.status.ok else None,
        "status": result.status.value,
        "error": photos.clean(result.error),
    }
