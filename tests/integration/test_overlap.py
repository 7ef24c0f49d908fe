"""Two runs overlap, because the database was away for longer than the first one's lock lasts."""

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from threading import Event

import pytest

import migrations
from enrich.errors import LockLostError
from enrich.settings import Settings, load_settings
from enrich.source.discover import Discovery, discover
from enrich.source.portal import Source, SourceListing
from enrich.state.database import Database
from enrich.state.locks import Locks
from tests.support.postgres import PORTAL_TABLES, Portal, PostgresServer

LEASE = 2.0
PUBLISHED, VANISHED = 100, 50


class Halting(Source):
    """A source whose reader stands still before its third page."""

    def __init__(self, database: Database, settings: Settings) -> None:
        super().__init__(database, settings)
        self.reached, self.go_on = Event(), Event()
        self._pages = 0

    def by_ids(self, ids: Sequence[str]) -> list[SourceListing]:
        self._pages += 1
        if self._pages == 3:
            self.reached.set()
            assert self.go_on.wait(60)
        return super().by_ids(ids)


class Night:
    """One run's discovery in a process of its own, as far as the database can tell."""

    def __init__(self, url: str, run_id: int, lease: float) -> None:
        self.database = Database(url, patience=60)
        self.run_id, self.lease = run_id, lease
        self.settings = load_settings(page_size=20)
        self.source = Halting(self.database, self.settings)

    def discover(self) -> Discovery:
        with Locks(self.database).hold("discover", self.lease) as hold:
            return discover(self.source, self.database, self.settings, self.run_id, check=hold.check)


@pytest.fixture
def nights(postgres_server: PostgresServer) -> Iterator[list[Night]]:
    """Two runs on a portal where half of the published listings vanished."""
    migrations.upgrade(postgres_server.url)
    portal = Portal(postgres_server.url)
    portal.execute(PORTAL_TABLES)
    portal.execute(
        "INSERT INTO listings (id) SELECT 't' || n FROM generate_series(:first, :last) n",
        first=VANISHED + 1,
        last=PUBLISHED,
    )
    portal.execute(
        "INSERT INTO enrichment.listing (id, photo_fp, doc_fp, status, revision)"
        " SELECT 't' || n, '', '', 'done', 1 FROM generate_series(1, :last) n",
        last=PUBLISHED,
    )
    portal.published(*(f"t{n}" for n in range(1, PUBLISHED + 1)))
    portal.engine.dispose()
    nights = [Night(postgres_server.url, 1, LEASE), Night(postgres_server.url, 2, 60.0)]
    yield nights
    for night in nights:
        night.source.go_on.set()
        night.database.close()


def test_a_run_that_lost_its_lock_ends_and_the_guard_of_the_next_counts_all(
    nights: list[Night], postgres_server: PostgresServer
) -> None:
    first, second = nights
    with ThreadPoolExecutor(2) as beside:
        one = beside.submit(first.discover)
        assert first.source.reached.wait(30)  # part of the removals is staged
        postgres_server.stop("immediate")
        first.source.reached.clear()
        assert not first.source.reached.wait(1.5 * LEASE)
        postgres_server.start()
        two = beside.submit(second.discover)
        assert second.source.reached.wait(30), "the lock is free"
        first.source.go_on.set()
        with pytest.raises(LockLostError, match="was lost") as lost:
            one.result(timeout=60)
        assert lost.value.exit_code == 3
        second.source.go_on.set()
        found = two.result(timeout=60)
    assert found.refusal is not None and f"{VANISHED} of {PUBLISHED}" in found.refusal
    portal = Portal(postgres_server.url)
    assert portal.execute("SELECT DISTINCT status FROM enrichment.listing") == [("done",)]
    assert portal.execute("SELECT count(*) FROM enrichment.removal") == [(0,)]
    portal.engine.dispose()
