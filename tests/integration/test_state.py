"""State on a real Postgres: claims, leases, completion, retries."""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from threading import Barrier
from typing import Any

import pytest

from enrich.records import Photo, PhotoResult, PhotoStatus
from enrich.source.urls import url_key
from enrich.state.completion import RETRY_HOURS
from enrich.state.listings import Listings
from enrich.state.schema import BACKFILL
from tests.support.enriched import (
    BUNDLE,
    MODEL,
    add,
    ask_again,
    claim_one,
    enriched,
    expire,
    failed,
    ok,
    photo,
    result,
    sha,
)
from tests.support.postgres import Portal

WITHOUT_URL = Photo(0, "", url_key(""), "")


def hours_until(portal: Portal, id: str) -> float:
    sql = "SELECT extract(epoch FROM not_before - now()) / 3600 FROM enrichment.listing WHERE id = :id"
    return float(portal.execute(sql, id=id)[0][0])


class TestClaims:
    def test_two_claimers_never_share_a_listing(self, migrated: Portal, state: Listings) -> None:
        add(migrated, *(f"l{n:03}" for n in range(120)))
        start = Barrier(6)

        def work(_: int) -> list[str]:
            start.wait()
            mine: list[str] = []
            while claims := state.claim(5):
                mine += [claim.id for claim in claims]
            return mine

        with ThreadPoolExecutor(6) as pool:
            taken = [id for mine in pool.map(work, range(6)) for id in mine]
        assert sorted(taken) == [f"l{n:03}" for n in range(120)]

    def test_the_nightly_run_goes_before_a_backfill(self, migrated: Portal, state: Listings) -> None:
        add(migrated, "a", "b", priority=BACKFILL)
        add(migrated, "y", "z")
        assert [claim.id for claim in state.claim(3)] == ["y", "z", "a"]

    def test_what_failed_before_is_claimed_when_nothing_else_waits(
        self, migrated: Portal, state: Listings
    ) -> None:
        """Else a photo host that is gone for good ends every run before other listings have a turn."""
        add(migrated, "a", "p", "y")
        add(migrated, "b", priority=BACKFILL)
        enriched(state, "a", failed(photo("x"), PhotoStatus.DNS))
        state.forgive(["a"])
        (put_off,) = state.claim(1, ["p"])
        state.release([put_off], later=60)  # for a paused host
        migrated.execute("UPDATE enrichment.listing SET not_before = now() WHERE id = 'p'")
        taken = [state.claim(2) for _ in range(3)]
        assert [[claim.id for claim in claims] for claims in taken] == [["p", "y"], ["b"], ["a"]]
        state.release(taken[-1])  # as a run does that stops itself
        add(migrated, "z")
        assert [[claim.id for claim in state.claim(2)] for _ in range(2)] == [["z"], ["a"]]

    def test_only_the_ids_asked_for_are_claimed(self, migrated: Portal, state: Listings) -> None:
        add(migrated, "a", "b", "c")
        assert [claim.id for claim in state.claim(10, ["b", "nobody"])] == ["b"]
        assert state.waiting_count(["a", "b"]) == 2
        assert state.claim(10, []) == []

    def test_a_silent_worker_loses_its_listing(self, migrated: Portal, state: Listings) -> None:
        add(migrated, "a")
        first = claim_one(state)
        assert state.claim(1) == state.claim(1, alone=True) == []
        expire(migrated)
        second = claim_one(state)
        assert second.token != first.token
        assert state.heartbeat([first]) == [first]
        assert state.heartbeat([second]) == []

    def test_a_heartbeat_keeps_the_listing(self, migrated: Portal, state: Listings) -> None:
        add(migrated, "a")
        claim = claim_one(state)
        expire(migrated)
        assert state.heartbeat([claim]) == []
        assert state.claim(1) == state.claim(1, alone=True) == []

    def test_a_stale_token_changes_nothing(self, migrated: Portal, state: Listings) -> None:
        add(migrated, "a", "b")
        enriched(state, "b", ok(photo("x"), sha("old")))
        stale = claim_one(state)
        expire(migrated)
        claim_one(state)
        before = migrated.state("a"), migrated.state("b")
        assert not state.complete([result(stale, [ok(photo("x"), sha("new"))])])
        assert not state.fail(stale, "broken")
        state.release([stale])
        assert (migrated.state("a"), migrated.state("b")) == before
        assert state.photo_states([photo("x").key])[photo("x").key].sha256 == sha("old")
        assert state.scores([sha("new")], [MODEL]) == {}

    def test_a_listing_that_left_during_its_lease_is_not_completed(
        self, migrated: Portal, state: Listings
    ) -> None:
        add(migrated, "a")
        claim = claim_one(state)
        migrated.execute("UPDATE enrichment.listing SET status = 'gone', lease_token = NULL")
        assert not state.complete([result(claim)])
        assert migrated.state("a").attributes is None

    def test_a_listing_that_kills_its_workers_is_quarantined(self, migrated: Portal, state: Listings) -> None:
        add(migrated, "a", "b")
        for _ in range(3):
            claim_one(state)
            expire(migrated)
        assert [claim.id for claim in state.claim(1)] == ["b"]  # not an empty answer: b still waits
        row = migrated.state("a")
        assert (row.status, row.error) == ("quarantined", "the worker died 3 times while working on it")
        assert row.lease_token is None
        assert state.newly_quarantined == 1

    def test_a_listing_given_back_unworked_can_be_claimed_at_once_and_nothing_is_counted(
        self, migrated: Portal, state: Listings
    ) -> None:
        add(migrated, "a")
        for _ in range(5):
            state.release([claim_one(state)])
        assert (migrated.state("a").status, migrated.state("a").attempts) == ("pending", 0)
        state.release([claim_one(state)], forgive=False)
        assert migrated.state("a").attempts == 1

    def test_a_listing_given_back_for_later_waits(self, migrated: Portal, state: Listings) -> None:
        add(migrated, "a")
        state.release([claim_one(state)], later=3600)
        assert state.claim(1) == []
        assert not state.claimable()

    def test_a_listing_that_raises_is_quarantined_with_its_reason(
        self, migrated: Portal, state: Listings
    ) -> None:
        add(migrated, "a")
        assert state.fail(claim_one(state), "aggregate: bad\0news \udc80")
        assert (migrated.state("a").status, migrated.state("a").error) == (
            "quarantined",
            "aggregate: bad�news ?",
        )
        assert not state.claimable()

    def test_a_change_during_the_lease_outlives_the_failure(self, migrated: Portal, state: Listings) -> None:
        add(migrated, "a")
        claim = claim_one(state)
        migrated.execute("UPDATE enrichment.listing SET requested = requested + 1, photo_fp = 'fp-2'")
        assert not state.fail(claim, "broken")
        assert (migrated.state("a").status, migrated.state("a").attempts) == ("pending", 0)

    def test_what_waits_counts_what_other_workers_hold(self, migrated: Portal, state: Listings) -> None:
        add(migrated, "a", "b", "c")
        migrated.execute(
            "UPDATE enrichment.listing SET status = 'retry', not_before = now() + '1 h' WHERE id = 'c'"
        )
        claim_one(state)
        assert state.waiting_count() == 2


