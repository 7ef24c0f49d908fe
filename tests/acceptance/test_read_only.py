"""A Postgres that takes no writes, as a primary that was demoted: an outage, never a bug."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.support.gate import Gate
from tests.support.harness import World, until
from tests.support.postgres import Portal, on_database


class Switch:
    """Turns writing off and on for new transactions of one database, from another database."""

    def __init__(self, portal: Portal) -> None:
        self.name = portal.engine.url.database
        self._admin = Portal(on_database(portal.url, "postgres"))

    def off(self) -> None:
        self._admin.execute(f"ALTER DATABASE {self.name} SET default_transaction_read_only = on")
        # A session keeps what it began with: a demotion ends them all.
        self._admin.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = :name", name=self.name
        )

    def on(self) -> None:
        self._admin.execute(f"ALTER DATABASE {self.name} RESET default_transaction_read_only")

    def close(self) -> None:
        self.on()
        self._admin.engine.dispose()


@pytest.fixture
def writing(world: World) -> Iterator[Switch]:
    switch = Switch(world.portal)
    yield switch
    switch.close()


def test_a_run_waits_until_it_can_write_again(
    world: World, writing: Switch, gate: Gate, beside: ThreadPoolExecutor, caplog: pytest.LogCaptureFixture
) -> None:
    gate.holds(world.photos, *world.listing("1", "balcony"))
    running = beside.submit(world.run, settings={"fetch_timeout": 120.0, "outage_seconds": 120.0})
    until(world.requests, "the photo is asked for")
    writing.off()
    gate.open()
    until(lambda: "read-only" in caplog.text or running.done(), "the run misses its database")
    assert not running.done()
    writing.on()
    assert running.result().exit_code == 0
    world.portal.engine.dispose()
    assert world.documents()["1"]["has_balcony"] is True


def test_a_server_that_stays_read_only_ends_the_run_with_3(world: World, writing: Switch) -> None:
    world.listing("1", "balcony")
    writing.off()
    for command in ("run", "backfill", "publish", "migrate"):
        done = world.enrich_here(command, outage_seconds=1)
        assert done.returncode == 3, (command, done.stderr)
        last = done.stderr.splitlines()[-1]
        assert last.startswith("enrich: Postgres") and "read-only" in last and "bug" not in last
    assert world.enrich_here("status").returncode == 0, "reading goes on"


def test_check_shows_it(world: World, writing: Switch) -> None:
    world.listing("1", "balcony")
    writing.off()
    checked = world.enrich_here("check")
    assert checked.returncode == 2
    (cross,) = [line for line in checked.stdout.splitlines() if line.startswith("✗")]
    assert "database" in cross and "takes no writes" in cross and "DATABASE_URL" in cross
    writing.on()
    assert world.enrich_here("check").returncode == 0


def test_the_portals_tables_may_be_on_a_server_that_is_read_only(
    world: World, writing: Switch, database_url: str
) -> None:
    world.listing("1", "balcony")
    writing.off()
    world.fixed |= {"source_database_url": world.portal.url, "database_url": database_url}
    for command in ("migrate", "check", "run"):
        done = world.enrich_here(command)
        assert done.returncode == 0, done.stdout + done.stderr
    assert world.documents().keys() == {"1"}
