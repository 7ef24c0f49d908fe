"""What completed listings leave in state: functions on an open transaction, called by `state.listings`.

A group of listings is saved by as many statements as one.
"""

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import Connection, Row, text

from enrich.records import Claim, ListingPhotos, ListingResult, PhotoResult
from enrich.state import flips, history, overrides, photos
from enrich.state.outbox import enqueue
from enrich.state.schema import NEXT_REVISION, NIGHTLY
from enrich.state.settle import NEXT_TRY, clean
from enrich.state.settle import RETRY_HOURS as PHOTO_RETRY_HOURS

RETRY_HOURS = (*PHOTO_RETRY_HOURS, *[24] * 7)  # then daily for a week, then it is left at that
CROSSING_SECONDS = 2  # until another worker has surely saved the photo that both worked on

_LOCK = text(f"""
    SELECT l.id, l.lease_token::text AS token, l.photo_fp, l.requested, l.transient_rounds, l.priority,
           l.pending_since, l.enriched_at, l.photos, l.attributes, l.bundle_id, l.revision, l.backfill,
           CASE WHEN l.transient_rounds > 0 THEN {NEXT_TRY} END AS next_try, now() AS now
    FROM unnest(CAST(:ids AS text[]), CAST(:tokens AS uuid[])) AS c(id, token)
    JOIN listing AS l ON l.id = c.id AND l.lease_token = c.token
    ORDER BY l.id FOR NO KEY UPDATE OF l
""")  # noqa: S608 (our own expression)

# The current revision stays where the document is the same. What was asked for meanwhile outlives the claim.
# That the listing changed is explained by photos asked for since (all at first, or revalidated), and by other
# photos; a change that discovery has not seen yet, or that waits to be looked into, stays to be explained.
_COMPLETE = text(f"""
    UPDATE listing SET
        photo_fp_done = r.photo_fp,
        photo_fp = CASE WHEN r.asked_again THEN listing.photo_fp ELSE r.photo_fp END,
        updated_at = greatest(listing.updated_at, r.updated_at),
        updated_at_done = CASE
            WHEN r.revalidated OR listing.enriched_at IS NULL THEN r.updated_at
            WHEN listing.updated_at_done IS NULL OR listing.photo_fp_done = r.photo_fp
                THEN listing.updated_at_done
            WHEN listing.photo_fp = r.photo_fp THEN listing.updated_at
            ELSE r.updated_at END,
        revalidate = listing.revalidate AND r.asked_again,
        revalidated_at = CASE WHEN r.revalidated THEN now() ELSE listing.revalidated_at END,
        status = r.status, priority = r.priority,
        backfill = CASE WHEN r.status = 'pending' THEN listing.backfill END,
        transient_rounds = r.rounds, error = r.error,
        not_before = now() + r.wait * interval '1 second',
        pending_since = CASE WHEN r.status = 'pending' THEN now() END,
        lease_token = NULL, lease_worker = NULL, attempts = 0,
        photos = r.photos, model_ids = r.model_ids, bundle_id = r.bundle_id,
        model_attributes = r.model, attributes = r.attributes,
        enriched_at = now(),
        revision = CASE WHEN r.differs THEN {NEXT_REVISION} ELSE listing.revision END
    FROM jsonb_to_recordset(CAST(:rows AS jsonb)) AS r(id text, photo_fp text, updated_at timestamptz,
        revalidated boolean, asked_again boolean, photos jsonb, model_ids jsonb, bundle_id text, model jsonb,
        attributes jsonb, differs boolean, status text, priority smallint, rounds integer,
        wait double precision, error text)
    WHERE listing.id = r.id
""")  # noqa: S608 (our own expression)

_LET_GO = text("""
    DELETE FROM listing_photo AS held
    USING unnest(CAST(:ids AS text[]), CAST(:keys AS text[])) AS gone(id, key)
    WHERE held.listing_id = gone.id AND held.key = gone.key
""")

_HOLD = text("""
    INSERT INTO listing_photo (key, listing_id)
    SELECT key, id FROM unnest(CAST(:ids AS text[]), CAST(:keys AS text[])) AS new(id, key)
    ORDER BY key, id
    ON CONFLICT DO NOTHING
""")


class NotSavedError(Exception):
    """Some of these listings cannot be completed: rolls all of them back."""

    def __init__(self, stale: Sequence[Claim], emptied: Sequence[Claim]) -> None:
        super().__init__("not ours any more, or without photos that discovery saw")
        self.stale, self.emptied = stale, emptied


def named(claims: Sequence[Claim]) -> dict[str, list[str]]:
    """Claims as statements take them."""
    return {"ids": [claim.id for claim in claims], "tokens": [claim.token for claim in claims]}


