"""Photos and scores in state, and photos that several listings hold, on a real Postgres."""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from threading import Thread

import pytest

from enrich.records import PhotoResult, PhotoScore, PhotoStatus, Validators
from enrich.state import photos
from enrich.state.database import Database
from enrich.state.listings import Listings
from enrich.state.requests import Requests
from tests.support.enriched import (
    add,
    ask_again,
    claim_one,
    enriched,
    failed,
    ok,
    photo,
    result,
    save_photos,
    sha,
    wait_for_lock,
)
from tests.support.postgres import Portal


def save_scores(database: Database, *scores: PhotoScore) -> None:
    database.run(lambda connection: photos.save_scores(connection, scores))


class TestPhotos:
    def test_a_good_photo_is_known_again(self, database: Database, state: Listings, migrated: Portal) -> None:
        shown = photo("x", version="v1")
        save_photos(database, [ok(shown, sha("1"))], except_listing="a")
        known = state.photo_states([shown.key, "unknown"])
        assert list(known) == [shown.key]
        found = known[shown.key]
        assert (found.status, found.sha256, found.version) == (PhotoStatus.OK, sha("1"), "v1")
        assert found.validators == Validators('"1000"', "Mon, 01 Jan 2024 00:00:00 GMT")
        assert (found.failures, found.retry_due) == (0, False)

    @pytest.mark.parametrize(
        ("status", "kept", "etag"),
        [(PhotoStatus.TIMEOUT, sha("1"), '"1000"'), (PhotoStatus.UNDECODABLE, None, None)],
    )
    def test_a_failure_keeps_the_bytes_last_seen_and_their_validators_while_it_may_pass(
        self, database: Database, state: Listings, status: PhotoStatus, kept: str | None, etag: str | None
    ) -> None:
        shown = photo("x")
        save_photos(database, [ok(shown, sha("1"))], except_listing="a")
        other = replace(failed(shown, status), sha256=sha("2"), validators=Validators('"other"'))
        save_photos(database, [other], except_listing="a")
        found = state.photo_states([shown.key])[shown.key]
        assert (found.status, found.sha256, found.validators.etag) == (status, kept, etag)
        assert found.error == f"it was {status}"

    @pytest.mark.parametrize(
        ("status", "failures", "hours"),
        [
            (PhotoStatus.TIMEOUT, 1, 1),
            (PhotoStatus.TIMEOUT, 2, 6),
            (PhotoStatus.TIMEOUT, 3, 24),
            (PhotoStatus.TIMEOUT, 40, 24),
            (PhotoStatus.NOT_FOUND, 1, 1),
            (PhotoStatus.NOT_FOUND, 2, None),
            (PhotoStatus.GONE, 1, None),
        ],
    )
    def test_passing_failures_are_tried_again_and_lasting_ones_not(
        self,
        migrated: Portal,
        database: Database,
        state: Listings,
        status: PhotoStatus,
        failures: int,
        hours: int | None,
    ) -> None:
        save_photos(database, [failed(photo("x"), status, failures)], except_listing="a")
        found = state.photo_states([photo("x").key])[photo("x").key]
        assert (found.status, found.failures, found.retry_due) == (status, failures, False)
        rows = migrated.execute(
            "SELECT round(extract(epoch FROM next_try - checked_at) / 3600) FROM enrichment.photo"
        )
        assert rows[0][0] == hours

    def test_a_photo_is_due_when_its_listing_is(self, migrated: Portal, state: Listings) -> None:
        add(migrated, "a")
        enriched(state, "a", failed(photo("x"), PhotoStatus.TIMEOUT))
        migrated.execute("UPDATE enrichment.photo SET next_try = next_try - interval '1 hour'")
        migrated.execute("UPDATE enrichment.listing SET not_before = not_before - interval '1 hour'")
        assert state.claim(1)
        assert state.photo_states([photo("x").key])[photo("x").key].retry_due

    def test_what_was_not_requested_is_not_written(self, database: Database, state: Listings) -> None:
        save_photos(database, [ok(photo("x"), sha("1"), requested=False)], except_listing="a")
        assert state.photo_states([photo("x").key]) == {}

    def test_validators_that_cannot_be_kept_are_dropped(self, database: Database, state: Listings) -> None:
        odd = ok(photo("x"), sha("1"), validators=Validators('"\udcff"', "yesterday"))
        save_photos(database, [odd], except_listing="a")
        assert state.photo_states([photo("x").key])[photo("x").key].validators == Validators(
            None, "yesterday"
        )

    def test_one_photo_twice_in_a_listing_is_one_row(self, migrated: Portal, state: Listings) -> None:
        add(migrated, "a")
        enriched(state, "a", ok(photo("x", 0), sha("1")), failed(photo("x", 1), PhotoStatus.TIMEOUT))
        assert state.photo_states([photo("x").key])[photo("x").key].status is PhotoStatus.OK


