"""Whatever happens in whatever order: after one more clean run the documents are those of a model."""

import signal
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from zlib import crc32

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, precondition, rule, run_state_machine_as_test

from enrich.state.database import Database
from enrich.state.overrides import Overrides
from enrich.state.schema import metadata
from jobs.run.reindex import REINDEX as REINDEX_LOCK
from jobs.run.reindex import reindex
from jobs.run.stop import Stop
from tests.faults.conftest import Record
from tests.support.boundaries import BOUNDARIES
from tests.support.bundles import binary_head, make_bundle, room_head
from tests.support.harness import World
from tests.support.killer import interrupted, wait_for_the_lock

ENOUGH = 2  # photos that no takes
BRIEF: dict[str, Any] = {"lease_seconds": 2.0, "publish_batch": 3, "page_size": 4, "min_photos_false": ENOUGH}
IDS = [f"home-{number}" for number in range(8)]
SHOWN = ("kitchen", "bedroom", "balcony", "fireplace", "other")
PHOTOS = [f"/{number}.jpg" for number in range(10)]  # what listings show, many of them the same
CRASHES = [name for name, one in BOUNDARIES.items() if one.command in (("run",), ("backfill",), ("reindex",))]

ids, photos, kinds = st.sampled_from(IDS), st.sampled_from(PHOTOS), st.sampled_from(SHOWN)
cities, prices = st.sampled_from(["Solna", "Täby"]), st.integers(0, 99)


@dataclass
class Home:
    """A listing of the portal, as the model has it."""

    city: str
    price: int
    photos: list[str] = field(default_factory=list)


