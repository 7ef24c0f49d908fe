"""Servers that go away for a while: nothing is lost, and everything is published in the end."""

import json
import logging
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from enrich.errors import OutageError
from jobs.run.record import RunReport
from tests.support.gate import Gate
from tests.support.harness import World, assert_same, until
from tests.support.photo_server import PhotoServer
from tests.support.postgres import Portal, PostgresServer
from tests.support.proxy import Answer, Proxy, Request
from tests.support.search_server import ElasticsearchServer
from tests.support.wire import Wire

ROOMS = ("kitchen", "bedroom", "bathroom")
WAITS = {"fetch_timeout": 120.0, "outage_seconds": 120.0, "publish_batch": 4}
OVERLOADED = {"type": "es_rejected_execution_exception", "reason": "the queue is full"}


def homes(world: World, count: int = 9) -> dict[str, list[str]]:
    """Homes that each show one room, in turn; the URLs of their photos by id."""
    return {f"home-{n}": world.listing(f"home-{n}", ROOMS[n % 3], price=n) for n in range(count)}


def assert_complete(world: World, count: int = 9) -> None:
    """Everything is enriched, and every document is there and right."""
    assert set(world.statuses().values()) == {"done"}
    documents = world.documents()
    assert {id: (d["room_types"], d["price"]) for id, d in documents.items()} == {
        f"home-{n}": ([ROOMS[n % 3]], n) for n in range(count)
    }


@pytest.fixture
def stoppable(
    migrated: Portal,
    photo_server: PhotoServer,
    elasticsearch_server: ElasticsearchServer,
    index_name: str,
    tiny_bundle: Path,
) -> Iterator[World]:
    """A world on a server that the test may stop."""
    world = World(migrated, photo_server, elasticsearch_server.url, index_name, tiny_bundle)
    yield world
    elasticsearch_server.start()
    world.close()


def comes_back(
    start: Callable[[], None], running: Future[RunReport], caplog: pytest.LogCaptureFixture
) -> None:
    """Start the index again once the run misses it, and let the run publish all nine homes."""
    until(lambda: "index away" in caplog.text or running.done(), "the run misses its index")
    assert not running.done()
    start()
    report = running.result()
    assert report.exit_code == 0 and report.published.written == 9


def test_elasticsearch_stopped_and_started_during_a_run(
    stoppable: World,
    elasticsearch_server: ElasticsearchServer,
    gate: Gate,
    beside: ThreadPoolExecutor,
    caplog: pytest.LogCaptureFixture,
) -> None:
    photos = homes(stoppable)
    gate.holds(stoppable.photos, *photos["home-7"], *photos["home-8"])
    running = beside.submit(stoppable.run, settings=WAITS)
    until(lambda: len(stoppable.documents()) == 7, "what is enriched is published")
    elasticsearch_server.stop()
    gate.open()
    comes_back(elasticsearch_server.start, running, caplog)
    assert_complete(stoppable)


def test_elasticsearch_away_at_the_start_of_a_run_is_waited_for(
    world: World, elasticsearch_wire: Wire, beside: ThreadPoolExecutor, caplog: pytest.LogCaptureFixture
) -> None:
    homes(world)
    world.fixed["elasticsearch_url"] = f"http://127.0.0.1:{elasticsearch_wire.port}"
    elasticsearch_wire.down()
    running = beside.submit(world.run, settings=WAITS)
    until(lambda: set(world.statuses().values()) == {"done"} or running.done(), "all are enriched")
    comes_back(elasticsearch_wire.up, running, caplog)
    assert_complete(world)


@pytest.fixture
def behind(world: World, elasticsearch_proxy: Proxy) -> World:
    """A world whose job reaches the index through the proxy."""
    world.fixed["elasticsearch_url"] = elasticsearch_proxy.url
    return world


@pytest.mark.parametrize("status", [429, 503])
def test_an_index_that_turns_requests_away_for_a_while(
    behind: World, elasticsearch_proxy: Proxy, status: int
) -> None:
    def answer(request: Request) -> Answer | None:
        busy = len(elasticsearch_proxy.requests) <= 2 or len(elasticsearch_proxy.sent("_bulk")) in (1, 3, 4)
        return Answer(status) if busy else None

    homes(behind)
    elasticsearch_proxy.answer = answer
    report = behind.run(settings=WAITS)
    assert report.exit_code == 0 and report.published.written == 9
    assert len(elasticsearch_proxy.sent("_bulk")) >= 3 + 3, "three turned away, three let through"
    assert_complete(behind)


def test_an_index_that_puts_off_some_documents_of_a_batch(behind: World, elasticsearch_proxy: Proxy) -> None:
    written: list[str] = []
    again: list[str] = []

    def answer(request: Request) -> Answer | None:
        """Three times the first document of a batch is put off, and the others are written."""
        if "_bulk" not in request.path:
            return None
        lines = request.body.splitlines()
        ids = [json.loads(line)["index"]["_id"] for line in lines[::2]]
        again.extend(id for id in ids if id in written)
        if len(elasticsearch_proxy.sent("_bulk")) > 3:
            return None
        items = [{"index": {"_id": ids[0], "status": 429, "error": OVERLOADED}}]
        if rest := lines[2:]:
            operations: Any = rest
            items += behind.elasticsearch.bulk(operations=operations, index=behind.index)["items"]
            written.extend(ids[1:])
        return Answer(200, {"errors": True, "items": items})

    homes(behind)
    elasticsearch_proxy.answer = answer
    report = behind.run(settings={**WAITS, "publish_batch": 500})
    assert report.exit_code == 0 and report.published.written == 9
    assert written and not again, "only what was put off is sent again"
    assert_complete(behind)


