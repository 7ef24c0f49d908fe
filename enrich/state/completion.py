"""What a completed listing leaves in state: functions on an open transaction, called by `state.listings`."""

import json
from collections import Counter
from collections.abc import Set
from dataclasses import asdict
from typing import Any

from sqlalchemy import Connection, Row, text

from enrich.records import Claim, ListingResult, PhotoResult
from enrich.state import overrides, photos
from enrich.state.outbox import enqueue
from enrich.state.schema import NEXT_REVISION, NIGHTLY

RETRY_HOURS = (*photos.RETRY_HOURS, *[24] * 7)  # then daily for a week, then it is left at that
CROSSING_SECONDS = 2  # until another worker has surely saved the photo that both worked on

_LOCK = text("""
    SELECT id, photo_fp, requested, transient_rounds, priority, photos, attributes, bundle_id, revision
    FROM listing WHERE id = :id AND lease_token = CAST(:token AS uuid)
    FOR NO KEY UPDATE
""")

# The current revision stays where the document is the same. What was asked for meanwhile outlives the claim.
_COMPLETE = text(f"""
    UPDATE listing SET
        photo_fp_done = :photo_fp,
        photo_fp = CASE WHEN :asked_again THEN photo_fp ELSE :photo_fp END,
        updated_at_done = :updated_at,
        revalidate = revalidate AND :asked_again,
        revalidated_at = CASE WHEN :revalidated THEN now() ELSE revalidated_at END,
        status = :status, priority = :priority,
        backfill = CASE WHEN :status = 'pending' THEN backfill END,
        transient_rounds = :rounds, error = :error,
        not_before = now() + :wait * interval '1 second',
        pending_since = CASE WHEN :status = 'pending' THEN now() END,
        lease_token = NULL, lease_worker = NULL, attempts = 0,
        photos = CAST(:photos AS jsonb), model_ids = CAST(:model_ids AS jsonb), bundle_id = :bundle_id,
        model_attributes = CAST(:model AS jsonb), attributes = CAST(:attributes AS jsonb),
        enriched_at = now(),
        revision = CASE WHEN :differs THEN {NEXT_REVISION} ELSE revision END
    WHERE id = :id
""")  # noqa: S608 (our own expression)

_LET_GO = text("DELETE FROM listing_photo WHERE listing_id = :id AND key = ANY(:keys)")

_HOLD = text("""
    INSERT INTO listing_photo (key, listing_id) SELECT key, :id FROM unnest(CAST(:keys AS text[])) AS key
    ORDER BY key
    ON CONFLICT DO NOTHING
""")


def lock(connection: Connection, claim: Claim) -> Row[Any] | None:
    """The listing's row, locked to the end of the transaction; None where the claim is stale."""
    given = {"id": claim.id, "token": claim.token}
    return connection.execute(_LOCK, given).one_or_none()


def save(connection: Connection, result: ListingResult, row: Row[Any], current: bool) -> None:
    """Write what was found of a locked listing, and what is next for it; its claim is over.

    `current`: no other worker saw other bytes of its photos.
    """
    model = json.loads(json.dumps(asdict(result.attributes), allow_nan=False))
    attributes = overrides.published(connection, row.id, model)
    found = [_photo(r) for r in result.results]
    models = sorted({model_id for r in result.results if r.score for model_id in r.score.by_model})
    given = {
        "id": row.id,
        "photo_fp": result.source.photo_fp,
        "updated_at": result.source.updated_at,
        "revalidated": result.claim.revalidate,
        "asked_again": row.requested != result.claim.requested,
        "photos": json.dumps(found),
        "model_ids": json.dumps(models),
        "bundle_id": result.bundle_id,
        "model": json.dumps(model),
        "attributes": json.dumps(attributes),
        "differs": (attributes, result.bundle_id) != (row.attributes, row.bundle_id) or row.revision is None,
    }
    connection.execute(_COMPLETE, given | _next(result, row, current))
    if given["differs"]:
        enqueue(connection, [row.id])
    _hold(connection, row.id, {p["key"] for p in row.photos}, {p["key"] for p in found})


def _next(result: ListingResult, row: Row[Any], current: bool) -> dict[str, Any]:
    """The columns that say whether and when the listing is worked on again; `wait` in seconds."""
    rounds, priority = row.transient_rounds, row.priority
    again = {"status": "pending", "priority": priority, "rounds": rounds, "wait": None, "error": None}
    if row.requested != result.claim.requested:
        return again
    if not current:
        return again | {"wait": CROSSING_SECONDS}
    done = again | {"status": "done", "rounds": 0, "priority": NIGHTLY}  # a backfill is over for it
    kinds = Counter(r.status.value for r in result.results if r.transient)
    if not kinds or rounds >= len(RETRY_HOURS):
        return done
    reasons = ", ".join(f"{kind} ({count})" for kind, count in kinds.most_common())
    return done | {
        "status": "retry",
        "rounds": rounds + 1,
        "wait": RETRY_HOURS[rounds] * 3600,
        "error": f"photos to be tried again: {reasons}",
    }


def _hold(connection: Connection, id: str, before: Set[str], after: Set[str]) -> None:
    if gone := before - after:
        connection.execute(_LET_GO, {"id": id, "keys": sorted(gone)})
    if new := after - before:
        connection.execute(_HOLD, {"id": id, "keys": sorted(new)})


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
