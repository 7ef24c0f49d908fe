"""What a cluster reads and writes of state, ahead of any claim."""

from typing import Any

import pytest

from enrich.records import PhotoStatus
from enrich.state.ahead import Ahead
from enrich.state.database import Database
from enrich.state.listings import Listings
from tests.support.enriched import MODEL, add, claim_one, enriched, failed, ok, photo, sha, state, statuses
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
    assert ahead.waiting(None, 10) == (["a"] if waits else [])


def test_waiting_listings_come_in_pages(migrated: Portal, ahead: Ahead) -> None:
    add(migrated, "c", "a", "b", "d")
    assert ahead.waiting(None, 3) == ["a", "b", "c"]
    assert ahead.waiting("c", 3) == ["d"] and ahead.waiting("d", 3) == []
    assert ahead.waiting("a", 3, ["d", "a", "b", "x"]) == ["b", "d"]


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
    once, often, gone = photo("once"), photo("often"), photo("gone")
    ahead.save([failed(once, PhotoStatus.TIMEOUT), failed(often, PhotoStatus.TIMEOUT, failures=3)])
    ahead.save([failed(gone, PhotoStatus.GONE)])
    ahead.forgive([once.key, often.key, gone.key])
    known = state.photo_states([once.key, often.key, gone.key])
    assert {key: (each.failures, each.retry_due) for key, each in known.items()} == {
        once.key: (0, True),
        often.key: (2, True),
        gone.key: (1, False),
    }
