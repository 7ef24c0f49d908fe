"""Listings, photos and results for tests of state: made by hand, without source, photos or model."""

from collections.abc import Sequence
from threading import Thread
from time import sleep
from typing import Any

import pytest
from sqlalchemy import Connection

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
from enrich.state import photos
from enrich.state.database import Database
from enrich.state.listings import Listings
from tests.support.postgres import Portal

MODEL = "m" * 64
BUNDLE = "bundle-1"


@pytest.fixture
def state(database: Database) -> Listings:
    """The queue, as one worker has it."""
    return Listings(database, lease_seconds=60, max_attempts=3)


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


def claim_one(state: Listings, id: str = "a") -> Claim:
    """A claim of this listing, wherever its last worker died."""
    (claim,) = state.claim(1, [id]) or state.claim(1, [id], alone=True)
    return claim


def quarantined(state: Listings, id: str) -> None:
    """Claim a listing and find that it cannot be worked on."""
    (claim,) = state.claim(1, [id])
    assert state.fail(claim, "broken")


def statuses(portal: Portal) -> dict[str, str]:
    """Id -> status of every listing."""
    return {row.id: row.status for row in portal.execute("SELECT id, status FROM enrichment.listing")}


def expire(portal: Portal) -> None:
    """All workers were silent for too long."""
    portal.execute("UPDATE enrichment.worker SET expires = now() - interval '1 second'")


def ask_again(portal: Portal, *ids: str) -> None:
    """Something asks for these listings again."""
    portal.execute(
        "UPDATE enrichment.listing SET requested = requested + 1, status = 'pending' WHERE id = ANY(:ids)",
        ids=list(ids),
    )


def save_photos(database: Database, results: Sequence[PhotoResult], except_listing: str = "") -> None:
    """Record photos as a completion of the listing `except_listing` does."""

    def work(connection: Connection) -> None:
        saved = photos.save(connection, [results])
        photos.ask_holders_again(connection, saved.changed, [except_listing])

    database.run(work)


def enriched(state: Listings, id: str = "a", *results: PhotoResult, **fields: Any) -> None:
    """Claim and complete a listing."""
    assert state.complete([result(claim_one(state, id), results, **fields)])
