"""What state knows of photos and of their scores: functions on an open transaction.

Locks are taken in one order everywhere: rows of `photo_score`, of `photo_embedding`, then of `photo`, by key,
then of `listing`, by id. Workers that share photos then wait for each other instead of standing in each
other's way. Rows of `listing_photo` come last and are written only by whoever holds their listing's row, so
nobody waits for them.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from sqlalchemy import Connection, text

from enrich.records import PhotoResult, PhotoScore, PhotoState, PhotoStatus, Validators
from enrich.state import embeddings
from enrich.state.schema import NIGHTLY
from enrich.state.settle import Settled, by_key, settle

_encoded = json.JSONEncoder(allow_nan=False, separators=(",", ":")).encode

_STATES = text("""
    SELECT key, status, sha256, version, etag, last_modified, failures,
           coalesce(next_try <= now(), false) AS retry_due, error, checked_at
    FROM photo WHERE key = ANY(:keys)
""")

_SOME_HOLDERS = text("""
    SELECT h.listing_id FROM listing_photo AS h JOIN listing AS l ON l.id = h.listing_id
    WHERE h.key = :key AND l.status <> 'gone' ORDER BY h.listing_id LIMIT :most
""")

_SCORES = text("""
    SELECT sha256, model_id, dhash, scores
    FROM photo_score WHERE sha256 = ANY(:shas) AND model_id = ANY(:models)
""")

_SAVE_SCORES = text("""
    INSERT INTO photo_score (sha256, model_id, dhash, scores)
    SELECT sha256, model_id, dhash, CAST(scores AS jsonb)
    FROM unnest(CAST(:shas AS text[]), CAST(:models AS text[]), CAST(:hashes AS bigint[]),
                CAST(:scores AS text[])) AS r(sha256, model_id, dhash, scores)
    ORDER BY sha256, model_id
    ON CONFLICT DO NOTHING
""")

_ADD = text("""
    INSERT INTO photo
        (key, status, sha256, version, etag, last_modified, failures, next_try, error, checked_at)
    SELECT key, status, sha256, version, etag, last_modified, failures,
           now() + retry_hours * interval '1 hour', error, now()
    FROM jsonb_to_recordset(CAST(:rows AS jsonb)) AS r(key text, status text, sha256 text, version text,
        etag text, last_modified text, failures integer, retry_hours integer, error text)
    ORDER BY key
    ON CONFLICT (key) DO NOTHING
    RETURNING key
""")

_LOCK = text("""
    SELECT key, status, sha256 FROM photo WHERE key = ANY(:keys) ORDER BY key FOR NO KEY UPDATE
""")

_LOCK_TO_READ = text("""
    SELECT key, status, sha256 FROM photo WHERE key = ANY(:keys) ORDER BY key FOR SHARE
""")

_UPDATE = text("""
    UPDATE photo AS p SET
        status = r.status,
        version = r.version,
        failures = r.failures,
        next_try = now() + r.retry_hours * interval '1 hour',
        error = r.error,
        checked_at = now(),
        -- A failure that may pass keeps the bytes last seen, and the validators that belong to them.
        sha256 = CASE WHEN r.seen THEN r.sha256 ELSE p.sha256 END,
        etag = CASE WHEN r.seen THEN r.etag ELSE p.etag END,
        last_modified = CASE WHEN r.seen THEN r.last_modified ELSE p.last_modified END
    FROM jsonb_to_recordset(CAST(:rows AS jsonb)) AS r(key text, status text, sha256 text, version text,
        etag text, last_modified text, failures integer, retry_hours integer, error text, seen boolean)
    WHERE p.key = r.key
""")

_HOLDERS = text("""
    SELECT DISTINCT l.id
    FROM jsonb_to_recordset(CAST(:changed AS jsonb)) AS c(key text, sha256 text)
    JOIN listing_photo AS held ON held.key = c.key
    JOIN listing AS l
      ON l.id = held.listing_id
     AND NOT l.photos @> jsonb_build_array(jsonb_build_object('key', c.key, 'sha256', c.sha256))
    WHERE l.id <> ALL(:besides)
""")

_LOCK_LISTINGS = text("""
    SELECT id FROM listing WHERE id = ANY(:ids) ORDER BY id FOR NO KEY UPDATE
