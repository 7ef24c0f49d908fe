"""Listings saved as a group, on a real Postgres: in few statements, and nobody is harmed by another."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from time import sleep
from typing import Any

import pytest
from sqlalchemy import event

from enrich.pipeline.saving import Ended, save
from enrich.records import Claim, ListingResult, PhotoResult, PhotoStatus
from enrich.state.database import Database
from enrich.state.listings import Listings
from enrich.state.overrides import Overrides
from tests.support.enriched import (
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
    statuses,
)
from tests.support.postgres import Portal

WAITING_FOR_LOCKS = """
    SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'
"""


@contextmanager
def statements(database: Database) -> Iterator[list[str]]:
    """What is sent to the database within the block."""
    sent: list[str] = []

    def note(_connection: Any, _cursor: Any, statement: str, *_: Any) -> None:
        sent.append(statement)

    event.listen(database.engine, "before_cursor_execute", note)
    try:
        yield sent
    finally:
        event.remove(database.engine, "before_cursor_execute", note)


def claimed(state: Listings, *ids: str) -> dict[str, Claim]:
    return {claim.id: claim for claim in state.claim(len(ids), ids)}


def photos_of(portal: Portal, id: str) -> dict[int, tuple[str, str | None]]:
    return {p["position"]: (p["status"], p["sha256"]) for p in portal.state(id).photos}


def home(claim: Claim, version: str) -> ListingResult:
    """A home with a dozen photos of its own and one that all homes share."""
    own = [ok(photo(f"{claim.id}-{n}", n), sha(f"{claim.id}-{n}-{version}")) for n in range(12)]
    return result(claim, [*own, ok(photo("shared", 12), sha("shared"), requested=claim.id == "l00")])


class TestStatements:
    @pytest.mark.parametrize("time", ["first", "changed photos", "with overrides"])
    def test_a_group_takes_as_many_as_one_listing(
        self, migrated: Portal, database: Database, state: Listings, time: str
    ) -> None:
        ids = [f"l{n:02}" for n in range(34)]
        add(migrated, *ids)
        if time != "first":
            assert len(state.complete([home(c, "1") for c in state.claim(34)])) == 34
            ask_again(migrated, *ids)
        if time == "with overrides":
            for id in ids:
                Overrides(database).set_override(id, "has_balcony", False, None, "ann")
        homes = [home(claim, "2") for claim in state.claim(34)]
        assert state.complete(homes[:1])
        with statements(database) as of_one:
            assert state.complete(homes[1:2])
        with statements(database) as of_many:
            assert len(state.complete(homes[2:])) == 32
        assert len(of_many) == len(of_one) <= 14
        assert set(statuses(migrated).values()) == {"done"}

    def test_known_photos_are_looked_up_together(
        self, migrated: Portal, database: Database, state: Listings
    ) -> None:
        add(migrated, "a")
        shown = [photo(f"x{n}", n) for n in range(40)]
        enriched(state, "a", *(ok(p, sha(p.key)) for p in shown))
        with statements(database) as sent:
            assert len(state.photo_states([p.key for p in shown])) == 40
            assert len(state.scores([sha(p.key) for p in shown], [MODEL])) == 40
        assert len([s for s in sent if "SELECT" in s]) == 2


class TestOneBadListing:
    def test_a_stale_claim_changes_nothing_and_takes_nothing_from_the_others(
        self, migrated: Portal, state: Listings
    ) -> None:
        add(migrated, "a", "b", "c")
        first = claimed(state, "a", "b", "c")
        expire(migrated)
        second = claim_one(state, "b")
        saved = state.complete([result(c, [ok(photo(c.id), sha(c.id))]) for c in first.values()])
        assert saved == {first["a"], first["c"]}
        assert statuses(migrated) == {"a": "done", "b": "leased", "c": "done"}
        assert state.photo_states([photo("b").key]) == {} == state.scores([sha("b")], [MODEL])
        assert state.complete([result(second)]) == {second}

    def test_both_claims_of_a_listing_that_this_process_got_again(
        self, migrated: Portal, state: Listings
    ) -> None:
        add(migrated, "a")
        earlier = claim_one(state)
        expire(migrated)
        later = claim_one(state)
        found = [
            result(earlier, [ok(photo("x"), sha("old"))]),
            result(later, [ok(photo("x"), sha("new"))]),
        ]
        assert state.complete(found) == {later}
        assert photos_of(migrated, "a") == {0: ("ok", sha("new"))}

    def test_a_listing_that_lost_all_its_photos_waits_and_the_others_are_saved(
        self, migrated: Portal, state: Listings
    ) -> None:
        add(migrated, "a", "b")
        claims = claimed(state, "a", "b")
        assert state.complete([result(claims["a"], photo_fp=""), result(claims["b"])]) == {claims["b"]}
        assert statuses(migrated) == {"a": "retry", "b": "done"}

    @pytest.mark.parametrize(
        "bad",
        [
            {"balcony_confidence": float("nan")},
            {"room_types": ["no text for Postgres: \0"]},
            {"room_types": ["nor this: \udc80"]},
        ],
    )
    def test_one_that_cannot_be_written_down_is_quarantined_alone(
        self, migrated: Portal, state: Listings, bad: dict[str, Any]
    ) -> None:
        ids = [f"l{n}" for n in range(7)]
        add(migrated, *ids)
        results = [
            result(claim, [ok(photo(claim.id), sha(claim.id))], **(bad if claim.id == "l3" else {}))
            for claim in state.claim(7)
        ]
        ended = save(state, results)
        assert ended == [Ended.QUARANTINED if n == 3 else Ended.SAVED for n in range(7)]
        assert statuses(migrated) == {id: "quarantined" if id == "l3" else "done" for id in ids}
        assert migrated.state("l3").error.startswith("save: ")
        assert state.photo_states([photo("l3").key]) == {}

    def test_what_is_wrong_with_the_database_is_not_held_against_a_listing(
        self, migrated: Portal, state: Listings
    ) -> None:
        add(migrated, "a")
        claim = claim_one(state)
        migrated.execute("ALTER TABLE enrichment.photo_score RENAME TO elsewhere")
        with pytest.raises(Exception, match="photo_score"):
            save(state, [result(claim, [ok(photo("x"), sha("x"))])])
        assert statuses(migrated) == {"a": "leased"}


class TestSharedPhotos:
    """A group comes out as if its listings were saved one after the other."""

    @pytest.fixture
    def claims(self, migrated: Portal, state: Listings) -> dict[str, Claim]:
        """Two listings that hold a photo's old bytes, and one that is new."""
        add(migrated, "a", "b", "c")
        for id in "ab":
            enriched(state, id, ok(photo("x"), sha("old")))
        ask_again(migrated, "a", "b")
        return claimed(state, "a", "b", "c")

    @pytest.mark.parametrize("order", ["abc", "cba", "bac"])
    def test_those_that_saw_older_bytes_are_done_again(
        self, migrated: Portal, state: Listings, claims: dict[str, Claim], order: str
    ) -> None:
        found = {
            "a": [ok(photo("x"), sha("new"))],
            "b": [ok(photo("x"), sha("old"), requested=False)],
            "c": [ok(photo("x"), sha("new"), requested=False)],
        }
        assert len(state.complete([result(claims[id], found[id]) for id in order])) == 3
        expected = {"a": "done", "b": "pending", "c": "done" if order.index("a") < order.index("c") else None}
        assert {id: s for id, s in statuses(migrated).items() if expected[id]} == {
            id: s for id, s in expected.items() if s
        }
        assert state.photo_states([photo("x").key])[photo("x").key].sha256 == sha("new")

    @pytest.mark.parametrize(
        ("status", "kept", "etag"),
        [(PhotoStatus.TIMEOUT, sha("new"), '"new0"'), (PhotoStatus.GONE, None, None)],
    )
    def test_a_failure_after_new_bytes_keeps_the_bytes_while_it_may_pass(
        self,
        migrated: Portal,
        state: Listings,
        claims: dict[str, Claim],
        status: PhotoStatus,
        kept: str | None,
        etag: str | None,
    ) -> None:
        found: dict[str, PhotoResult] = {
            "a": ok(photo("x"), sha("new")),
            "b": failed(photo("x"), status),
        }
        assert len(state.complete([result(claims[id], [found[id]]) for id in "ab"])) == 2
        known = state.photo_states([photo("x").key])[photo("x").key]
        assert (known.status, known.sha256, known.validators.etag) == (status, kept, etag)

    def test_new_bytes_after_a_failure_have_the_listing_that_failed_done_again(
        self, migrated: Portal, state: Listings, claims: dict[str, Claim]
    ) -> None:
        found = {"a": ok(photo("y"), sha("y")), "c": failed(photo("y"), PhotoStatus.GONE)}
        assert len(state.complete([result(claims[id], [found[id]]) for id in "ca"])) == 2
        assert (statuses(migrated)["a"], statuses(migrated)["c"]) == ("done", "pending")
        assert state.photo_states([photo("y").key])[photo("y").key].status is PhotoStatus.OK

    def test_holders_outside_of_the_group_are_asked_again(
        self, migrated: Portal, state: Listings, claims: dict[str, Claim]
    ) -> None:
        state.release([claims["b"]])
        migrated.execute("UPDATE enrichment.listing SET status = 'done' WHERE id = 'b'")
        group = [result(claims[id], [ok(photo("x"), sha("new"), requested=id == "a")]) for id in "ac"]
        assert len(state.complete(group)) == 2
        assert statuses(migrated) == {"a": "done", "b": "pending", "c": "done"}

    @pytest.mark.parametrize("meet_at", ["scores", "photos"])
    def test_workers_whose_groups_share_photos_in_opposite_orders_both_get_through(
        self, migrated: Portal, database: Database, caplog: pytest.LogCaptureFixture, meet_at: str
    ) -> None:
        shared = sorted((photo(f"shared{n}", n) for n in range(9)), key=lambda p: p.key)
        add(migrated, "k", "l", "m", "n", "first")
        workers = [Listings(database, lease_seconds=60, max_attempts=3) for _ in range(2)]
        enriched(workers[0], "first", *(ok(p, sha(f"{n}-0")) for n, p in enumerate(shared)))
        new = [ok(p, sha(f"{n}-1")) for n, p in enumerate(shared)]
        groups = [
            [result(claim_one(workers[0], id), new) for id in "km"],
            [result(claim_one(workers[1], id), new[::-1]) for id in "nl"],
        ]
        with migrated.engine.connect() as connection:  # holds up both in the middle of what they lock
            connection.exec_driver_sql(
                f"INSERT INTO enrichment.photo_score VALUES ('{sha('4-1')}', '{MODEL}', 0, '{{}}')"
                if meet_at == "scores"
                else f"SELECT 1 FROM enrichment.photo WHERE key = '{shared[4].key}' FOR UPDATE"
            )
            with ThreadPoolExecutor(2) as pool:
                saving = [pool.submit(w.complete, g) for w, g in zip(workers, groups, strict=True)]
                while migrated.execute(WAITING_FOR_LOCKS)[0][0] < 2:
                    sleep(0.02)
                connection.rollback()
        assert [len(done.result()) for done in saving] == [2, 2]
        assert not caplog.records  # no deadlock, no second try
        assert {p["sha256"] for p in migrated.state("l").photos} == {r.sha256 for r in new}
