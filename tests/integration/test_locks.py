"""Locks on a real Postgres."""

from concurrent.futures import ThreadPoolExecutor
from threading import Barrier
from time import monotonic

import pytest

import migrations
from enrich.errors import BusyError, StoppedError
from enrich.state.database import Database
from enrich.state.locks import Locks
from tests.support.harness import until
from tests.support.postgres import Portal, PostgresServer


@pytest.fixture
def locks(database: Database) -> Locks:
    return Locks(database)


def expire(portal: Portal) -> None:
    portal.execute("UPDATE enrichment.lock SET expires = clock_timestamp() - interval '1 second'")


def test_one_of_many_gets_the_lock(locks: Locks) -> None:
    start = Barrier(8)

    def work(number: int) -> str | None:
        start.wait()
        return locks.acquire("discover", f"host-{number}", 60)

    with ThreadPoolExecutor(8) as pool:
        assert sum(token is not None for token in pool.map(work, range(8))) == 1


def test_locks_of_other_names_are_free(locks: Locks) -> None:
    assert locks.acquire("discover", "one", 60)
    assert locks.acquire("publish", "two", 60)


def test_an_expired_lock_is_taken_over_and_its_old_holder_told(migrated: Portal, locks: Locks) -> None:
    old = locks.acquire("discover", "one", 60)
    assert old is not None
    expire(migrated)
    new = locks.acquire("discover", "two", 60)
    assert new is not None
    assert not locks.renew("discover", old, 60)
    assert not locks.release("discover", old)
    assert locks.acquire("discover", "three", 60) is None  # the old holder did not free the new one's
    assert locks.renew("discover", new, 60)


def test_a_renewed_lock_is_not_taken(migrated: Portal, locks: Locks) -> None:
    token = locks.acquire("discover", "one", 60)
    expire(migrated)
    assert token is not None
    assert locks.renew("discover", token, 60)
    assert locks.acquire("discover", "two", 60) is None


def test_a_released_lock_is_free(locks: Locks) -> None:
    token = locks.acquire("discover", "one", 60)
    assert token is not None
    assert locks.release("discover", token)
    assert locks.acquire("discover", "two", 60)


def test_holding_is_renewed_while_the_block_lasts(migrated: Portal, locks: Locks) -> None:
    sql = "SELECT expires FROM enrichment.lock WHERE name = 'discover'"
    with locks.hold("discover", lease_seconds=3) as hold:
        first = migrated.execute(sql)[0][0]
        while migrated.execute(sql)[0][0] <= first:  # the test's own time limit ends it
            hold.lost.wait(0.05)
        hold.check()
        with pytest.raises(BusyError, match="holds the lock 'discover'") as busy, locks.hold("discover"):
            pass
        assert busy.value.exit_code == 75
    assert locks.acquire("discover", "next", 60)


def test_a_holder_learns_that_its_lock_was_lost(migrated: Portal, locks: Locks) -> None:
    with locks.hold("discover", lease_seconds=0.6) as hold:
        migrated.execute("UPDATE enrichment.lock SET token = gen_random_uuid(), holder = 'thief'")
        assert hold.lost.wait(60)
        with pytest.raises(StoppedError, match="was lost"):
            hold.check()
    assert migrated.execute("SELECT holder FROM enrichment.lock")[0][0] == "thief"


def test_a_block_that_raises_frees_the_lock(locks: Locks) -> None:
    with pytest.raises(ZeroDivisionError), locks.hold("discover"):
        raise ZeroDivisionError
    assert locks.acquire("discover", "next", 60)


def test_a_database_away_for_longer_than_the_lease_loses_the_lock(postgres_server: PostgresServer) -> None:
    """The holder is told by the clock, and does not wait for the database to come back."""
    migrations.upgrade(postgres_server.url)
    database = Database(postgres_server.url, patience=60)
    with Locks(database).hold("discover", lease_seconds=3) as hold:
        postgres_server.stop("immediate")
        stopped = monotonic()
        assert hold.lost.wait(20)
        assert monotonic() - stopped < 10
        with pytest.raises(StoppedError, match="was lost"):
            hold.check()
    database.close()


def test_a_renewal_that_hangs_loses_the_lock(migrated: Portal, locks: Locks) -> None:
    with locks.hold("discover", lease_seconds=1.5) as hold, migrated.engine.begin() as connection:
        connection.exec_driver_sql("SELECT 1 FROM enrichment.lock FOR UPDATE")
        end = monotonic() + 20
        with pytest.raises(StoppedError, match="was lost"):
            while monotonic() < end:
                hold.check()


def test_holding_needs_no_connection_of_the_pool(migrated: Portal) -> None:
    """Work that takes long, on all the connections there are, does not cost the lock."""
    sql = "SELECT expires FROM enrichment.lock WHERE name = 'discover'"
    database = Database(migrated.url, patience=30)
    with Locks(database).hold("discover", lease_seconds=6) as hold:
        taken = [database.engine.connect() for _ in range(15)]
        for _ in range(2):
            before = migrated.execute(sql)[0][0]
            until(lambda before=before: migrated.execute(sql)[0][0] > before, "it is renewed")  # type: ignore[misc]
        hold.check()
        for connection in taken:
            connection.close()
    database.close()
