"""Times that go backwards, stand still or come late: discovery compares, and believes no clock."""

from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import text

from enrich.source.portal import Source
from tests.faults.conftest import Record
from tests.faults.town import BRIEF, HOMES, Town
from tests.support.harness import World

NOW = datetime(2026, 3, 1, 3, 30, tzinfo=UTC)


def new_bytes(world: World, id: str, shows: str = "kitchen") -> None:
    """Another picture behind the URL of a home's first photo, which no version tells of."""
    world.photo(shows, 9_999, f"/{id}/0.jpg")


def with_photos(world: World) -> list[str]:
    rows = world.portal.execute(
        "SELECT DISTINCT listing_id FROM listing_images WHERE position = 0 ORDER BY 1"
    )
    return [id for (id,) in rows]


def test_updated_at_goes_backwards(town: Town, record: Record) -> None:
    """Each night the portal's clock is an hour earlier, and three homes have new bytes."""
    world = town.world
    world.portal.execute("UPDATE listings SET updated_at = :now", now=NOW)
    assert world.run(settings=BRIEF).exit_code == 0
    unseen = 0
    homes = with_photos(world)[:9]
    for night in range(3):
        changed = homes[3 * night : 3 * night + 3]
        for id in changed:
            new_bytes(world, id)
            world.portal.execute(
                "UPDATE listings SET updated_at = :then WHERE id = :id",
                then=NOW - timedelta(hours=night + 1),
                id=id,
            )
        report = world.run(settings={**BRIEF, "revalidate_after": 0.0})
        assert report.discovery is not None and report.discovery.revalidated == len(changed)
        found = world.documents()
        unseen += sum("kitchen" not in found[id]["room_types"] for id in changed)
    record("clock-back", "Changes at an updated_at that lies before the last one", len(homes), losses=unseen)
    assert unseen == 0


def test_equal_times_across_the_border_of_a_page(town: Town, record: Record) -> None:
    """A bulk import: the time tells nothing, and what is new lies between what is known."""
    world = town.world
    world.portal.execute("UPDATE listings SET updated_at = :now", now=NOW)
    later = [f"home-{number:02}" for number in range(0, HOMES, 3)]
    world.portal.execute("UPDATE listings SET active = false WHERE id = ANY(:ids)", ids=later)
    world.portal.execute("UPDATE listings SET price = price + 1000 WHERE price % 7 = 1")
    for page_size in (1, 7):
        assert world.run(settings={**BRIEF, "page_size": page_size}).exit_code == 0
        if page_size == 1:
            world.portal.execute("UPDATE listings SET active = NULL WHERE id = ANY(:ids)", ids=later)
            world.portal.execute("UPDATE listings SET price = price - 1000 WHERE price > 1000")
    losses = town.losses()
    record("clock-equal", "Homes of one and the same updated_at, in pages of 1 and 7", HOMES, losses=losses)
    assert losses == 0 and town.settled()


def test_rows_that_are_committed_late(
    town: Town, beside: ThreadPoolExecutor, record: Record, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A transaction of the portal that began before the run ends between two of its pages, another after it.

    Their times lie before the run's start, and their ids on both sides of where the run is.
    """
    world = town.world
    late = [f"home-{number:02}" for number in (1, 2, 31, 32, 57, 58)]
    world.portal.execute("CREATE TABLE kept AS SELECT * FROM listings WHERE id = ANY(:ids)", ids=late)
    world.portal.execute("DELETE FROM listings WHERE id = ANY(:ids)", ids=late)
    insert = text("INSERT INTO listings SELECT * FROM kept WHERE id = ANY(:ids)")
    first, second = world.portal.engine.connect(), world.portal.engine.connect()
    first.execute(insert, {"ids": late[::2]})
    second.execute(insert, {"ids": late[1::2]})

    read = Source.by_ids
    pages: list[int] = []

    def by_ids(self: Source, ids: Any) -> Any:
        pages.append(len(ids))
        if len(pages) == 3:
            first.commit()
        return read(self, ids)

    monkeypatch.setattr(Source, "by_ids", by_ids)
    assert world.run(settings=BRIEF).exit_code == 0
    second.commit()
    first.close()
    second.close()
    assert len(pages) > 3
    assert world.run(settings=BRIEF).exit_code == 0
    losses = town.losses()
    record("clock-late", "Rows committed after a run has passed them", len(late), losses=losses)
    assert losses == 0 and town.settled()