def away_for_bulks(world: World, proxy: Proxy, status: int, done: int) -> None:
    """The index turns documents away, the first of them once so many homes are enriched."""

    def answer(request: Request) -> Answer | None:
        if "_bulk" not in request.path:
            return None
        until(lambda: list(world.statuses().values()).count("done") == done, f"{done} homes are enriched")
        return Answer(status)

    proxy.answer = answer


def test_an_index_away_for_too_long_stops_the_run_and_the_next_one_publishes(
    behind: World, elasticsearch_proxy: Proxy
) -> None:
    homes(behind)
    away_for_bulks(behind, elasticsearch_proxy, 503, done=9)
    stopped = behind.enrich("run", outage_seconds=1)
    assert stopped.returncode == 3 and "Traceback" not in stopped.stderr
    assert "nothing is lost" in stopped.stderr.splitlines()[-1]
    assert behind.portal.execute("SELECT exit_code FROM enrichment.run") == [(3,)]
    assert set(behind.statuses().values()) == {"done"}
    assert behind.documents() == {}

    elasticsearch_proxy.clear()
    assert behind.run().published.written == 9
    assert behind.requests() == 9, "nothing is fetched twice"
    assert_complete(behind)


def test_an_index_away_for_too_long_in_the_middle_gives_the_leases_back(
    behind: World, elasticsearch_proxy: Proxy, gate: Gate, beside: ThreadPoolExecutor
) -> None:
    photos = homes(behind)
    gate.holds(behind.photos, *photos["home-8"])
    away_for_bulks(behind, elasticsearch_proxy, 429, done=8)
    running = beside.submit(behind.run, settings={**WAITS, "outage_seconds": 1.0})
    with pytest.raises(OutageError, match="429"):  # although a photo still hangs
        running.result(timeout=60)
    assert behind.statuses() == {**dict.fromkeys(photos, "done"), "home-8": "pending"}
    assert behind.portal.state("home-8").attempts == 0
    elasticsearch_proxy.clear()
    gate.open()
    assert behind.run().exit_code == 0
    assert_complete(behind)


def drop_index(world: World) -> None:
    world.drop_indices()


def drop_alias(world: World) -> None:
    world.elasticsearch.indices.delete_alias(index=f"{world.index}-*", name=world.index)


@pytest.mark.parametrize("drop", [drop_index, drop_alias])
def test_an_index_that_is_dropped_is_published_again_from_state(
    world: World, drop: Callable[[World], None]
) -> None:
    homes(world)
    world.run()
    before = world.documents()
    world.photos.forget()
    drop(world)
    assert world.documents() == {}
    report = world.run()
    assert (report.exit_code, report.published.written, report.figures.scored) == (0, 9, 0)
    assert world.requests() == 0
    assert_same(world.documents(), before)


def test_an_index_that_is_dropped_during_a_run(world: World, gate: Gate, beside: ThreadPoolExecutor) -> None:
    photos = homes(world)
    gate.holds(world.photos, *photos["home-8"])
    running = beside.submit(world.run, settings=WAITS)
    until(lambda: len(world.documents()) == 8, "what is enriched is published")
    world.drop_indices()
    gate.open()
    assert running.result().exit_code == 0
    assert_complete(world)
    assert world.requests() == 9


def test_whole_nights_on_each_version_of_the_server(world_of_each_version: World) -> None:
    world = world_of_each_version
    homes(world)
    assert world.run().published.written == 9
    assert_complete(world)
    versions = world.versions()
    assert world.run().exit_code == 0 and world.versions() == versions

    world.portal.execute("UPDATE listings SET price = 100 WHERE id = 'home-0'")
    world.portal.execute("UPDATE listings SET active = false WHERE id = 'home-1'")
    world.portal.add_photo("home-2", 1, world.photo("balcony", 1, "/home-2/1.jpg"))
    world.listing("home-9", "fireplace")
    report = world.run()
    assert (report.published.written, report.published.removed) == (3, 1)
    documents = world.documents()
    assert documents.keys() == {f"home-{n}" for n in range(10)} - {"home-1"}
    assert documents["home-0"]["price"] == 100
    assert world.matching({"term": {"has_balcony": True}}) == {"home-2"}
    assert world.matching({"term": {"has_fireplace": True}}) == {"home-9"}

    world.portal.execute("UPDATE listings SET active = true WHERE id = 'home-1'")
    world.drop_indices()
    assert world.run().published.written == 10
    assert world.requests() == 11


def test_postgres_killed_and_started_again_during_a_run(
    on_own_postgres: World,
    postgres_server: PostgresServer,
    gate: Gate,
    beside: ThreadPoolExecutor,
    caplog: pytest.LogCaptureFixture,
) -> None:
    world = on_own_postgres
    photos = homes(world)
    gate.holds(world.photos, *photos["home-7"], *photos["home-8"])
    running = beside.submit(world.run, settings=WAITS)
    until(lambda: len(world.documents()) == 7, "what is enriched is published")
    world.portal.engine.dispose()
    with caplog.at_level(logging.WARNING, "enrich.state.database"):
        postgres_server.stop("immediate")
        gate.open()
        until(lambda: "trying again" in caplog.text or running.done(), "the run misses its database")
        assert not running.done()
        postgres_server.start()
    report = running.result()
    assert report.exit_code == 0
    assert_complete(world)
    assert world.requests() == 9 and report.figures.listings == 9
    assert world.portal.execute("SELECT exit_code FROM enrichment.run") == [(0,)]