def complete(connection: Connection, results: Sequence[ListingResult]) -> None:
    """Write what was found of claimed listings and their photos, and what is next; their claims are over.

    Raises:
        NotSavedError: claims are `stale`, or discovery saw photos of listings that have none now, or none
            with a URL (`emptied`).
        FlipsExceededError: more filters would change than a backfill may change.
        ValueError: a number is none.
    """
    photos.save_scores(connection, [p.score for r in results for p in r.results if p.score])
    settled = photos.save(connection, [r.results for r in results])
    photos.ask_holders_again(connection, settled.changed, [r.claim.id for r in results])
    given = named([r.claim for r in results])
    rows = {(row.id, row.token): row for row in connection.execute(_LOCK, given)}
    found = [(result, rows.get((result.claim.id, result.claim.token))) for result in results]
    ours = [(result, row) for result, row in found if row is not None]
    emptied = [result.claim for result, row in ours if _emptied(result.source, row.photo_fp)]
    if emptied or len(ours) < len(results):
        raise NotSavedError([result.claim for result, row in found if row is None], emptied)
    _save(connection, ours, settled.current)


def _emptied(source: ListingPhotos, discovered: str) -> bool:
    lost = not source.photo_fp or {photo.shown_url for photo in source.photos} == {""}
    return lost and discovered not in ("", source.photo_fp)


def _save(
    connection: Connection, listings: Sequence[tuple[ListingResult, Row[Any]]], current: Sequence[bool]
) -> None:
    # As they are read back, so that what is published compares with what was.
    models = {
        row.id: json.loads(json.dumps(asdict(result.attributes), allow_nan=False)) for result, row in listings
    }
    published = overrides.published(connection, models)
    given = [
        _columns(result, row, models[row.id], published[row.id]) | _next(result, row, still)
        for (result, row), still in zip(listings, current, strict=True)
    ]
    rolled_out = [
        (row.backfill, row.attributes, published[row.id])
        for result, row in listings
        if row.backfill is not None and row.attributes and row.bundle_id != result.bundle_id
    ]
    flips.count(connection, rolled_out)
    history.record(
        connection,
        (
            history.Saved(row.id, row.attributes, published[row.id], row.bundle_id, result.bundle_id)
            for result, row in listings
        ),
    )
    connection.execute(_COMPLETE, {"rows": json.dumps(given, allow_nan=False)})
    enqueue(connection, [columns["id"] for columns in given if columns["differs"]])
    before = {(row.id, photo["key"]) for _, row in listings for photo in row.photos}
    after = {(columns["id"], photo["key"]) for columns in given for photo in columns["photos"]}
    for statement, pairs in ((_LET_GO, before - after), (_HOLD, after - before)):
        if pairs:
            ids, keys = zip(*sorted(pairs), strict=True)
            connection.execute(statement, {"ids": list(ids), "keys": list(keys)})


def _columns(
    result: ListingResult, row: Row[Any], model: Mapping[str, Any], attributes: Mapping[str, Any]
) -> dict[str, Any]:
    updated_at = result.source.updated_at
    return {
        "id": row.id,
        "photo_fp": result.source.photo_fp,
        "updated_at": updated_at and updated_at.isoformat(),
        "revalidated": result.claim.revalidate,
        "asked_again": row.requested != result.claim.requested,
        "photos": [_photo(r) for r in result.results],
        "model_ids": sorted({model_id for r in result.results if r.score for model_id in r.score.by_model}),
        "bundle_id": result.bundle_id,
        "model": model,
        "attributes": attributes,
        "differs": (attributes, result.bundle_id) != (row.attributes, row.bundle_id) or row.revision is None,
    }


def _next(result: ListingResult, row: Row[Any], current: bool) -> dict[str, Any]:
    """The columns that say whether and when the listing is worked on again; `wait` in seconds."""
    rounds, priority = row.transient_rounds, row.priority
    again = {"status": "pending", "priority": priority, "rounds": rounds, "wait": None, "error": None}
    if row.requested != result.claim.requested:
        return again
    if not current:
        return again | {"wait": CROSSING_SECONDS}
    done = again | {"status": "done", "rounds": 0, "priority": NIGHTLY}  # a backfill is over for it
    failing = [r for r in result.results if r.transient]
    kinds = Counter(r.status.value for r in failing)
    wait = None
    # Something asked for it before its time, and its photos were not asked for: this try is still to come, at
    # its time.
    if rounds and not any(r.requested for r in failing) and row.pending_since < (due := _due(row)):
        rounds -= 1
        wait = max((due - row.now).total_seconds(), 0)
    if not kinds or rounds >= len(RETRY_HOURS):
        return done
    reasons = ", ".join(f"{kind} ({count})" for kind, count in kinds.most_common())
    return done | {
        "status": "retry",
        "rounds": rounds + 1,
        "wait": RETRY_HOURS[rounds] * 3600 if wait is None else wait,
        "error": f"photos to be tried again: {reasons}",
    }


def _due(row: Row[Any]) -> datetime:
    """When the next try of a listing's photos was due: since the last one, which may have asked for none."""
    due: datetime = row.enriched_at + timedelta(hours=RETRY_HOURS[row.transient_rounds - 1])
    return min(due, row.next_try or due)


def _photo(result: PhotoResult) -> dict[str, Any]:
    photo = result.photo
    return {
        "position": photo.position,
        "key": photo.key,
        "url": photo.shown_url,
        "version": photo.version,
        "sha256": result.sha256 if result.status.ok else None,
        "status": result.status.value,
        "error": clean(result.error),
    }
