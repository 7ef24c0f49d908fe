"""Killed at any moment, the next run ends with the same documents as an undisturbed run."""

import random
import signal
import subprocess
import sys
from typing import Any

import pytest

from enrich.state.schema import SCHEMA, metadata
from tests.support.harness import CHECKOUT, World, assert_same
from tests.support.killer import BOUNDARIES

KINDS = ("kitchen", "bedroom", "bathroom", "balcony", "fireplace", "other")
BRIEF = {"lease_seconds": 2.0, "publish_batch": 7, "page_size": 10}  # many boundaries in a small portal


def some_homes(world: World, seed: int) -> None:
    """Thirty homes of a few photos; every fifth shares a photo with another."""
    dice = random.Random(seed)
    for number in range(30):
        shown = dice.choices(KINDS, k=dice.randint(0, 4))
        world.listing(f"home-{number:02}", *shown, city=dice.choice(["Solna", "Täby"]), price=number)
        if number % 5 == 0:
            world.portal.add_photo(f"home-{number:02}", 9, world.photo("balcony", 1, "/shared.jpg"))


def killed(world: World, boundary: str, count: int, *command: str) -> int:
    """Run the command to its death at the boundary; its exit code."""
    arguments = [sys.executable, "-m", "tests.support.killer", boundary, str(count), *command]
    environment = world.environment(**BRIEF)
    return subprocess.run(
        arguments, cwd=CHECKOUT, env=environment, capture_output=True, timeout=120
    ).returncode


def undisturbed(world: World) -> dict[str, dict[str, Any]]:
    """The documents of a run from scratch, into an index of its own."""
    tables = ", ".join(table.fullname for table in metadata.sorted_tables)
    world.portal.execute(f"TRUNCATE {tables}")
    world.index = world.fixed["index"] = f"{world.index}-undisturbed"
    assert world.run().exit_code == 0
    return world.documents()


@pytest.mark.parametrize("boundary", BOUNDARIES)
def test_the_next_run_ends_with_the_same_documents(world: World, boundary: str) -> None:
    seed = list(BOUNDARIES).index(boundary)
    some_homes(world, seed)
    # Three batches of seven are under way at once: at the third answer, all thirty homes may be in the index.
    most = {"discovering": 3, "claimed": 2, "sent": 2}.get(boundary, 8)
    count = random.Random(f"{boundary}{seed}").randint(1, most)
    assert killed(world, boundary, count, "run") == -signal.SIGKILL
    assert len(world.documents()) < 30, "the kill came too late to matter"

    report = world.run(settings=BRIEF, wait=True)  # the dead one's lock and leases run out first

    assert report.exit_code == 0
    assert set(world.statuses().values()) == {"done"}
    assert world.portal.execute(f"SELECT count(*) FROM {SCHEMA}.photo_score")[0][0] > 0
    found = world.documents()
    assert len(found) == 30
    assert_same(found, undisturbed(world))


def test_killed_again_and_again_it_still_gets_there(world: World) -> None:
    some_homes(world, 7)
    for boundary, count in (
        ("claimed", 1),
        ("fetched", 5),
        ("sent", 1),
        ("completed", 3),
        ("discovering", 2),
    ):
        assert killed(world, boundary, count, "backfill") == -signal.SIGKILL
    assert world.backfill(settings=BRIEF).exit_code == 0
    assert_same(world.documents(), undisturbed(world))


def test_what_was_scored_before_the_kill_is_not_fetched_again(world: World) -> None:
    some_homes(world, 3)
    assert killed(world, "completed", 4, "run") == -signal.SIGKILL
    saved = [
        row.id for row in world.portal.execute("SELECT id FROM enrichment.listing WHERE status = 'done'")
    ]
    assert saved
    world.photos.forget()
    world.run(settings=BRIEF, wait=True)
    again = [request.path for request in world.photos.log if request.path.split("/")[1] in saved]
    assert again == []