class TestCompletion:
    def test_what_was_found_is_kept(self, migrated: Portal, state: Listings) -> None:
        add(migrated, "a")
        shown, broken = photo("x", 0, "v1"), photo("y", 1)
        enriched(state, "a", ok(shown, sha("1")), failed(broken, PhotoStatus.GONE))
        row = migrated.state("a")
        assert row.status == "done"
        assert (row.photo_fp, row.photo_fp_done, row.attempts, row.lease_token) == ("fp-1", "fp-1", 0, None)
        assert (row.bundle_id, row.model_ids, row.pending_since) == (BUNDLE, [MODEL], None)
        assert row.revision is not None
        assert row.published_revision is None
        assert row.attributes == row.model_attributes
        assert row.attributes == {
            "fields": {"has_balcony": True, "balcony_confidence": 0.9312, "room_types": ["kitchen"]},
            "evidence": {
                "balcony": {"url": "https://photos.example/a.jpg", "position": 0, "confidence": 0.9312}
            },
            "counts": {"room_counts": {"kitchen": 1}},
            "photo_count": 2,
            "photos_seen": 1,
            "photos_failed": 1,
        }
        assert row.photos == [
            {
                "position": 0, "key": shown.key, "url": shown.shown_url, "version": "v1", "sha256": sha("1"),
                "status": "ok", "error": None,
            },
            {
                "position": 1, "key": broken.key, "url": broken.shown_url, "version": None, "sha256": None,
                "status": "gone", "error": "it was gone",
            },
        ]  # fmt: skip

    def test_the_same_findings_move_no_revision(self, migrated: Portal, state: Listings) -> None:
        add(migrated, "a")
        enriched(state, "a", ok(photo("x"), sha("1")), balcony_confidence=0.1 + 0.2)
        before = migrated.state("a").revision
        ask_again(migrated, "a")
        enriched(state, "a", ok(photo("x"), sha("1")), balcony_confidence=0.1 + 0.2)
        assert migrated.state("a").revision == before

    @pytest.mark.parametrize(
        "other", [{"balcony_confidence": 0.5}, {"bundle_id": "bundle-2"}, {"has_fireplace": None}]
    )
    def test_other_findings_or_another_bundle_move_the_revision(
        self, migrated: Portal, state: Listings, other: dict[str, Any]
    ) -> None:
        add(migrated, "a")
        enriched(state)
        before = migrated.state("a").revision
        ask_again(migrated, "a")
        enriched(state, **other)
        assert migrated.state("a").revision > before

    @pytest.mark.parametrize(
        ("photo_fp", "photos"), [("", []), ("fp-2", [failed(WITHOUT_URL, PhotoStatus.BAD_URL)])]
    )
    def test_a_listing_that_lost_all_its_photos_since_discovery_waits_for_the_next_one(
        self, migrated: Portal, state: Listings, photo_fp: str, photos: list[PhotoResult]
    ) -> None:
        add(migrated, "a")
        enriched(state)
        before = migrated.state("a")
        ask_again(migrated, "a")
        assert not state.complete([result(claim_one(state), photos, photo_fp=photo_fp)])
        row = migrated.state("a")
        assert (row.status, row.attempts, row.lease_token) == ("retry", 0, None)
        assert (row.attributes, row.revision) == (before.attributes, before.revision)
        migrated.execute("UPDATE enrichment.listing SET photo_fp = :fp, not_before = now()", fp=photo_fp)
        assert state.complete([result(claim_one(state), photos, photo_fp=photo_fp)]), "discovery believed it"

    def test_a_change_during_the_lease_stays_pending(self, migrated: Portal, state: Listings) -> None:
        add(migrated, "a")
        claim = claim_one(state)
        migrated.execute(
            "UPDATE enrichment.listing SET requested = requested + 1, photo_fp = 'fp-2', revalidate = true"
        )
        assert state.complete([result(claim)])
        row = migrated.state("a")
        assert (row.status, row.photo_fp, row.photo_fp_done, row.revalidate) == (
            "pending",
            "fp-2",
            "fp-1",
            True,
        )
        assert claim_one(state).requested == row.requested

    def test_what_was_read_newer_than_discovery_is_not_done_twice(
        self, migrated: Portal, state: Listings
    ) -> None:
        add(migrated, "a")
        enriched(state, photo_fp="fp-2")
        row = migrated.state("a")
        assert (row.status, row.photo_fp, row.photo_fp_done) == ("done", "fp-2", "fp-2")

    def test_a_revalidation_is_noted_and_over(self, migrated: Portal, state: Listings) -> None:
        add(migrated, "a", revalidate=True)
        claim = claim_one(state)
        assert claim.revalidate
        state.complete([result(claim)])
        assert migrated.state("a").revalidated_at is not None
        assert not migrated.state("a").revalidate

    def test_a_listing_with_passing_failures_is_tried_for_a_good_week_and_then_left(
        self, migrated: Portal, state: Listings
    ) -> None:
        add(migrated, "a")
        waits = []
        while True:
            enriched(state, "a", failed(photo("x"), PhotoStatus.TIMEOUT), failed(photo("y"), PhotoStatus.DNS))
            row = migrated.state("a")
            if row.status == "done":
                break
            assert (row.status, row.error) == ("retry", "photos to be tried again: timeout (1), dns (1)")
            assert state.claim(1) == []
            waits.append(round(hours_until(migrated, "a")))
            migrated.execute("UPDATE enrichment.listing SET not_before = now() - interval '1 second'")
        assert waits == [1, 6, 24, 24, 24, 24, 24, 24, 24, 24]
        assert len(waits) == len(RETRY_HOURS)
        assert (row.transient_rounds, row.error, row.not_before) == (0, None, None)

    def test_what_has_it_enriched_before_its_time_and_asks_for_no_photo_uses_up_no_try(
        self, migrated: Portal, state: Listings
    ) -> None:
        """As a backfill and `enrich rescore` do; what is due, or asks its photos, does use up one."""
        known = replace(failed(photo("x"), PhotoStatus.DNS), requested=False)
        add(migrated, "a")
        waits = []

        def enriched_again(found: PhotoResult) -> None:
            enriched(state, "a", found)
            waits.append((migrated.state("a").transient_rounds, round(hours_until(migrated, "a"))))

        enriched_again(failed(photo("x"), PhotoStatus.DNS))
        for found in (known, known, failed(photo("x"), PhotoStatus.DNS, failures=2)):
            ask_again(migrated, "a")
            migrated.execute("UPDATE enrichment.listing SET not_before = NULL, pending_since = now()")
            enriched_again(found)
        assert waits == [(1, 1), (1, 1), (1, 1), (2, 6)]
        migrated.execute(
            "UPDATE enrichment.listing SET enriched_at = enriched_at - interval '6 hours',"
            " not_before = not_before - interval '6 hours'"
        )
        enriched_again(known)  # it shares the photo with a listing that asked for it
        assert waits[-1] == (3, 24)

    def test_what_has_it_enriched_before_its_time_does_not_put_off_its_next_try(
        self, migrated: Portal, state: Listings
    ) -> None:
        """Else a photo would be asked for every second day where there is a backfill every day."""
        add(migrated, "a")
        enriched(state, "a", failed(photo("x"), PhotoStatus.DNS))
        minutes = []
        for _ in range(2):
            migrated.execute(
                "UPDATE enrichment.listing SET enriched_at = enriched_at - interval '20 minutes',"
                " not_before = NULL, pending_since = now();"
                "UPDATE enrichment.photo SET next_try = next_try - interval '20 minutes'"
            )
            ask_again(migrated, "a")
            enriched(state, "a", replace(failed(photo("x"), PhotoStatus.DNS), requested=False))
            minutes.append(round(60 * hours_until(migrated, "a")))
        assert minutes == [40, 20]
        assert migrated.state("a").transient_rounds == 1

    def test_it_comes_right_when_the_photo_does(self, migrated: Portal, state: Listings) -> None:
        add(migrated, "a")
        enriched(state, "a", failed(photo("x"), PhotoStatus.SERVER_ERROR))
        assert migrated.state("a").revision is not None  # published with what it has
        migrated.execute("UPDATE enrichment.listing SET not_before = now() - interval '1 second'")
        enriched(state, "a", ok(photo("x"), sha("1")))
        assert (migrated.state("a").status, migrated.state("a").transient_rounds) == ("done", 0)

    def test_a_number_that_is_none_is_not_saved(self, migrated: Portal, state: Listings) -> None:
        add(migrated, "a")
        with pytest.raises(ValueError, match="JSON"):
            state.complete([result(claim_one(state), balcony_confidence=float("nan"))])
        assert migrated.state("a").status == "leased"
