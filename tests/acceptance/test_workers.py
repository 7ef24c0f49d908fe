"""Several processes on one database, and processes told to stop: the work is shared, and none of it lost."""

import json
import signal
import subprocess
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from enrich.pipeline.run import CLAIM_SIZE
from tests.support.gate import Gate
from tests.support.harness import World, until

ROOMS = ("kitchen", "bedroom", "bathroom")
SLOW = {"fetch_timeout": 120.0, "fetch_concurrency": 4}  # few requests at once: several claims per process
BRIEF = {**SLOW, "lease_seconds": 3.0}
MANY = 4 * CLAIM_SIZE


@pytest.fixture
def enriched(world: World) -> World:
    """A portal whose homes are all enriched: what a backfill revalidates is answered by 304."""
    for number in range(MANY):
        world.listing(f"home-{number:02}", ROOMS[number % 3])
    assert world.run().published.written == MANY
    world.photos.forget()
    return world


def photo(number: int) -> str:
    return f"/home-{number:02}/0.jpg"


def ended(process: "subprocess.Popen[str]", code: int = 0) -> dict[str, Any]:
    """Wait for the command to end with this exit code; its report (--json)."""
    out, err = process.communicate(timeout=120)
    assert process.returncode == code, err
    assert "Traceback" not in err
    report: dict[str, Any] = json.loads(out)
    return report


def holders(world: World) -> int:
    """Claims that are being worked on: one per process while its photos wait at the gate."""
    query = "SELECT count(DISTINCT lease_token) FROM enrichment.listing WHERE status = 'leased'"
    return int(world.portal.execute(query)[0][0])


def assert_complete(world: World, count: int = MANY) -> None:
    assert Counter(world.statuses().values()) == {"done": count}
    rooms = {id: document["room_types"] for id, document in world.documents().items()}
    assert len(rooms) == count
    assert all(rooms[f"home-{n:02}"] == [ROOMS[n % 3]] for n in range(min(count, MANY)))


def asked(world: World) -> Counter[str]:
    return Counter(request.path for request in world.photos.log)


def test_two_backfills_share_the_work_and_do_each_listing_once(enriched: World, gate: Gate) -> None:
    gate.holds(enriched.photos, *map(photo, range(MANY)))
    first = enriched.start("backfill", "--revalidate", "--json", **SLOW)
    until(lambda: holders(enriched) == 1, "the first one has listings in hand")
    second = enriched.start("backfill", "--revalidate", "--json", **SLOW)
    until(lambda: holders(enriched) == 2, "the second one has listings in hand")
    shown = json.loads(enriched.enrich("status", "--json").stdout)["workers"]
    assert {worker["pid"] for worker in shown} == {first.pid, second.pid}
    assert {(worker["doing"], worker["listings"]) for worker in shown} == {("backfill", CLAIM_SIZE)}
    gate.open()
    reports = ended(first), ended(second)

    assert asked(enriched) == dict.fromkeys(map(photo, range(MANY)), 1)
    assert reports[0]["marked"] == MANY and reports[1]["marked"] is None, "the second one joined"
    done = [report["listings"] for report in reports]
    assert sum(done) == sum(report["unchanged"] for report in reports) == MANY
    assert min(done) >= CLAIM_SIZE, "each did a part"
    assert {report["stale"] for report in reports} == {0}
    assert enriched.portal.execute("SELECT count(*) FROM enrichment.worker") == [(0,)], "both left"
    assert_complete(enriched)


def test_a_nightly_run_beside_a_backfill_goes_first(
    enriched: World, gate: Gate, beside: ThreadPoolExecutor
) -> None:
    gate.holds(enriched.photos, *map(photo, range(MANY)))
    backfill = beside.submit(enriched.backfill, revalidate=True, settings=SLOW)
    until(lambda: holders(enriched) == 1, "the backfill is under way")
    enriched.listing("zz-new", "balcony")  # the last by id
    nightly = beside.submit(enriched.run, settings=SLOW)
    until(lambda: "zz-new" in enriched.documents(), "the new listing is published")

    waiting = Counter(enriched.statuses().values())
    assert waiting == {"done": 1, "leased": 2 * CLAIM_SIZE - 1, "pending": MANY - 2 * CLAIM_SIZE + 1}
    assert not backfill.done()
    gate.open()
    assert backfill.result().exit_code == nightly.result().exit_code == 0
    assert asked(enriched) == dict.fromkeys([*map(photo, range(MANY)), "/zz-new/0.jpg"], 1)
    assert_complete(enriched, MANY + 1)


def test_a_second_run_is_turned_away(world: World, gate: Gate, beside: ThreadPoolExecutor) -> None:
    gate.holds(world.photos, *world.listing("home-00", "kitchen"))
    first = beside.submit(world.run, settings=SLOW)
    until(world.requests, "the first run is under way")
    second = world.enrich("run")
    assert second.returncode == 75
    assert second.stderr.count("\n") == 1 and "'discover'" in second.stderr
    assert len(world.portal.execute("SELECT id FROM enrichment.run")) == 1
    gate.open()
    assert first.result().exit_code == 0
    assert world.requests() == 1
    assert_complete(world, 1)


def test_a_killed_backfill_is_taken_up_where_it_was(enriched: World, gate: Gate) -> None:
    last = range(MANY - 8, MANY)
    gate.holds(enriched.photos, *map(photo, last))
    killed = enriched.start("backfill", "--revalidate", **BRIEF)
    until(lambda: Counter(enriched.statuses().values())["done"] == MANY - 8, "most is done")
    until(lambda: asked(enriched)[photo(last[0])] == 1, "the rest is under way")
    killed.send_signal(signal.SIGKILL)
    killed.wait()
    assert Counter(enriched.statuses().values()) == {"done": MANY - 8, "leased": 8}
    gate.open()
    enriched.photos.forget()

    report = ended(enriched.start("backfill", "--revalidate", "--json", **BRIEF))
    assert report["marked"] is None, "not marked anew"
    assert report["listings"] == 8
    assert asked(enriched) == dict.fromkeys(map(photo, last), 1)
    assert_complete(enriched)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_run_that_is_told_to_stop_ends_soon_and_the_next_one_completes(
    world: World, gate: Gate, number: signal.Signals
) -> None:
    count = CLAIM_SIZE + 8
    for n in range(count):
        urls = world.listing(f"home-{n:02}", ROOMS[n % 3])
        if n >= 4:
            gate.holds(world.photos, *urls)
    run = world.start("run", "--json", **SLOW)
    until(lambda: Counter(world.statuses().values())["done"] == 4, "some homes are done")
    until(lambda: world.requests() >= 4 + 4, "others are under way")
    run.send_signal(number)
    report = ended(run, 128 + number)  # although the photos still hang

    assert report["listings"] == 4
    assert Counter(world.statuses().values()) == {"done": 4, "pending": count - 4}
    held = world.portal.execute("SELECT sum(attempts), count(lease_token) FROM enrichment.listing")
    assert held == [(0, 0)], "given back, and not held against them"
    assert world.portal.execute("SELECT count(token) FROM enrichment.lock") == [(0,)]
    assert world.portal.execute("SELECT exit_code, finished_at IS NULL FROM enrichment.run") == [
        (128 + number, False)
    ]

    gate.open()
    world.photos.forget()
    assert world.run().exit_code == 0
    assert world.requests() == count - 4
    assert_complete(world, count)
