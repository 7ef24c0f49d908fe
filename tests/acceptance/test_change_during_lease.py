"""What changes while a listing is being enriched is not lost: photos, overrides, deactivation."""

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from threading import Event
from typing import Any

import pytest

from jobs.run import nightly
from tests.support.harness import World, until
from tests.support.photo_server import FINE, Answer, Step

SLOW = {"fetch_timeout": 60.0}


def held(release: Event) -> Step:
    """The photo as it is, but only after `release`."""

    def step(answer: Answer) -> None:
        while not release.wait(0.05) and not answer.photos.stopping.is_set():
            continue
        FINE(answer)

    return step


@pytest.fixture
def release(world: World) -> Iterator[Event]:
    """Set by a test to let held photos go; set at the end in any case, so that no thread waits for ever."""
    event = Event()
    yield event
    event.set()


@pytest.fixture
def beside() -> Iterator[ThreadPoolExecutor]:
    """Runs a job beside the test."""
    with ThreadPoolExecutor(2) as pool:
        yield pool


@pytest.fixture
def house(world: World, beside: ThreadPoolExecutor, release: Event) -> World:
    """A house whose first photo hangs until `release`."""
    world.listing("house", "kitchen", "bedroom")
    world.photos.behave("/house/0.jpg", held(release))
    return world


def being_enriched(world: World) -> bool:
    return world.requests("/house/0.jpg") > 0 and world.statuses().get("house") == "leased"


def test_photos_changed_while_the_run_works_on_them(
    house: World, beside: ThreadPoolExecutor, release: Event
) -> None:
    first = beside.submit(house.run, settings=SLOW)
    until(lambda: being_enriched(house), "the house is being enriched")
    house.portal.add_photo("house", 2, house.photo("balcony", 1, "/house/2.jpg"))
    release.set()
    first.result()
    assert "has_balcony" not in house.documents()["house"]
    house.run()
    assert house.documents()["house"]["has_balcony"] is True
    assert house.requests("/house/2.jpg") == 1


def just_before_work(monkeypatch: pytest.MonkeyPatch, changes: Callable[[], object]) -> None:
    """What the portal does between a run's discovery and its work; once."""
    work = nightly.enrich_and_publish

    def changed(*given: Any, **named: Any) -> None:
        monkeypatch.setattr(nightly, "enrich_and_publish", work)
        changes()
        work(*given, **named)

    monkeypatch.setattr(nightly, "enrich_and_publish", changed)


def test_bytes_changed_while_the_listing_waited_for_something_else(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    world.listing("house", "kitchen", "bedroom")
    world.run()
    world.portal.add_photo("house", 2, world.photo("bathroom", 1, "/house/2.jpg"))

    def changes() -> None:
        world.photo("balcony", 1, "/house/1.jpg")
        world.portal.touch("house")

    just_before_work(monkeypatch, changes)
    world.run()
    assert "has_balcony" not in world.documents()["house"]
    world.run()
    assert world.documents()["house"]["has_balcony"] is True


def test_since_finds_what_the_portal_changed_while_it_waited(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    world.listing("house", "kitchen")
    just_before_work(monkeypatch, lambda: world.portal.touch("house"))
    before = datetime.now(UTC)
    world.run()
    assert world.backfill(since=before).marked == 1


def test_photos_changed_and_discovered_while_another_process_works_on_them(
    house: World, beside: ThreadPoolExecutor, release: Event
) -> None:
    release.set()
    house.run()
    release.clear()
    house.photos.forget()
    backfill = beside.submit(house.backfill, revalidate=True, settings=SLOW)
    until(lambda: being_enriched(house), "the house is being enriched")
    house.portal.add_photo("house", 2, house.photo("balcony", 1, "/house/2.jpg"))
    nightly = beside.submit(house.run, settings=SLOW)
    until(lambda: house.portal.state("house").requested == 3, "the other run discovered the photo")
    assert house.statuses() == {"house": "leased"}
    release.set()
    reports = (backfill.result(), nightly.result())
    assert house.documents()["house"]["has_balcony"] is True
    assert house.statuses() == {"house": "done"}
    assert house.requests("/house/2.jpg") == 1 and sum(r.figures.scored for r in reports) == 1


@pytest.mark.parametrize("earlier", [False, True], ids=["first time", "again"])
def test_override_while_the_listing_is_enriched(
    house: World, beside: ThreadPoolExecutor, release: Event, earlier: bool
) -> None:
    if earlier:
        release.set()
        house.run()
        release.clear()
        house.photos.forget()
    run = beside.submit(house.run, revalidate=earlier, settings=SLOW)
    until(lambda: being_enriched(house), "the house is being enriched")
    said = house.enrich("override", "house", "has_balcony=true", "--note", "seen from the street")
    assert said.returncode == 0, said.stderr
    assert house.statuses() == {"house": "leased"}
    release.set()
    run.result()
    document = house.documents()["house"]
    assert document["has_balcony"] is True and document["balcony_confidence"] == 1.0
    evidence = document["evidence"]["balcony"]
    assert evidence["override"] is True and evidence["model_confidence"] < 0.5
    assert document["room_types"] == ["bedroom", "kitchen"]


def test_listing_deactivated_while_it_is_enriched(
    house: World, beside: ThreadPoolExecutor, release: Event
) -> None:
    house.listing("flat", "bathroom")
    release.set()
    house.run()
    release.clear()
    house.photos.forget()
    backfill = beside.submit(house.backfill, revalidate=True, settings=SLOW)
    until(lambda: being_enriched(house), "the house is being enriched")
    house.portal.execute("UPDATE listings SET active = false WHERE id = 'house'")
    house.run()
    assert house.statuses()["house"] == "gone"
    release.set()
    assert backfill.result().figures.stale == 1
    assert house.documents().keys() == {"flat"}
    assert house.statuses()["house"] == "gone"