class TestScores:
    def test_scores_are_kept_per_model_and_never_overwritten(
        self, database: Database, state: Listings
    ) -> None:
        first = PhotoScore(sha("1"), -7, {"m1": {"balcony": (0.25,)}})
        save_scores(database, first, first)
        save_scores(
            database, PhotoScore(sha("1"), 9, {"m1": {"balcony": (5.0,)}, "m2": {"room": (1.0, 2.5)}})
        )
        assert state.scores([sha("1"), sha("2")], ["m1", "m3"]) == {sha("1"): first}
        both = state.scores([sha("1")], ["m1", "m2"])[sha("1")]
        assert both.by_model == {"m1": {"balcony": (0.25,)}, "m2": {"room": (1.0, 2.5)}}

    def test_a_score_that_is_no_number_is_refused(self, database: Database, state: Listings) -> None:
        with pytest.raises(ValueError, match="JSON"):
            save_scores(database, PhotoScore(sha("1"), 0, {"m1": {"balcony": (float("inf"),)}}))


class TestHolders:
    """Which listings hold a photo: `listing_photo`, written only where that changes."""

    def rows(self, portal: Portal) -> dict[tuple[str, str], str]:
        """(listing, key) -> the transaction that wrote the row."""
        found = portal.execute("SELECT listing_id, key, xmin::text FROM enrichment.listing_photo")
        return {(row.listing_id, row.key): row.xmin for row in found}

    def test_a_status_change_rewrites_none(self, migrated: Portal, state: Listings) -> None:
        add(migrated, "a")
        shown = [photo(f"x{n}", n) for n in range(25)]
        enriched(state, "a", *(ok(p, sha("1")) for p in shown))
        before = self.rows(migrated)
        assert before.keys() == {("a", p.key) for p in shown}
        ask_again(migrated, "a")
        enriched(state, "a", failed(shown[0], PhotoStatus.TIMEOUT), *(ok(p, sha("1")) for p in shown[1:]))
        assert migrated.state("a").photos[0]["status"] == "timeout"
        assert self.rows(migrated) == before

    def test_a_photo_more_and_one_less_are_two_rows(self, migrated: Portal, state: Listings) -> None:
        add(migrated, "a", "b")
        for id in "ab":
            enriched(state, id, ok(photo("x"), sha("x")), ok(photo("y", 1), sha("y")))
        before = self.rows(migrated)
        ask_again(migrated, "a")
        enriched(
            state, "a", ok(photo("y"), sha("y")), ok(photo("z", 1), sha("z")), ok(photo("z", 2), sha("z"))
        )
        after = self.rows(migrated)
        assert before.keys() - after.keys() == {("a", photo("x").key)}
        assert after.keys() - before.keys() == {("a", photo("z").key)}
        assert {row: after[row] for row in before.keys() & after.keys()}.items() <= before.items()

    def test_a_listing_without_photos_any_more_holds_none(self, migrated: Portal, state: Listings) -> None:
        add(migrated, "a")
        enriched(state, "a", ok(photo("x"), sha("x")))
        ask_again(migrated, "a")
        enriched(state, "a")
        assert self.rows(migrated) == {}


