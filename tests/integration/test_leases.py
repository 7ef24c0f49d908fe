"""Leases on a real Postgres: one row per worker, and listings in whose hands a worker died."""

import os
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from threading import Thread

import pytest
from sqlalchemy import Connection
from sqlalchemy.exc import OperationalError

import migrations
from enrich.errors import OutageError
from enrich.records import Claim
from enrich.state.database import Database
from enrich.state.listings import Listings
from enrich.state.schema import BACKFILL
from enrich.state.summary import details, summary
from tests.support.enriched import add, claim_one, expire, result, wait_for_lock
from tests.support.postgres import Portal, PostgresServer

WORKERS = "SELECT id, host, pid, doing FROM enrichment.worker ORDER BY started"

# Of one connection only: a statement stands still where it first looks at workers, its snapshot taken.
READ_BEHIND_A_GATE = """
    CREATE TEMP VIEW worker AS
    SELECT * FROM enrichment.worker WHERE (SELECT pg_advisory_xact_lock_shared(1)) IS NOT NULL
"""


def queue(database: Database, doing: str = "run", most: int = 3) -> Listings:
    return Listings(database, lease_seconds=60, max_attempts=most, doing=doing)


@pytest.fixture
def state(database: Database) -> Listings:
    return queue(database)


class TestWorkers:
    def test_a_worker_is_known_from_its_first_claim_to_its_end(
        self, migrated: Portal, database: Database, state: Listings
    ) -> None:
        assert state.claim(1) == []
        assert migrated.execute(WORKERS) == []
        add(migrated, "a", "b")
        state.claim(1)
        state.claim(1)
        ((_, *told),) = migrated.execute(WORKERS)
        assert told == [socket.gethostname(), os.getpid(), "run"]
        state.close()
        assert migrated.execute(WORKERS) == []
        assert [claim.id for claim in queue(database).claim(1, alone=True)] == ["a"], "free at once"

    def test_a_heartbeat_renews_one_row_and_no_listing(self, migrated: Portal, state: Listings) -> None:
        add(migrated, *(f"l{n}" for n in range(20)))
        claims = state.claim(20)
        versions = "SELECT id, xmin::text FROM enrichment.listing ORDER BY id"
        expires = "SELECT expires FROM enrichment.worker"
        before, until = migrated.execute(versions), migrated.execute(expires)
        assert state.heartbeat(claims) == []
        assert migrated.execute(versions) == before
        assert migrated.execute(expires) > until

    def test_only_the_listings_of_the_silent_one_are_free(self, migrated: Portal, database: Database) -> None:
        silent, alive, other = queue(database), queue(database), queue(database)
        add(migrated, "a", "b", "c")
        silent.claim(1)
        claims = alive.claim(2)
        expire(migrated)
        alive.heartbeat(claims)
        assert [claim.id for claim in other.claim(3, alone=True)] == ["a"]
        assert other.claim(3, alone=True) == []

    def test_a_worker_that_a_restored_backup_forgot_registers_again(
        self, migrated: Portal, database: Database, state: Listings
    ) -> None:
        add(migrated, "a")
        claim = claim_one(state)
        migrated.execute("DELETE FROM enrichment.worker")
        assert state.heartbeat([claim]) == []
        assert len(migrated.execute(WORKERS)) == 1
        assert queue(database).claim(1, alone=True) == []
        assert state.complete([result(claim)])

    def test_a_listing_claimed_again_by_the_same_process_is_not_its_earlier_claim(
        self, migrated: Portal, state: Listings
    ) -> None:
        add(migrated, "a")
        earlier = claim_one(state)
        expire(migrated)
        later = claim_one(state)
        assert state.heartbeat([earlier, later]) == [earlier]
        state.release([earlier])
        assert not state.fail(earlier, "broken")
        assert not state.complete([result(earlier)])
        assert state.complete([result(later)])

    def test_whoever_registers_clears_away_the_dead_that_hold_nothing(
        self, migrated: Portal, database: Database, state: Listings
    ) -> None:
        add(migrated, "a", "b", "c")
        holding = queue(database, "holding")
        holding.claim(1)
        idle = queue(database, "idle")
        idle.release(idle.claim(1))
        expire(migrated)
        state.claim(1)
        assert [row.doing for row in migrated.execute(WORKERS)] == ["holding", "run"]

    def test_a_claim_whose_answer_was_lost_is_answered_and_not_made_twice(
        self, migrated: Portal, database: Database, state: Listings, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        add(migrated, "a", "b")
        begin = database.engine.begin
        lost = iter([True])

        @contextmanager
        def once() -> Iterator[Connection]:
            with begin() as connection:
                yield connection
            if next(lost, False):  # committed, and the connection broke before the answer came
                raise OperationalError("COMMIT", {}, Exception("server closed the connection"))

        monkeypatch.setattr(database.engine, "begin", once)
        assert [claim.id for claim in state.claim(1)] == ["a"]
        leased = "SELECT id FROM enrichment.listing WHERE status = 'leased'"
        assert migrated.execute(leased) == [("a",)]

    def test_leaving_does_not_wait_for_a_server_that_is_away(self, postgres_server: PostgresServer) -> None:
        migrations.upgrade(postgres_server.url)
        portal, database = Portal(postgres_server.url), Database(postgres_server.url, patience=600)
        add(portal, "a")
        state = queue(database)
        claim_one(state)
        postgres_server.stop()
        state.close()  # the test's time limit is shorter than the patience
        with pytest.raises(OutageError):
            database.run(lambda connection: None, patience=0)
        for engine in (portal.engine, database.engine):
            engine.dispose()

    def test_status_lists_the_live_ones_with_what_they_have_in_hand(
        self, migrated: Portal, database: Database
    ) -> None:
        add(migrated, "a", "b", "c", "d")
        dead = queue(database)
        dead.claim(1)
        expire(migrated)
        state = queue(database, "backfill")
        state.claim(2)
        (worker,) = summary(database).workers
        assert (worker.host, worker.pid, worker.doing) == (socket.gethostname(), os.getpid(), "backfill")
        assert worker.listings == 2
        assert worker.started <= worker.seen
        held = details(database, "b").listing
        assert held["worker"] == f"{socket.gethostname()}:{os.getpid()}"
        assert held["lease_expires"] > held["pending_since"]
        assert details(database, "d").listing["lease_expires"] is None


class TestAfterADeath:
    @pytest.fixture
    def died(self, migrated: Portal, database: Database) -> Callable[..., None]:
        """A worker dies with these listings in hand."""

        def die(*ids: str) -> None:
            state = queue(database)
            if not state.claim(len(ids), ids):
                for id in ids:
                    claim_one(state, id)
            expire(migrated)

        return die

    def test_its_listings_are_claimed_one_at_a_time(
        self, migrated: Portal, state: Listings, died: Callable[..., None]
    ) -> None:
        add(migrated, "a", "b", "c", "d")
        died("a", "b", "c")
        assert [claim.id for claim in state.claim(10)] == ["d"]
        assert state.claimable(["a"]), "it still waits"
        taken = [[claim.id for claim in state.claim(10, alone=True)] for _ in range(4)]
        assert taken == [["a"], ["b"], ["c"], []]

    def test_the_one_that_killed_the_fewest_goes_first(
        self, migrated: Portal, state: Listings, died: Callable[..., None]
    ) -> None:
        add(migrated, "a", "c", "d")
        add(migrated, "b", priority=BACKFILL)
        for ids in (["a", "b", "c", "d"], ["a"]):
            died(*ids)
        taken = [state.claim(10, alone=True)[0].id for _ in range(4)]
        assert taken == ["c", "d", "b", "a"]

    def test_one_given_back_after_a_crash_is_claimed_alone_too(
        self, migrated: Portal, state: Listings
    ) -> None:
        add(migrated, "a", "b")
        state.release(state.claim(1), forgive=False)
        assert [claim.id for claim in state.claim(10)] == ["b"]
        assert [claim.id for claim in state.claim(10, alone=True)] == ["a"]

    def test_what_killed_nobody_is_never_claimed_alone(self, migrated: Portal, state: Listings) -> None:
        add(migrated, "a")
        assert state.claim(1, alone=True) == []

    def test_one_that_a_live_worker_took_while_the_claim_was_being_made_is_left_to_it(
        self, migrated: Portal, database: Database, died: Callable[..., None]
    ) -> None:
        """The claim began before the other worker had its row, and gets at the listing afterwards."""
        add(migrated, "a")
        died("a")
        slow, found = Database(migrated.url), list[Claim]()
        slow.run(lambda connection: connection.exec_driver_sql(READ_BEHIND_A_GATE))
        claiming = Thread(target=lambda: found.extend(queue(slow).claim(1, alone=True)))
        with migrated.engine.begin() as gate:
            gate.exec_driver_sql("SELECT pg_advisory_xact_lock(1)")
            claiming.start()
            wait_for_lock(migrated, claiming)
            other = queue(database)
            (claim,) = other.claim(1, alone=True)
        claiming.join()
        slow.close()
        assert found == []
        assert migrated.state("a").attempts == 2
        assert other.complete([result(claim)])

    def test_a_lethal_listing_alone_is_quarantined(
        self, migrated: Portal, database: Database, died: Callable[..., None]
    ) -> None:
        """Three listings in hand when the worker dies the first time; one of them kills it every time."""
        ids = ("a", "b", "lethal")
        add(migrated, *ids)
        died(*ids)
        state = queue(database)
        while state.claimable():
            for claim in state.claim(10) or state.claim(10, alone=True):
                if claim.id == "lethal":
                    expire(migrated)
                    state = queue(database)
                else:
                    assert state.complete([result(claim)])
        statuses = {
            row.id: row.status for row in migrated.execute("SELECT id, status FROM enrichment.listing")
        }
        assert statuses == {"a": "done", "b": "done", "lethal": "quarantined"}
        assert migrated.state("lethal").error == "the worker died 3 times while working on it"

    def test_a_completed_listing_has_a_clean_record(
        self, migrated: Portal, state: Listings, died: Callable[..., None]
    ) -> None:
        add(migrated, "a")
        died("a")
        assert state.complete([result(claim_one(state))])
        migrated.execute("UPDATE enrichment.listing SET status = 'pending'")
        assert [claim.id for claim in state.claim(10)] == ["a"]
