"""Listings, photos and results for tests of state: made by hand, without source, photos or model."""

from collections.abc import Sequence
from threading import Thread
from time import sleep
from typing import Any

from enrich.records import (
    Attributes,
    Claim,
    Evidence,
    ListingPhotos,
    ListingResult,
    Photo,
    PhotoResult,
    PhotoScore,
    PhotoStatus,
    Validators,
)
from enrich.source.urls import url_key
from enrich.state.listings import State
from tests.support.postgres import Portal

MODEL = "m" * 64
BUNDLE = "bundle-1"


def sha(name: str) -> str:
    """A sha256-like text."""
    return name.ljust(64, "0")


def add(portal: Portal, *ids: str, **columns: Any) -> None:
    """Listings as discovery leaves new ones: pending."""
    values = {"photo_fp": "fp-1", "doc_fp": "doc-1", **columns}
    names, marks = ", ".join(values), ", ".join(f":{name}" for name in values)
    for id in ids:
        portal.execute(
            f"INSERT INTO enrichment.listing (id, pending_since, {names}) VALUES (:id, now(), {marks})",
            id=id,
            **values,
        )


def asked_again(portal: Portal) -> None:
    """All listings that are done become pending, as when a backfill asks for them."""
    portal.execute(
        "UPDATE enrichment.listing SET status = 'pending', requested = requested + 1, pending_since = now()"
        " WHERE status = 'done'"
    )


def photo(name: str, position: int = 0, version: str | None = None) -> Photo:
    url = f"https://photos.example/{name}.jpg"
    return Photo(position, f"{url}?sig=1", url_key(url), url, version)


def ok(shown: Photo, sha256: str, **other: Any) -> PhotoResult:
    """A photo that was requested and scored."""
    score = PhotoScore(sha256, -5, {MODEL: {"balcony": (1.25,), "room": (0.5, -2.0)}})
    validators = Validators(f'"{sha256[:4]}"', "Mon, 01 Jan 2024 00:00:00 GMT")
    given = {"status": PhotoStatus.OK, "validators": validators, "requested": True, **other}
    return PhotoResult(shown, sha256=sha256, score=score, **given)


def failed(shown: Photo, status: PhotoStatus, failures: int = 1) -> PhotoResult:
    return PhotoResult(shown, status, error=f"it was {status}", requested=True, failures=failures)


def result(
    claim: Claim,
    results: Sequence[PhotoResult] = (),
    *,
    photo_fp: str = "fp-1",
    bundle_id: str = BUNDLE,
    **fields: Any,
) -> ListingResult:
    """What the pipeline makes of a listing: it has a balcony unless `fields` say otherwise."""
    found = {"has_balcony": True, "balcony_confidence": 0.9312, "room_types": ["kitchen"], **fields}
    seen = sum(r.status.ok for r in results)
    attributes = Attributes(
        found,
        {"balcony": Evidence("https://photos.example/a.jpg", 0, 0.9312)},
        {"room_counts": {"kitchen": 1}},
        len(results),
        seen,
        len(results) - seen,
    )
    source = ListingPhotos(claim.id, photo_fp, None, tuple(r.photo for r in results))
    return ListingResult(claim, source, tuple(results), attributes, bundle_id)


def wait_for_lock(portal: Portal, thread: Thread) -> None:
    """Until some transaction waits for a lock, or the thread is done without waiting."""
    sql = (
        "SELECT count(*) FROM pg_stat_activity "
        "WHERE datname = current_database() AND wait_event_type = 'Lock'"
    )
    while thread.is_alive() and portal.execute(sql)[0][0] == 0:
        sleep(0.02)


def claim_one(state: State, id: str = "a") -> Claim:
    (claim,) = state.claim(1, [id])
    return claim


def enriched(state: State, id: str = "a", *results: PhotoResult, **fields: Any) -> None:
    """Claim and complete a listing."""
    assert state.complete(result(claim_one(state, id), results, **fields))