class TestSharedPhotos:
    """Bytes that change behind a URL that several listings hold."""

    @pytest.fixture(autouse=True)
    def _listings(self, migrated: Portal, state: Listings) -> None:
        add(migrated, "a", "b", "c")
        for id in "ab":
            enriched(state, id, ok(photo("x"), sha("old")), ok(photo(id, 1), sha(id)))
        enriched(state, "c", ok(photo("other"), sha("other")))
        migrated.execute("UPDATE enrichment.listing SET status = 'pending' WHERE id = 'a'")

    def test_every_other_listing_that_holds_it_becomes_pending(
        self, migrated: Portal, state: Listings
    ) -> None:
        enriched(state, "a", ok(photo("x"), sha("new")))
        assert [migrated.state(id).status for id in "abc"] == ["done", "pending", "done"]
        enriched(state, "b", ok(photo("x"), sha("new"), requested=False))
        assert [migrated.state(id).status for id in "abc"] == ["done", "done", "done"]

    def test_a_leased_one_stays_pending_after_its_completion(self, migrated: Portal, state: Listings) -> None:
        migrated.execute("UPDATE enrichment.listing SET status = 'pending' WHERE id = 'b'")
        other = claim_one(state, "b")
        enriched(state, "a", ok(photo("x"), sha("new")))
        assert migrated.state("b").status == "leased"
        state.complete([result(other, [ok(photo("x"), sha("old"), requested=False)])])
        assert migrated.state("b").status == "pending"

    def test_a_leased_one_that_could_not_see_it_is_done_again(
        self, migrated: Portal, state: Listings
    ) -> None:
        migrated.execute("UPDATE enrichment.listing SET status = 'pending' WHERE id = 'b'")
        other = claim_one(state, "b")
        enriched(state, "a", ok(photo("x"), sha("new")))
        state.complete([result(other, [failed(photo("x"), PhotoStatus.GONE)])])
        assert migrated.state("b").status == "pending"

    def test_a_first_enrichment_with_the_old_bytes_is_done_again(
        self, migrated: Portal, state: Listings
    ) -> None:
        add(migrated, "d")
        claim = claim_one(state, "d")
        enriched(state, "a", ok(photo("x"), sha("new")))  # d holds nothing yet: it is not found
        state.complete([result(claim, [ok(photo("x"), sha("old"), requested=False)])])
        assert migrated.state("d").status == "pending"
        assert state.claim(1, ["d"]) == []  # in a moment, not in a tight loop
        assert state.claimable(["d"])
        migrated.execute("UPDATE enrichment.listing SET not_before = now() WHERE id = 'd'")
        enriched(state, "d", ok(photo("x"), sha("new"), requested=False))
        assert migrated.state("d").status == "done"

    def test_an_older_not_modified_does_not_bring_the_old_bytes_back(
        self, migrated: Portal, state: Listings
    ) -> None:
        migrated.execute("UPDATE enrichment.listing SET status = 'pending' WHERE id = 'b'")
        late = claim_one(state, "b")
        enriched(state, "a", ok(photo("x"), sha("new")))
        state.complete([result(late, [ok(photo("x"), sha("old"), status=PhotoStatus.UNCHANGED)])])
        assert state.photo_states([photo("x").key])[photo("x").key].sha256 == sha("new")
        assert [migrated.state(id).status for id in "ab"] == ["done", "pending"]

    def test_the_same_bytes_disturb_nobody(self, migrated: Portal, state: Listings) -> None:
        before = migrated.state("b")
        enriched(state, "a", ok(photo("x"), sha("old"), status=PhotoStatus.UNCHANGED))
        assert migrated.state("b") == before

    def test_a_photo_that_comes_right_for_one_listing_does_for_all(
        self, migrated: Portal, database: Database, state: Listings
    ) -> None:
        add(migrated, "d", "e")
        for id in "de":
            enriched(state, id, failed(photo("broken"), PhotoStatus.GONE))
        assert Requests(database).retry(["d"]) == 1
        enriched(state, "d", ok(photo("broken"), sha("mended")))
        assert [migrated.state(id).status for id in "de"] == ["done", "pending"]

    def test_a_photo_that_is_back_as_it_was_is_back_for_all(
        self, migrated: Portal, database: Database, state: Listings
    ) -> None:
        migrated.execute("UPDATE enrichment.listing SET status = 'pending' WHERE id = 'b'")
        for id in "ab":
            enriched(state, id, failed(photo("x"), PhotoStatus.TIMEOUT))
        assert Requests(database).retry(["a"]) == 1
        enriched(state, "a", ok(photo("x"), sha("old"), status=PhotoStatus.UNCHANGED))
        assert [migrated.state(id).status for id in "ab"] == ["done", "pending"]

    def test_a_listing_that_is_gone_stays_gone_but_will_not_pass_for_finished(
        self, migrated: Portal, state: Listings
    ) -> None:
        migrated.execute("UPDATE enrichment.listing SET status = 'gone' WHERE id = 'b'")
        enriched(state, "a", ok(photo("x"), sha("new")))
        assert (migrated.state("b").status, migrated.state("b").photo_fp_done) == ("gone", None)

    def test_a_completion_under_way_is_found_by_the_one_that_changes_its_photo(
        self, migrated: Portal, state: Listings
    ) -> None:
        add(migrated, "d")
        holding = result(claim_one(state, "d"), [ok(photo("x"), sha("old"), requested=False)])
        changing = Thread(target=enriched, args=(state, "a", ok(photo("x"), sha("new"))))
        with migrated.engine.begin() as connection:  # d's completion, stopped in the middle
            connection.exec_driver_sql("SET LOCAL search_path TO enrichment")
            assert photos.save(connection, [holding.results]).current == [True]
            changing.start()
            wait_for_lock(migrated, changing)
            key = photo("x").key
            connection.exec_driver_sql(
                "UPDATE enrichment.listing SET status = 'done', photos = jsonb_build_array("
                f"jsonb_build_object('key', '{key}', 'sha256', '{sha('old')}')) WHERE id = 'd'"
            )
            connection.exec_driver_sql(f"INSERT INTO listing_photo VALUES ('{key}', 'd')")
        changing.join()
        assert migrated.state("d").status == "pending"

    @pytest.mark.parametrize("asks", ["each for all", "each for one"])
    def test_workers_that_change_each_others_photos_at_once_all_get_through(
        self, migrated: Portal, state: Listings, caplog: pytest.LogCaptureFixture, asks: str
    ) -> None:
        ids = [f"s{n}" for n in range(8)]
        shared = [photo(f"shared{n}", n) for n in range(8)]
        add(migrated, *ids)

        def seen(number: int, version: int) -> list[PhotoResult]:
            """What worker `number` saw: the new bytes of what it asked for, else what is on record."""
            known = state.photo_states([p.key for p in shared])
            mine = [p for p in shared if asks == "each for all" or p.position == number]
            return [
                ok(p, sha(f"{p.position}-{version}"))
                if p in mine
                else ok(p, known[p.key].sha256 or "", requested=False)
                for p in shared
            ]

        enriched(state, "s0", *(ok(p, sha(f"{p.position}-0")) for p in shared))
        for version in (1, 2, 3):
            ask_again(migrated, *ids)
            work = [result(claim, seen(n, version)) for n, claim in enumerate(state.claim(8, ids))]
            with ThreadPoolExecutor(8) as pool:
                assert all(pool.map(state.complete, [[one] for one in work]))
        while state.claimable(ids):
            migrated.execute("UPDATE enrichment.listing SET not_before = NULL WHERE status = 'pending'")
            for claim in state.claim(8, ids):
                assert state.complete([result(claim, seen(-1, 3) if asks == "each for one" else seen(0, 3))])
        for id in ids:
            assert migrated.state(id).status == "done"
            assert {p["sha256"] for p in migrated.state(id).photos} == {sha(f"{n}-3") for n in range(8)}
        assert not caplog.records  # they waited for each other: no deadlock, no second try
