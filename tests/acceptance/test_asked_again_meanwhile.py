"""A run that lasts for hours: what a person, or another worker, does to a photo that it has asked for."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from enrich.model.aggregate import aggregate
from enrich.state.database import Database
from enrich.state.requests import Requests
from tests.support.gate import Gate
from tests.support.harness import World, until
from tests.support.photo_server import FINE, status

PATH = "/shared/0.jpg"


@pytest.fixture
def running(world: World, gate: Gate, beside: ThreadPoolExecutor) -> Iterator[World]:
    """A run is under way, and has done with the listing `shared`: its photo was gone at first."""
    world.listing("shared", "kitchen")
    world.photos.behave(PATH, status(410), FINE)
    gate.holds(world.photos, *world.listing("slow", "balcony"))
    run = beside.submit(world.run, settings={"fetch_timeout": 120.0})
    until(lambda: world.statuses().get("shared") == "done", "it is done")
    assert world.photo_statuses("shared") == ["gone"]
    yield world
    gate.open()
    assert run.result().exit_code == 0
    assert world.statuses() == {"shared": "done", "slow": "done"}


def asked_again(world: World) -> None:
    with_retry = Database(world.portal.url)
    Requests(with_retry).retry(["shared"])
    with_retry.close()


def test_a_photo_that_failed_for_good_is_asked_for_again_by_the_same_run(running: World) -> None:
    running.photos.behave(PATH, status(410), FINE)
    for requests in (2, 3):
        asked_again(running)
        until(lambda n=requests: running.requests(PATH) == n, "it is asked for again")  # type: ignore[misc]
        until(lambda: running.statuses()["shared"] == "done", "it is done")
    assert running.photo_statuses("shared") == ["ok"]


def test_other_bytes_that_another_worker_saw_are_fetched_by_the_same_run(running: World) -> None:
    asked_again(running)
    until(lambda: running.photo_statuses("shared") == ["ok"], "the photo is well")
    running.portal.execute("UPDATE enrichment.photo SET sha256 = repeat('f', 64), checked_at = now()")
    running.portal.execute(
        "UPDATE enrichment.listing SET status = 'pending', requested = requested + 1 WHERE id = 'shared'"
    )
    until(lambda: running.requests(PATH) == 3, "its bytes are asked for")
    until(lambda: running.statuses()["shared"] == "done", "it is done")


def test_a_photo_that_changed_is_asked_for_once_by_all_listings_that_share_it(world: World) -> None:
    url = world.photo("kitchen", 1, PATH)
    for id in "abc":
        world.portal.add(id, [url], version="v1")
    assert world.run().exit_code == 0 and world.requests(PATH) == 1
    world.photos.forget()
    world.photo("balcony", 2, PATH)
    world.portal.execute("UPDATE listing_images SET version = 'v2'")
    assert world.run().exit_code == 0
    assert world.requests(PATH) == 1


def test_a_photo_that_fails_for_good_when_tried_again_is_asked_for_once(world: World) -> None:
    url = world.photo("kitchen", 1, PATH)
    for id in "abc":
        world.portal.add(id, [url])
    world.photos.behave(PATH, status(500))
    world.run()
    world.photos.behave(PATH, status(410))
    world.portal.execute("UPDATE enrichment.photo SET next_try = now()")
    world.portal.execute("UPDATE enrichment.listing SET status = 'pending', not_before = NULL")
    world.photos.forget()
    assert world.run().exit_code == 0
    assert world.requests(PATH) == 1


def test_what_breaks_on_a_listing_that_is_asked_for_again_meanwhile_is_no_news(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A person tries it again, or its photos changed, while it is in the hands of the run."""
    world.listing("cursed", "kitchen")
    breaks = iter([True])

    def picky(bundle: Any, results: Any, least: int) -> Any:
        if next(breaks, False):
            world.portal.execute("UPDATE enrichment.listing SET requested = requested + 1")
            raise ValueError("cannot make sense of it")
        return aggregate(bundle, results, least)

    monkeypatch.setattr("enrich.pipeline.listing.aggregate", picky)
    report = world.run()
    assert world.statuses() == {"cursed": "done"}
    figures = report.figures
    assert (report.exit_code, figures.quarantined, figures.stale, figures.listings) == (0, 0, 1, 1)
    world.photos.forget()
    assert world.backfill().exit_code == 0 and world.requests() == 0, "its photo is known"
