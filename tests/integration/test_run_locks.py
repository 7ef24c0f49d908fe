"""The locks of a run: which ones it waits for, how long, and what it does when one was lost."""

import time
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace
from typing import Any

import pytest

from enrich.errors import BusyError, LockLostError
from enrich.state.database import Database
from enrich.state.locks import Locks
from jobs.run.session import DISCOVER, PUBLISH, publish_now
from jobs.run.stop import Stop
from tests.support.harness import World, until
from tests.support.postgres import Portal


def test_a_lock_lost_after_hours_of_publishing_is_taken_again(
    migrated: Portal, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("jobs.run.session.LOCK_PATIENCE", 0.5)
    calls: list[float] = []

    def publish(**_: Any) -> None:
        calls.append(time.monotonic())
        if len(calls) == 1:
            time.sleep(1.0)
            raise LockLostError("the database was away")

    publisher: Any = SimpleNamespace(publish=publish, refusals=SimpleNamespace(warn=lambda: None))
    settings = SimpleNamespace(lease_seconds=60, index="homes", index_mode="own")
    services: Any = SimpleNamespace(locks=Locks(database), settings=settings, database=database)
    publish_now(services, publisher, Stop())
    assert len(calls) == 2


def test_a_run_that_waits_for_its_turn_is_not_repeated_for_another_lock(
    world: World, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("jobs.run.session.LOCK_PATIENCE", 0.0)
    world.listing("1", "kitchen")
    with Locks(database).hold(PUBLISH), pytest.raises(BusyError, match="publish"):
        world.run(wait=True)
    assert world.portal.execute("SELECT exit_code FROM enrichment.run") == [(75,)]


def test_a_run_waits_for_what_holds_its_lock_for_a_while(
    world: World, database: Database, beside: ThreadPoolExecutor, caplog: pytest.LogCaptureFixture
) -> None:
    """A prune, a reindex, the start of a backfill."""
    world.listing("1", "kitchen")
    with Locks(database).hold(DISCOVER):
        waiting = beside.submit(world.run)
        until(lambda: "waiting up to" in caplog.text or waiting.done(), "it waits")
        assert not waiting.done()
    assert waiting.result().exit_code == 0 and world.documents().keys() == {"1"}


def test_a_run_does_not_wait_for_ever(
    world: World, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("jobs.run.nightly.LOCK_PATIENCE", 0.0, raising=False)
    with Locks(database).hold(DISCOVER), pytest.raises(BusyError, match="discover"):
        world.run()
    assert world.portal.execute("SELECT id FROM enrichment.run") == []


def test_waiting_for_another_run_is_no_part_of_what_a_run_took(
    world: World, database: Database, beside: ThreadPoolExecutor
) -> None:
    world.listing("1", "kitchen")
    with Locks(database).hold(DISCOVER):
        running = beside.submit(world.run, wait=True)
        time.sleep(3.0)
        assert not running.done()
        ended = time.monotonic()
    assert running.result().figures.started > ended - 1.0
