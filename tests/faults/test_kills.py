"""Killed at any step, the next run ends as if nothing had been: the same documents, and little done twice."""

import json
import math
import random
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import migrations
from enrich.state.schema import SCHEMA, metadata
from jobs.migrate import migrate
from jobs.run.reindex import REINDEX as REINDEX_LOCK
from jobs.run.reindex import reindex
from jobs.run.stop import Stop
from tests.faults.conftest import Record
from tests.support.boundaries import BOUNDARIES, BOUNDED, PRUNE, REINDEX
from tests.support.bundles import binary_head, make_bundle, room_head
from tests.support.harness import World, assert_same, until
from tests.support.killer import killed, wait_for_the_lock
from tests.support.photo_server import FINE, Answer

KINDS = ("kitchen", "bedroom", "bathroom", "balcony", "fireplace", "other")
BRIEF = {"lease_seconds": 2.0, "publish_batch": 5, "page_size": 10}  # many boundaries in a small portal
HOMES = 30
MOST_KILLS = 6  # at one boundary in a soak
LEFT = range(0, HOMES, 6)  # homes that leave the portal before a prune
Documents = dict[str, dict[str, Any]]

SCORES = f"{SCHEMA}.photo_score"
IN_HAND = f"listing_images AS i JOIN {SCHEMA}.listing AS l ON l.id = i.listing_id WHERE l.status = 'leased'"
UNFINISHED = f"{SCHEMA}.listing WHERE status <> 'done' OR lease_token IS NOT NULL OR lease_worker IS NOT NULL"
# The sign of life of a run keeps nobody out, and ends by itself.
LOCKED = f"{SCHEMA}.lock WHERE expires > clock_timestamp() AND name NOT LIKE 'run %'"


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """One count for each boundary; in a soak several, each with homes of its own."""
    if "count" not in metafunc.fixturenames:
        return
    kills = []
    for name, boundary in BOUNDARIES.items():
        dice = random.Random(name)
        if metafunc.config.getoption("--soak"):
            counts = sorted(dice.sample(range(1, boundary.most + 1), min(boundary.most, MOST_KILLS)))
            kills += [(name, count, number + 1) for number, count in enumerate(counts)]
        else:
            kills.append((name, dice.randint(1, boundary.most), 0))
    metafunc.parametrize(("boundary", "count", "seed"), kills)


@pytest.fixture(scope="module")
def counts(record: Record) -> Iterator[Counter[str]]:
    """Adds up what becomes of the kills: a line of docs/reliability.md."""
    counts: Counter[str] = Counter()
    yield counts
    tried = (
        f"`enrich` killed by SIGKILL at {len(BOUNDARIES)} steps, then the next run; "
        f"of {counts['scored']:,} photos {counts['scored twice']} were scored twice; "
        f"recovered after {counts['seconds']} s at most, with leases of {BRIEF['lease_seconds']:g} s"
    )
    record(
        "kills", tried, counts["kills"], documents_that_differ=counts["differ"], stuck_leases=counts["stuck"]
    )


@pytest.fixture(scope="module")
def references() -> dict[int, Documents]:
    """What undisturbed runs made of the homes, by their seeds."""
    return {}


def some_homes(world: World, seed: int) -> None:
    """Homes of a few photos; every fifth shares a photo with others."""
    dice = random.Random(seed)
    for number in range(HOMES):
        shown = dice.choices(KINDS, k=dice.randint(0, 4))
        world.listing(f"home-{number:02}", *shown, city=dice.choice(["Solna", "Täby"]), price=number)
        if number % 5 == 0:
            world.portal.add_photo(f"home-{number:02}", 9, world.photo("balcony", 1, "/shared.jpg"))


def documents(world: World) -> Documents:
    """The documents, without where the photos are served in this test."""
    found: Documents = json.loads(json.dumps(world.documents()).replace(world.photos.url("/"), "/"))
    return found


def undisturbed(world: World) -> Documents:
    """The documents of a run from scratch, into an index of its own."""
    tables = ", ".join(table.fullname for table in metadata.sorted_tables)
    world.portal.execute(f"TRUNCATE {tables}")
    world.index = world.fixed["index"] = f"{world.index}-undisturbed"
    assert world.run().exit_code == 0
    return documents(world)


def prepare(world: World, boundary: str, folder: Path) -> Documents | None:
    """Bring the world to where the command has something to do; the documents, where it must keep them."""
    command = BOUNDARIES[boundary].command
    if boundary in ("renewing", "renewed"):
        world.photos.behave("/shared.jpg", slow, FINE)
    elif command[0] == "migrate":
        assert world.run(limit=12).exit_code == 0
        migrations.downgrade(world.portal.url, "0002")
    elif command in (PRUNE, BOUNDED, REINDEX):
        assert world.run().exit_code == 0
        if command == PRUNE:
            for number in LEFT:
                world.portal.remove(f"home-{number:02}")
            world.run(allow_removals=True)
            world.portal.execute(f"UPDATE {SCHEMA}.listing SET revision = 1 WHERE status = 'gone'")
            world.portal.execute(f"UPDATE {SCHEMA}.photo SET checked_at = now() - interval '1 year'")
        elif command == BOUNDED:
            heads = [binary_head("balcony") | {"thresholds": {"true": 0.999999, "false": 0.1}}]
            heads += [binary_head("fireplace"), room_head()]
            world.fixed["bundle"] = make_bundle(folder / "stricter", heads=heads).folder
        return documents(world)
    return None


