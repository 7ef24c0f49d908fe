"""Postgres that is cut off, full or in conflict: a run waits or stops, and the next one is whole.

A server that is killed and started again is in tests/acceptance/test_outage.py.
"""

import random
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from itertools import count
from threading import Event
from time import sleep

import pytest
from sqlalchemy import text
from sqlalchemy.exc import OperationalError

from enrich.errors import StoppedError
from enrich.state.schema import SCHEMA, metadata
from tests.faults.conftest import Record
from tests.faults.town import BRIEF, HOMES, Town
from tests.support.gate import Gate
from tests.support.harness import until
from tests.support.postgres import Portal
from tests.support.wire import Wire

COMMIT = b"Q\0\0\0\x0bCOMMIT\0"
_CUT = """
    SELECT pg_terminate_backend(pid) FROM pg_stat_activity
    WHERE datname = current_database() AND application_name = 'listing-enrichment'
"""

_WAITING = """
    SELECT count(*) FROM pg_stat_activity
    WHERE datname = current_database() AND application_name = 'listing-enrichment'
      AND wait_event_type = 'Lock'
"""
_IN_HAND = f"SELECT id FROM {SCHEMA}.listing WHERE status = 'leased' ORDER BY id"
_FIRST_IN_HAND, _LAST_IN_HAND = f"{_IN_HAND} LIMIT 1 FOR UPDATE", f"{_IN_HAND} DESC LIMIT 1 FOR UPDATE"
_ALL_IN_HAND = f"{_IN_HAND} DESC FOR UPDATE"


def test_connections_are_cut_again_and_again(town: Town, beside: ThreadPoolExecutor, record: Record) -> None:
    dice, cuts = random.Random(1), 0
    running = beside.submit(town.world.run, settings=BRIEF)
    ended = Event()
    running.add_done_callback(lambda _: ended.set())
    while not ended.wait(dice.uniform(0.0, 0.15)) and cuts < 200:
        cuts += len(town.world.portal.execute(_CUT))
    assert running.result().exit_code == 0
    losses = town.losses()
    record("postgres-cut", "Connections to Postgres cut during a run", cuts, losses=losses)
    assert cuts >= 10 and losses == 0
    assert town.world.requests() <= town.photos and town.settled()


def test_the_answers_to_commits_are_lost(town: Town, postgres_wire: Wire, record: Record) -> None:
    """What was committed is done again by whoever does not know."""
    turns = count(1)
    postgres_wire.loses = lambda sent: sent == COMMIT and next(turns) % 3 == 0
    report = town.world.run(settings=BRIEF)
    postgres_wire.loses = lambda sent: False
    losses = town.losses()
    record(
        "postgres-commits",
        "Commits whose answer was lost with the connection",
        postgres_wire.lost,
        losses=losses,
    )
    assert report.exit_code == 0 and postgres_wire.lost > 20 and losses == 0
    assert report.published.written == HOMES
    assert town.world.portal.execute("SELECT exit_code FROM enrichment.run") == [(0,)]
    assert town.settled()


@pytest.mark.parametrize("commits", [4, 20, 60])
def test_away_for_too_long_it_stops_and_the_next_run_is_whole(
    town: Town, postgres_wire: Wire, record: Record, commits: int
) -> None:
    turns = count(1)
    gone = Event()

    def loses(sent: bytes) -> bool:
        """From this commit on there is no server any more."""
        if sent == COMMIT and next(turns) == commits:
            gone.set()
        return gone.is_set()

    postgres_wire.loses = loses
    brief = {**BRIEF, "lease_seconds": 2.0}
    with pytest.raises(StoppedError) as stopped:
        town.world.run(settings={**brief, "outage_seconds": 1.0})
    assert stopped.value.exit_code == 3 and "Nothing is lost" in str(stopped.value)
    postgres_wire.loses = lambda sent: False
    report = town.world.run(settings=brief, wait=True)
    losses = town.losses()
    record(f"postgres-away-{commits}", f"Postgres gone from commit {commits} on", 1, losses=losses)
    assert report.exit_code == 0 and losses == 0
    assert town.settled()


@contextmanager
def failing(portal: Portal, state: str, each: int) -> Iterator[None]:
    """Each so-and-so-many-th write to our tables fails with this state of Postgres."""
    tables = [table.fullname for table in metadata.sorted_tables]
    portal.execute("CREATE SEQUENCE public.writes")
    portal.execute("CREATE SEQUENCE public.raised")
    portal.execute(
        "CREATE FUNCTION public.fail() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN"
        f" IF nextval('public.writes') % {each} = 0 THEN PERFORM nextval('public.raised');"
        f" RAISE 'out of order' USING ERRCODE = '{state}'; END IF; RETURN NULL; END $$"
    )
    for table in tables:
        portal.execute(
            f"CREATE TRIGGER fails AFTER INSERT OR UPDATE OR DELETE ON {table}"
            " FOR EACH STATEMENT EXECUTE FUNCTION public.fail()"
        )
    yield
    portal.execute("DROP FUNCTION public.fail CASCADE")