class Machine(RuleBasedStateMachine):
    """The job on a world, and the model beside it."""

    def __init__(self, world: World, bundles: Mapping[bool, Path]) -> None:
        super().__init__()
        self.world, self.bundles = world, bundles
        self.homes: dict[str, Home] = {}
        self.shown = dict.fromkeys(PHOTOS, "other")
        self.said: dict[str, bool] = {}
        self.strict = False
        tables = ", ".join(table.fullname for table in metadata.sorted_tables)
        world.portal.execute(f"TRUNCATE listings, listing_images, {tables}")
        world.drop_indices()
        world.fixed["bundle"] = bundles[False]
        for number, path in enumerate(PHOTOS):
            self.other_bytes(path, SHOWN[number % len(SHOWN)])
        for number, id in enumerate(IDS[:5]):
            self.add(id, "Solna", number, PHOTOS[number : 2 * number + 1])

    # The portal

    @rule(id=ids, city=cities, price=prices, paths=st.lists(photos, max_size=4, unique=True))
    def add(self, id: str, city: str, price: int, paths: list[str]) -> None:
        self.homes[id] = Home(city, price, paths)
        self.world.portal.add(id, [self.world.photos.url(path) for path in paths], city=city, price=price)

    @precondition(lambda self: self.homes)
    @rule(data=st.data(), price=prices)
    def edit(self, data: st.DataObject, price: int) -> None:
        id = data.draw(st.sampled_from(sorted(self.homes)))
        self.homes[id].price = price
        self.world.portal.execute("UPDATE listings SET price = :price WHERE id = :id", price=price, id=id)

    @precondition(lambda self: self.homes)
    @rule(data=st.data())
    def remove(self, data: st.DataObject) -> None:
        id = data.draw(st.sampled_from(sorted(self.homes)))
        del self.homes[id]
        self.world.portal.remove(id)

    @precondition(lambda self: self.homes)
    @rule(data=st.data(), path=photos)
    def add_photo(self, data: st.DataObject, path: str) -> None:
        id = data.draw(st.sampled_from(sorted(self.homes)))
        if path not in self.homes[id].photos:
            self.homes[id].photos.append(path)
            position = PHOTOS.index(path) + 10
            self.world.portal.add_photo(id, position, self.world.photos.url(path))

    @precondition(lambda self: any(home.photos for home in self.homes.values()))
    @rule(data=st.data())
    def take_photo_away(self, data: st.DataObject) -> None:
        id = data.draw(st.sampled_from(sorted(id for id, home in self.homes.items() if home.photos)))
        url = self.world.photos.url(self.homes[id].photos.pop())
        self.world.portal.execute(
            "DELETE FROM listing_images WHERE listing_id = :id AND url = :url", id=id, url=url
        )

    @rule(path=photos, kind=kinds)
    def other_bytes(self, path: str, kind: str) -> None:
        """Another picture under the same URL, in all listings that show it."""
        self.shown[path] = kind
        self.world.photo(kind, crc32(path.encode()), path)

    # People

    @precondition(lambda self: self.known())
    @rule(data=st.data(), value=st.sampled_from([True, False, None]))
    def override(self, data: st.DataObject, value: bool | None) -> None:
        id = data.draw(st.sampled_from(sorted(self.known())))
        database = Database(self.world.portal.url)
        if value is None:
            Overrides(database).clear_override(id, "has_balcony")
            self.said.pop(id, None)
        else:
            Overrides(database).set_override(id, "has_balcony", value, None, None)
            self.said[id] = value
        database.close()

    @rule()
    def another_bundle(self) -> None:
        self.strict = not self.strict
        self.world.fixed["bundle"] = self.bundles[self.strict]

    # The job

    @rule(revalidate=st.booleans())
    def run(self, revalidate: bool) -> None:
        report = self.world.run(settings=BRIEF, allow_removals=True, revalidate=revalidate, wait=True)
        assert report.exit_code == 0

    @rule(boundary=st.sampled_from(CRASHES), count=st.integers(1, 3))
    def crash(self, boundary: str, count: int) -> None:
        command = BOUNDARIES[boundary].command
        options = ("--allow-removals",) if command == ("run",) else ()
        code = interrupted(self.world, boundary, count, *command, *options, **BRIEF)
        assert code in (0, 3, 75, -signal.SIGKILL)

    @rule()
    def lose_the_index(self) -> None:
        self.world.drop_indices()

    @rule()
    def reindex(self) -> None:
        wait_for_the_lock(self.world, REINDEX_LOCK)
        assert reindex(self.world.settings(**BRIEF), 1, Stop()).exit_code == 0

    # The model

    def known(self) -> set[str]:
        """Listings that somebody may say something of."""
        return {id for id in self.world.statuses() if id in self.homes}

    def expected(self) -> dict[str, dict[str, Any]]:
        return {id: self.document(id, home) for id, home in self.homes.items()}

    def document(self, id: str, home: Home) -> dict[str, Any]:
        shown = {self.shown[path] for path in home.photos}
        no = False if len(home.photos) >= ENOUGH else None
        balcony = (None if self.strict else True) if "balcony" in shown else no
        return {
            "city": home.city,
            "price": home.price,
            "photo_count": len(home.photos),
            "has_balcony": self.said.get(id, balcony),
            "has_fireplace": True if "fireplace" in shown else no,
            "room_types": sorted(shown & {"kitchen", "bedroom"}),
        }

    def teardown(self) -> None:
        self.run(revalidate=True)
        report = self.world.backfill(settings=BRIEF, stale_bundle=True)
        assert report.exit_code == 0
        expected = self.expected()
        found = self.world.documents()
        names = {name for one in expected.values() for name in one}
        assert {
            id: {name: document.get(name) for name in names}
            | {"room_types": sorted(document.get("room_types") or [])}
            for id, document in found.items()
        } == expected
        assert {status for id, status in self.world.statuses().items() if id in expected} <= {"done"}


def test_after_a_clean_run_the_documents_are_the_model_s(
    world: World, tmp_path: Path, soak: bool, record: Record
) -> None:
    heads = [binary_head("balcony") | {"thresholds": {"true": 0.999999, "false": 0.2}}]
    heads += [binary_head("fireplace"), room_head()]
    bundles = {
        False: world.fixed["bundle"],
        True: make_bundle(tmp_path / "stricter", heads=heads).folder,
    }
    tried = 0

    def machine() -> Machine:
        nonlocal tried
        tried += 1
        return Machine(world, bundles)

    run_state_machine_as_test(
        machine,
        settings=settings(
            max_examples=100 if soak else 7,
            stateful_step_count=25 if soak else 10,
            deadline=None,
            derandomize=not soak,
            suppress_health_check=list(HealthCheck),
        ),
    )
    told = (
        "sequences of edits, photos, overrides, bundles, crashes, lost indices, reindexes; then one clean run"
    )
    record("machine", told, tried, documents_that_differ=0)