def slow(answer: Answer) -> None:
    time.sleep(2.5)  # longer than a lease
    FINE(answer)


def go_on(world: World, boundary: str) -> None:
    """Have the command of the boundary come to its end this time."""
    command = BOUNDARIES[boundary].command
    if command == PRUNE:
        assert world.enrich(*command).returncode == 0
        assert len(world.statuses()) == HOMES - len(LEFT)
    elif command == REINDEX:
        wait_for_the_lock(world, REINDEX_LOCK)
        assert reindex(world.settings(**BRIEF), 1, Stop()).exit_code == 0
        assert world.portal.execute(f"SELECT sum(serving::int) FROM {SCHEMA}.target") == [(1,)]
    elif command == BOUNDED:
        assert number_of(world, f"{SCHEMA}.backfill WHERE held IS NOT NULL") == 1


def number_of(world: World, what: str) -> int:
    return int(world.portal.execute(f"SELECT count(*) FROM {what}")[0][0])


def quiet(world: World) -> bool:
    """Whether the server has noticed the death, and has ended what was under way."""
    others = "datname = current_database() AND pid <> pg_backend_pid() AND state <> 'idle'"
    return number_of(world, f"pg_stat_activity WHERE {others}") == 0


def differing(found: Documents, expected: Documents) -> list[str]:
    """Ids of documents that are not the same."""
    ids = []
    for id in found.keys() | expected.keys():
        try:
            assert_same(found.get(id), expected.get(id))
        except AssertionError:
            ids.append(id)
    return sorted(ids)


def without_bundle(found: Documents) -> Documents:
    return {id: one | {"enrichment": one["enrichment"] | {"bundle": None}} for id, one in found.items()}


def test_the_next_run_ends_with_the_same_documents(
    world: World,
    boundary: str,
    count: int,
    seed: int,
    tmp_path: Path,
    counts: Counter[str],
    references: dict[int, Documents],
) -> None:
    some_homes(world, seed)
    kept = prepare(world, boundary, tmp_path)
    command = BOUNDARIES[boundary].command
    before = number_of(world, SCORES)

    died = killed(world, boundary, count, **BRIEF)

    dead_since = time.monotonic()
    until(lambda: quiet(world), "the server has noticed")
    on_record, in_hand = number_of(world, SCORES), number_of(world, IN_HAND)
    if command[0] == "migrate":
        assert migrations.current(world.portal.url) == "0002", "nothing of it is there yet"
        migrate(world.settings())
    elif command == PRUNE:
        assert 0 < number_of(world, f"{SCHEMA}.listing WHERE status = 'gone'") < len(LEFT)
    elif kept is None:
        assert len(world.documents()) < HOMES, "the kill came too late to matter"

    report = world.run(settings=BRIEF, wait=True)  # the dead one's lock and leases run out first

    assert report.exit_code == 0
    go_on(world, boundary)
    counts["seconds"] = max(counts["seconds"], math.ceil(time.monotonic() - dead_since))
    again = report.figures.scored
    made = max(number_of(world, SCORES), on_record)  # a prune takes some away
    twice = died.scored + again - (made - before)
    found = documents(world)
    stuck = number_of(world, UNFINISHED) + number_of(world, LOCKED)
    open_backfills = number_of(world, f"{SCHEMA}.backfill WHERE done_at IS NULL")
    if kept is None and seed not in references:
        references[seed] = undisturbed(world)
    expected = references[seed] if kept is None else kept
    if command == BOUNDED:
        found, expected = without_bundle(found), without_bundle(expected)

    counts.update(kills=1, scored=made - before, differ=len(differing(found, expected)), stuck=stuck)
    counts["scored twice"] += twice
    assert_same(found, expected)
    assert (stuck, open_backfills) == (0, 0)
    assert again == made - on_record, "what is on record is not scored again"
    assert 0 <= twice <= in_hand, "at most what was in the dead one's hands is scored again"


def test_killed_again_and_again_it_still_gets_there(world: World) -> None:
    some_homes(world, 7)
    for boundary, count in (
        ("claimed", 1),
        ("fetched", 5),
        ("sent", 1),
        ("completed", 3),
        ("discovering", 2),
    ):
        killed(world, boundary, count, "backfill", **BRIEF)
    assert world.backfill(settings=BRIEF).exit_code == 0
    found = documents(world)
    assert_same(found, undisturbed(world))


def test_what_was_scored_before_the_kill_is_not_fetched_again(world: World) -> None:
    some_homes(world, 3)
    killed(world, "completed", 4, **BRIEF)
    saved = [row.id for row in world.portal.execute(f"SELECT id FROM {SCHEMA}.listing WHERE status = 'done'")]
    assert saved
    world.photos.forget()
    world.run(settings=BRIEF, wait=True)
    again = [request.path for request in world.photos.log if request.path.split("/")[1] in saved]
    assert again == []