""")

# A gone listing is made to look unfinished, so that it is enriched anew if it ever comes back.
_ASK_AGAIN = text("""
    UPDATE listing SET
        requested = requested + 1,
        photo_fp_done = CASE WHEN status = 'gone' THEN NULL ELSE photo_fp_done END,
        pending_since = CASE WHEN status = 'gone' THEN NULL ELSE coalesce(pending_since, now()) END,
        status = CASE WHEN status IN ('leased', 'gone') THEN status ELSE 'pending' END,
        attempts = CASE WHEN status = 'leased' THEN attempts ELSE 0 END,
        priority = :nightly, not_before = NULL, error = NULL
    WHERE id = ANY(:ids)
""")


def states(connection: Connection, keys: Sequence[str]) -> dict[str, PhotoState]:
    """What is known of these URL keys; unknown ones are absent."""
    rows = connection.execute(_STATES, {"keys": list(keys)}).all()
    return {
        key: PhotoState(key, PhotoStatus(status), sha, version, Validators(etag, modified), *rest)
        for key, status, sha, version, etag, modified, *rest in rows
    }


def holders(connection: Connection, key: str, most: int) -> list[str]:
    """At most so many of the listings on the market that hold the photo of this URL key, as of their last
    completion."""
    return list(connection.scalars(_SOME_HOLDERS, {"key": key, "most": most}))


def scores(connection: Connection, shas: Sequence[str], model_ids: Sequence[str]) -> dict[str, PhotoScore]:
    """Scores on record for these bytes; `by_model` holds only the models found, unknown bytes are absent."""
    hashes: dict[str, int] = {}
    found: dict[str, dict[str, Any]] = {}
    for row in connection.execute(_SCORES, {"shas": list(shas), "models": list(model_ids)}):
        hashes[row.sha256] = row.dhash
        found.setdefault(row.sha256, {})[row.model_id] = {
            head: tuple(logits) for head, logits in row.scores.items()
        }
    return {sha: PhotoScore(sha, hashes[sha], by_model, on_record=True) for sha, by_model in found.items()}


def save_scores(connection: Connection, given: Iterable[PhotoScore]) -> None:
    """Record scores, with the features that are to be kept; what is on record already stays.

    Raises:
        ValueError: a score is not a finite number.
    """
    scored = [score for score in given if not score.on_record]
    rows = [
        (score.sha256, model, score.dhash, _encoded(heads))
        for score in {score.sha256: score for score in scored}.values()
        for model, heads in score.by_model.items()
    ]
    if rows:
        columns = zip(("shas", "models", "hashes", "scores"), zip(*rows, strict=True), strict=True)
        connection.execute(_SAVE_SCORES, {name: list(values) for name, values in columns})
    embeddings.save(connection, scored)


def save(connection: Connection, listings: Sequence[Iterable[PhotoResult]]) -> Settled:
    """Record how the requested photos of some listings ended, and compare the others with what is on record.

    It comes out as if they were saved one after the other. The rows of all of them stay locked until the
    transaction ends, so that whoever changes one afterwards finds these listings among its holders.
    """
    results = [by_key(found) for found in listings]
    rows = settle(results, {}).rows
    added: set[str] = set()
    if rows:
        added.update(connection.execute(_ADD, {"rows": json.dumps(list(rows.values()))}).scalars())
    known = sorted({key for found in results for key in found} - added)
    lock = _LOCK if rows.keys() - added else _LOCK_TO_READ
    before = connection.execute(lock, {"keys": known}).all() if known else ()
    settled = settle(results, {row.key: (row.status, row.sha256) for row in before})
    if updates := [row for key, row in settled.rows.items() if key not in added]:
        connection.execute(_UPDATE, {"rows": json.dumps(updates)})
    return settled


def record(connection: Connection, results: Sequence[PhotoResult], besides: Sequence[str] = ()) -> None:
    """Record how requested photos ended, with their scores, before a listing is completed with them.

    Listings that hold other bytes of such a photo are asked for again, but for `besides`.

    Raises:
        ValueError: a score is not a finite number.
    """
    save_scores(connection, [result.score for result in results if result.score])
    saved = save(connection, [results])
    ask_holders_again(connection, saved.changed, besides)


def ask_holders_again(connection: Connection, changed: Mapping[str, str], besides: Sequence[str]) -> None:
    """Make every other listing that holds another version of a changed photo pending.

    Locks those listings and `besides`, by id.
    """
    if not changed:
        return
    pairs = [{"key": key, "sha256": sha} for key, sha in changed.items()]
    given = {"changed": json.dumps(pairs), "besides": list(besides)}
    holders = connection.execute(_HOLDERS, given).scalars().all()
    connection.execute(_LOCK_LISTINGS, {"ids": [*holders, *besides]})
    if holders:
        connection.execute(_ASK_AGAIN, {"ids": list(holders), "nightly": NIGHTLY})
