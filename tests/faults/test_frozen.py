"""A worker frozen past its leases, as a paused machine freezes it, and thawed when others went on."""

import signal

import pytest

from enrich.state.schema import SCHEMA
from tests.faults.test_kills import BRIEF, documents, some_homes, undisturbed
from tests.support.boundaries import BOUNDARIES
from tests.support.harness import PATIENCE, World, assert_same
from tests.support.killer import frozen

SHORT = ("discovering", "fetched", "bulk", "sent")
# At any of these steps but those in an open transaction: its locks hold for as long as its connection does.
LONG = (*SHORT, "discovered", "claimed", "fetching", "decoded", "scoring", "scored", "completed", "recorded")
TABLES = ("listing", "listing_photo", "photo", "photo_score", "publication", "target", "backfill")


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    metafunc.parametrize("boundary", LONG if metafunc.config.getoption("--soak") else SHORT)


def state(world: World) -> set[str]:
    """All rows that decide what is in the index and what is done next."""
    return {
        f"{table} {row.row}"
        for table in TABLES
        for row in world.portal.execute(f"SELECT to_jsonb(t)::text AS row FROM {SCHEMA}.{table} AS t")
    }


def test_its_late_writes_change_nothing(world: World, boundary: str) -> None:
    some_homes(world, 5)
    worker = frozen(world, boundary, min(BOUNDARIES[boundary].most, 2), **BRIEF)
    world.portal.execute("UPDATE listings SET price = price + 1000, updated_at = clock_timestamp()")
    world.portal.execute("DELETE FROM listing_images WHERE position = 0")
    world.portal.add_photo("home-03", 20, world.photo("fireplace", 9))
    another = world.run(settings=BRIEF, wait=True)  # once the leases and the locks of the frozen one run out
    assert another.exit_code == 0 and set(world.statuses().values()) == {"done"}
    before, versions, found = state(world), world.versions(), documents(world)
    assert all(document["price"] >= 1000 for document in found.values())

    worker.send_signal(signal.SIGCONT)
    _, err = worker.communicate(timeout=PATIENCE)

    assert worker.returncode in (0, 3), err
    assert "Traceback" not in err
    assert state(world) ^ before == set()
    assert world.versions() == versions, "nothing was even written again"
    assert_same(found, undisturbed(world))
