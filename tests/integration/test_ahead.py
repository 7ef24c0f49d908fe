"""What a cluster reads and writes of state, ahead of any claim."""

from types import SimpleNamespace
from typing import Any, cast

import pytest

from enrich.records import ListingPhotos, PhotoStatus
from enrich.state.ahead import Ahead
from enrich.state.database import Database
from enrich.state.listings import Listings
from jobs.run.cluster.unscored import unscored
from jobs.run.services import Services
from tests.support.enriched import (
    MODEL,
    add,
    ask_again,
    claim_one,
    enriched,
    failed,
    ok,
    photo,
    sha,
    state,
    statuses,
)
from tests.support.postgres import Portal

__all__ = ["state"]  # a fixture


@pytest.fixture
def ahead(database: Database) -> Ahead:
    return Ahead(database)


@pytest.mark.parametrize(
    ("columns", "waits"),
    [
        ({}, True),
        ({"status": "retry", "not_before": "2000-01-01"}, True),
        ({"status": "retry", "not_before": "2100-01-01"}, False),
        ({"status": "leased"}, False),
        ({"status": "done"}, False),
        ({"status": "quarantined"}, False),
        ({"attempts": 1}, False),  # it killed a worker: not in one call with others
        ({"revalidate": True}, False),
    ],
)
def test_which_listings_wait(migrated: Portal, ahead: Ahead, columns: dict[str, Any], waits: bool) -> None:
    add(migrated, "a", **columns)
    assert list(ahead.waiting(None, 10)) == (["a"] if waits else [])


def test_waiting_listings_come_in_pages(migrated: Portal, ahead: Ahead) -> None:
    add(migrated, "c", "a", "b", "d")
    assert list(ahead.waiting(None, 3)) == ["a", "b", "c"]
    assert list(ahead.waiting("c", 3)) == ["d"] and not ahead.waiting("d", 3)
    assert list(ahead.waiting("a", 3, ["d", "a", "b", "x"])) == ["b", "d"]


def test_what_is_saved_ahead_is_known_to_the_queue(ahead: Ahead, state: Listings) -> None:
    good, bad = photo("good"), photo("bad")
    ahead.save([ok(good, sha("1")), failed(bad, PhotoStatus.TIMEOUT)])
    known = state.photo_states([good.key, bad.key])
    assert {key: each.status for key, each in known.items()} == {
        good.key: PhotoStatus.OK,
        bad.key: PhotoStatus.TIMEOUT,
    }
    assert state.scores([sha("1")], [MODEL])[sha("1")].dhash == -5
    assert ahead.scores([sha("1")], [MODEL]) == state.scores([sha("1")], [MODEL])


def test_listings_that_hold_other_bytes_of_a_photo_are_asked_for_again(
    migrated: Portal, ahead: Ahead, state: Listings
) -> None:
    add(migrated, "a", "b")
    shared = photo("shared")
    enriched(state, "a", ok(shared, sha("old")))
    enriched(state, "b", ok(photo("other"), sha("other")))
    ahead.save([ok(shared, sha("new"))])
    assert statuses(migrated) == {"a": "pending", "b": "done"}
    assert claim_one(state, "a")


def test_failures_in_an_outage_are_not_held_against_photos(
    migrated: Portal, ahead: Ahead, state: Listings
) -> None:
    once, often, gone, lost = photo("once"), photo("often"), photo("gone"), photo("lost")
    ahead.save([failed(once, PhotoStatus.TIMEOUT), failed(often, PhotoStatus.TIMEOUT, failures=3)])
    ahead.save([failed(gone, PhotoStatus.GONE), failed(lost, PhotoStatus.NOT_FOUND)])
    ahead.forgive([once.key, often.key, gone.key, lost.key])
    known = state.photo_states([once.key, often.key, gone.key, lost.key])
    assert {key: (each.failures, each.retry_due) for key, each in known.items()} == {
        once.key: (0, True),
        often.key: (2, True),
        gone.key: (1, False),
        lost.key: (1, False),
    }


@pytest.mark.parametrize(("fingerprint", "asked"), [("fp-1", False), ("fp-2", True)])
def test_another_listing_s_version_of_a_photo_is_no_reason_to_ask(
    migrated: Portal, database: Database, state: Listings, fingerprint: str, asked: bool
) -> None:
    """Unless the photos are not those that the listing was completed with."""
    mine, theirs = (photo("shared", version=version) for version in ("mine", "theirs"))
    add(migrated, "a", "b")
    enriched(state, "a", ok(mine, sha("1")))
    enriched(state, "b", ok(theirs, sha("1")))
    ask_again(migrated, "a")
    services = SimpleNamespace(
        database=database,
        queue=state,
        bundle=SimpleNamespace(members=[SimpleNamespace(model_id=MODEL)]),
        source=SimpleNamespace(photos=lambda ids: [ListingPhotos("a", fingerprint, None, (mine,))]),
    )
    ((page, asks),) = unscored(cast(Services, services), None)
    assert page.listings == 1 and [ask.photo for ask in asks] == ([mine] if asked else [])
