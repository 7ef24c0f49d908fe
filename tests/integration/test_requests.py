"""Retries and forgiven outages, on a real Postgres."""

import pytest

from enrich.records import PhotoStatus
from enrich.state.database import Database
from enrich.state.listings import Listings
from enrich.state.requests import Requests
from enrich.state.schema import NIGHTLY
from tests.support.enriched import add, enriched, failed, ok, photo, quarantined, sha, statuses
from tests.support.postgres import Portal


@pytest.fixture
def asking(database: Database) -> Requests:
    return Requests(database)


class TestForgive:
    def test_an_outage_is_not_held_against_listings(self, migrated: Portal, state: Listings) -> None:
        add(migrated, "a", "b")
        for id in "ab":
            enriched(
                state, id, failed(photo(id), PhotoStatus.TIMEOUT, failures=2), ok(photo("x", 1), sha("1"))
            )
        state.forgive(["a"])
        assert [claim.id for claim in state.claim(2)] == ["a"]
        assert migrated.state("a").transient_rounds == 0
        known = state.photo_states([photo(name).key for name in "abx"])
        of_a, of_b, good = (known[photo(name).key] for name in "abx")
        assert (of_a.failures, of_a.retry_due) == (1, True)
        assert (of_b.failures, of_b.retry_due) == (2, False)
        assert (good.failures, good.retry_due) == (0, False)

    def test_a_photo_that_was_not_found_is_asked_for_once_more_and_no_more(
        self, migrated: Portal, state: Listings
    ) -> None:
        """Else dead links would be new ones in every night, and end its run each time at the same place."""
        add(migrated, "a", "b")
        enriched(
            state, "a", failed(photo("x"), PhotoStatus.TIMEOUT), failed(photo("y", 1), PhotoStatus.NOT_FOUND)
        )
        enriched(state, "b", failed(photo("z"), PhotoStatus.REFUSED))
        waits = migrated.state("b")
        state.forgive(["a", "b"])
        known = state.photo_states([photo(name).key for name in "xyz"])
        assert [(known[photo(name).key].failures, known[photo(name).key].retry_due) for name in "xyz"] == [
            (0, True),
            (1, False),
            (1, False),
        ]
        assert [claim.id for claim in state.claim(2)] == ["a"]
        assert migrated.state("b") == waits

    def test_lasting_failures_are_not_forgiven(self, migrated: Portal, state: Listings) -> None:
        add(migrated, "a")
        enriched(state, "a", failed(photo("x"), PhotoStatus.DNS), failed(photo("y", 1), PhotoStatus.GONE))
        state.forgive(["a"])
        lasting = state.photo_states([photo("y").key])[photo("y").key]
        assert (lasting.failures, lasting.retry_due) == (1, False)

    def test_only_listings_in_retry_are_touched(self, migrated: Portal, state: Listings) -> None:
        add(migrated, "a", "b")
        enriched(state, "a", failed(photo("x"), PhotoStatus.DNS))
        migrated.execute("UPDATE enrichment.listing SET status = 'done' WHERE id = 'a'")
        quarantined(state, "b")
        state.forgive(["a", "b"])
        assert not state.photo_states([photo("x").key])[photo("x").key].retry_due
        assert statuses(migrated) == {"a": "done", "b": "quarantined"}
        assert state.claimable() == 0


class TestRetry:
    @pytest.fixture(autouse=True)
    def _listings(self, migrated: Portal, state: Listings) -> None:
        add(migrated, "done", "retry", "quarantined", "gone")
        enriched(state, "done", failed(photo("done"), PhotoStatus.GONE), ok(photo("good", 1), sha("1")))
        enriched(state, "retry", failed(photo("retry"), PhotoStatus.NOT_FOUND))
        quarantined(state, "quarantined")
        migrated.execute("UPDATE enrichment.listing SET status = 'gone' WHERE id = 'gone'")

    def test_what_waits_or_is_quarantined_is_tried_now(
        self, migrated: Portal, state: Listings, asking: Requests
    ) -> None:
        assert asking.retry() == 2
        assert statuses(migrated) == {
            "done": "done", "retry": "pending", "quarantined": "pending", "gone": "gone",
        }  # fmt: skip
        row = migrated.state("quarantined")
        assert (row.attempts, row.error, row.priority) == (0, None, NIGHTLY)
        known = state.photo_states([photo("retry").key, photo("done").key])
        assert known[photo("retry").key].retry_due
        assert known[photo("retry").key].failures == 0
        assert not known[photo("done").key].retry_due

    def test_named_listings_have_their_lasting_failures_asked_again(
        self, migrated: Portal, state: Listings, asking: Requests
    ) -> None:
        assert asking.retry(["done", "gone", "nobody"]) == 1
        assert statuses(migrated)["done"] == "pending"
        known = state.photo_states([photo("done").key, photo("good").key])
        assert known[photo("done").key].retry_due
        assert not known[photo("good").key].retry_due
        assert statuses(migrated)["retry"] == "retry"
