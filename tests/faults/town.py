"""A small town, and the documents of a run that nothing disturbs: what every fault is compared with."""

import json
import random
import re
from typing import Any

from tests.support.harness import World, assert_same

KINDS = ("kitchen", "bedroom", "bathroom", "balcony", "fireplace", "other")
CITIES = ("Solna", "Täby", "Lund")
HOMES = 60
BRIEF: dict[str, Any] = {"page_size": 10, "publish_batch": 7, "outage_seconds": 120.0}
"""Many pages and batches in a small town, and time for whatever is away to come back."""
_HOST = re.compile(r"http://127\.0\.0\.1:\d+")


def build(world: World) -> int:
    """Homes of up to eight photos; every fifth shares one with others. How many photos it are."""
    dice = random.Random(10)
    shared = world.photo("balcony", 1, "/shared.jpg")
    photos = 0
    for number in range(HOMES):
        id = f"home-{number:02}"
        shown = dice.choices(KINDS, k=dice.randint(0, 8))
        world.listing(id, *shown, city=dice.choice(CITIES), price=number)
        photos += len(shown)
        if number % 5 == 0:
            world.portal.add_photo(id, 9, shared)
            photos += 1
    return photos


def prepare_index(world: World) -> None:
    """In merge mode the portal has written its documents."""
    if world.fixed.get("index_mode") == "merge":
        world.elasticsearch.indices.create(index=world.index)
        for row in world.portal.execute("SELECT id, city FROM listings"):
            world.elasticsearch.index(index=world.index, id=row.id, document={"city": row.city})


def documents(world: World) -> dict[str, Any]:
    """All documents by id, whatever port the photo host has."""
    found: dict[str, Any] = json.loads(_HOST.sub("http://photos", json.dumps(world.documents())))
    return found


class Town:
    """A world with the town in its portal; `expected` are its documents after an undisturbed run."""

    def __init__(self, world: World, photos: int, expected: dict[str, Any]) -> None:
        self.world, self.photos, self.expected = world, photos, expected

    def had_another_past(self) -> None:
        """A night ago there were other homes and prices, which are in the index."""
        execute = self.world.portal.execute
        gone = [f"gone-{number}" for number in range(8)]
        for id in gone:
            self.world.listing(id, "kitchen")
        execute("UPDATE listings SET price = price + 1000 WHERE price % 2 = 1")
        assert self.world.run(settings=BRIEF).exit_code == 0
        execute("UPDATE listings SET price = price - 1000 WHERE price > 1000")
        for id in gone:
            self.world.portal.remove(id)

    def losses(self) -> int:
        """Documents that are not as after an undisturbed run, and listings that are not done."""
        found = documents(self.world)
        undone = [id for id, status in self.world.statuses().items() if status not in ("done", "gone")]
        wrong = [id for id in found.keys() | self.expected if not _same(found.get(id), self.expected.get(id))]
        return len({*undone, *wrong})

    def hours_later(self) -> None:
        """What is to be tried again some time is due now."""
        execute = self.world.portal.execute
        execute("UPDATE enrichment.photo SET next_try = now() WHERE next_try IS NOT NULL")
        execute("UPDATE enrichment.listing SET not_before = now() WHERE not_before IS NOT NULL")

    def settled(self) -> bool:
        """Whether another run requests no photo and writes no document."""
        self.world.photos.forget()
        writes = self.world.writes()
        report = self.world.run()
        return report.exit_code == 0 and self.world.requests() == 0 and self.world.writes() == writes


def _same(found: Any, expected: Any) -> bool:
    try:
        assert_same(found, expected)
    except AssertionError:
        return False
    return True