def raised(portal: Portal) -> int:
    return int(portal.execute("SELECT last_value FROM public.raised")[0][0])


@pytest.mark.parametrize(
    ("state", "what"),
    [
        ("40001", "serialization failures"),
        ("40P01", "deadlocks"),
        ("53100", "a full disk"),
        ("57014", "time limits"),
    ],
)
def test_writes_that_fail_for_passing_reasons(town: Town, record: Record, state: str, what: str) -> None:
    portal = town.world.portal
    with failing(portal, state, each=13):
        report = town.world.run(settings=BRIEF)
    losses, failures = town.losses(), raised(portal)
    record(f"postgres-{state}", f"Writes to Postgres that failed: {what}", failures, losses=losses)
    assert report.exit_code == 0 and losses == 0 and failures >= 5
    assert report.published.written == HOMES and town.world.requests() <= town.photos


def test_a_disk_that_stays_full_stops_the_run_and_the_next_one_is_whole(town: Town, record: Record) -> None:
    portal = town.world.portal
    assert town.world.run(limit=10, settings=BRIEF).exit_code == 0
    with failing(portal, "53100", each=1):
        stopped = town.world.enrich("run", outage_seconds=1)
    assert stopped.returncode == 3 and "Traceback" not in stopped.stderr
    assert "out of order" in stopped.stderr.splitlines()[-1]
    report = town.world.run(settings=BRIEF, wait=True)
    losses = town.losses()
    record("postgres-full", "A disk that stays full", 1, losses=losses)
    assert report.exit_code == 0 and losses == 0


def backwards(portal: Portal, go_on: Callable[[], None]) -> bool:
    """Lock what is in hand, the last first, and the rest once somebody waits for it; whether that deadlocked
    us. Before, the first one is locked for a while, so that others come to be saved together."""

    def waits() -> bool:
        return bool(portal.execute(_WAITING)[0][0])

    try:
        with portal.engine.begin() as connection:
            connection.execute(text(_LAST_IN_HAND))
            with portal.engine.begin() as other:
                other.execute(text(_FIRST_IN_HAND))
                go_on()
                until(waits, "the first one is waited for")
                sleep(0.5)
            sleep(0.1)
            until(waits, "the last one is waited for")
            connection.execute(text(_ALL_IN_HAND))
    except OperationalError as error:
        assert "deadlock detected" in str(error)
        return True
    return False


def test_somebody_locks_rows_in_the_other_order(
    town: Town,
    gate: Gate,
    beside: ThreadPoolExecutor,
    record: Record,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A real deadlock: the job is its victim, or who disturbs it."""
    monkeypatch.setattr("enrich.pipeline.run.GROUP", 8)
    portal = town.world.portal
    portal.execute(f"ALTER DATABASE {portal.engine.url.database} SET deadlock_timeout = '20ms'")
    portal.engine.dispose()
    gate.holds(town.world.photos, *(row.url for row in portal.execute("SELECT url FROM listing_images")))
    running = beside.submit(town.world.run, settings=BRIEF)
    until(lambda: len(portal.execute(_IN_HAND)) >= 16, "homes are in hand")
    ours = backwards(portal, gate.open)
    assert running.result().exit_code == 0
    deadlocks = ours + caplog.text.count("deadlock detected")
    losses = town.losses()
    record("postgres-deadlocks", "Real deadlocks with somebody else's locks", deadlocks, losses=losses)
    assert losses == 0 and deadlocks > 0


def test_three_processes_on_a_database_that_is_serializable_by_default(
    town: Town,
    beside: ThreadPoolExecutor,
    record: Record,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Real serialization failures."""
    monkeypatch.setattr("enrich.pipeline.run.GROUP", 4)
    world, portal = town.world, town.world.portal
    name = portal.engine.url.database
    portal.execute(f"ALTER DATABASE {name} SET default_transaction_isolation = 'serializable'")
    portal.engine.dispose()
    jobs = [beside.submit(world.run, settings=BRIEF)]
    until(world.statuses, "the run has the lock and writes")
    jobs += [beside.submit(world.backfill, settings=BRIEF) for _ in range(2)]
    assert [job.result().exit_code for job in jobs] == [0, 0, 0]
    assert world.run(settings=BRIEF).exit_code == 0
    failures = caplog.text.count("could not serialize")
    losses = town.losses()
    record("postgres-serializable", "Real serialization failures, three processes", failures, losses=losses)
    assert losses == 0 and failures > 0
