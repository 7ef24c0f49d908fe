"""Elasticsearch that breaks off, crawls, is full or has another mapping: no document is lost or doubled.

Restarts, 429 and 503 are in tests/acceptance/test_outage.py.
"""

import json
import random
from concurrent.futures import ThreadPoolExecutor
from itertools import count
from time import sleep
from typing import Any

import pytest

from enrich.errors import IndexSetupError, OutageError
from tests.faults.conftest import Record
from tests.faults.town import BRIEF, HOMES, Town
from tests.support.gate import Gate
from tests.support.harness import World, until
from tests.support.proxy import Answer, Proxy, Request

pytestmark = pytest.mark.usefixtures("soon")

FULL = "index.blocks.read_only_allow_delete"


@pytest.fixture
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    """An index that is away is tried again after half a second at most."""
    monkeypatch.setattr("enrich.index.publish.LONGEST_WAIT", 0.5)


def test_answers_that_break_off_in_the_middle(
    town_of_each_mode: Town, index_proxy: Proxy, record: Record, request: pytest.FixtureRequest
) -> None:
    """Every other bulk is carried out, and nobody hears of it; so is now and then another request."""
    town, bulks, dice = town_of_each_mode, count(), random.Random(2)
    cut: list[str] = []

    def cuts(sent: Request) -> bool:
        turn = next(bulks) % 2 == 0 if "_bulk" in sent.path else dice.random() < 0.1
        if turn:
            cut.append(sent.path)
        return turn

    if request.node.callspec.params["town_of_each_mode"] == "own":
        town.had_another_past()
    index_proxy.cuts = cuts
    report = town.world.run(settings=BRIEF)
    index_proxy.clear()
    losses = town.losses()
    mode = town.world.fixed.get("index_mode", "own")
    record(f"index-cut-{mode}", f"Answers of the index that broke off, mode {mode}", len(cut), losses=losses)
    assert report.exit_code == 0 and len(cut) >= 5 and losses == 0
    assert town.settled()


def test_half_of_a_bulk_is_carried_out(town_of_each_mode: Town, index_proxy: Proxy, record: Record) -> None:
    town = town_of_each_mode
    broken: list[Request] = []

    def answer(sent: Request) -> Answer | None:
        if "_bulk" not in sent.path or len(broken) >= 6:
            return None
        broken.append(sent)
        lines: Any = sent.body.splitlines()
        lines = lines[: 2 * (len(lines) // 4)]  # a line with the action, and one with the document
        if lines:
            town.world.elasticsearch.bulk(operations=lines, index=town.world.index)
        return Answer(200, {"items": "in the middle of which it breaks off"})

    index_proxy.answer = answer
    index_proxy.cuts = lambda sent: any(sent is one for one in broken)
    report = town.world.run(settings=BRIEF)
    index_proxy.clear()
    losses = town.losses()
    mode = town.world.fixed.get("index_mode", "own")
    record(f"index-half-{mode}", f"Bulks carried out by half, mode {mode}", len(broken), losses=losses)
    assert report.exit_code == 0 and losses == 0
    assert report.published.written == HOMES and town.settled()


def test_bulks_that_are_carried_out_after_nobody_waits_any_more(
    town: Town, index_proxy: Proxy, record: Record, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("enrich.index.elastic.server.REQUEST_SECONDS", 0.5)
    dice, late = random.Random(3), [0]

    def crawl(sent: Request) -> None:
        if "_bulk" in sent.path and late[0] < 8:
            late[0] += 1
            sleep(dice.uniform(0.8, 1.5))

    index_proxy.answer = crawl
    report = town.world.run(settings=BRIEF)
    sleep(1.5)  # the last one that is on its way
    losses = town.losses()
    record("index-slow", "Bulks carried out after the job gave up waiting", late[0], losses=losses)
    assert report.exit_code == 0 and losses == 0 and late[0] == 8
    assert report.published.written == HOMES


def test_an_index_that_fails_in_every_way_at_random(
    town_of_each_mode: Town, index_proxy: Proxy, record: Record
) -> None:
    town, dice = town_of_each_mode, random.Random(4)
    failed = [0]

    def answer(sent: Request) -> Answer | None:
        if dice.random() > 0.25:
            return None
        failed[0] += 1
        return Answer(dice.choice([429, 500, 502, 503, 504]))

    def cuts(sent: Request) -> bool:
        cut = dice.random() < 0.1
        failed[0] += cut
        return cut

    index_proxy.answer, index_proxy.cuts = answer, cuts
    report = town.world.run(settings=BRIEF)
    index_proxy.clear()
    losses = town.losses()
    mode = town.world.fixed.get("index_mode", "own")
    record(
        f"index-random-{mode}",
        f"Requests that an index failed at random, mode {mode}",
        failed[0],
        losses=losses,
    )
    assert report.exit_code == 0 and failed[0] >= 5 and losses == 0


def set_full(world: World, full: bool) -> None:
    """What the disk watermark does at 95 %."""
    world.elasticsearch.indices.put_settings(index=world.index, settings={FULL: full or None})


def test_a_disk_that_fills_up_is_waited_for(
    town: Town, gate: Gate, beside: ThreadPoolExecutor, caplog: pytest.LogCaptureFixture, record: Record
) -> None:
    gate.holds(town.world.photos, "/home-58/0.jpg", "/home-59/0.jpg", "/shared.jpg")
    running = beside.submit(town.world.run, settings={**BRIEF, "fetch_timeout": 120.0})
    until(lambda: town.world.documents() or running.done(), "some are published")
    set_full(town.world, True)
    gate.open()
    until(lambda: "index away" in caplog.text or running.done(), "the run misses its index")
    assert not running.done() and "flood-stage" in caplog.text
    set_full(town.world, False)
    assert running.result().exit_code == 0
    losses = town.losses()
    record("index-full", "The index's disk fills up during a run", 1, losses=losses)
    assert losses == 0


def test_a_disk_that_stays_full_stops_the_run_and_the_next_one_is_whole(town: Town, record: Record) -> None:
    town.had_another_past()
    set_full(town.world, True)
    with pytest.raises(OutageError, match="flood-stage"):
        town.world.run(settings={**BRIEF, "outage_seconds": 1.0})
    set_full(town.world, False)
    report = town.world.run(settings=BRIEF)
    losses = town.losses()
    record("index-full-for-long", "The index's disk stays full", 1, losses=losses)
    assert report.exit_code == 0 and losses == 0


def test_an_index_of_another_mapping_in_its_place_ends_the_run_and_is_named(
    town: Town, gate: Gate, beside: ThreadPoolExecutor, record: Record
) -> None:
    """Somebody swaps it in behind the alias, in the middle of a run."""
    world, client = town.world, town.world.elasticsearch
    gate.holds(world.photos, "/shared.jpg")
    running = beside.submit(world.run, settings={**BRIEF, "fetch_timeout": 120.0})
    until(lambda: world.documents() or running.done(), "some are published")
    ((old, index),) = client.indices.get(index=world.index).items()
    mappings = json.loads(json.dumps(index["mappings"]))
    mappings["properties"]["city"] = {"type": "date"}
    client.indices.create(index=f"{world.index}-other", mappings=mappings)
    swap = [
        {"remove": {"index": old, "alias": world.index}},
        {"add": {"index": f"{world.index}-other", "alias": world.index, "is_write_index": True}},
    ]
    client.indices.update_aliases(actions=swap)
    gate.open()
    for job in (running.result, lambda: world.run(settings=BRIEF)):
        with pytest.raises(IndexSetupError, match="city is of type date, keyword is needed"):
            job()
    assert set(world.statuses().values()) <= {"done", "pending"}, "no home is held responsible"
    world.drop_indices()
    assert world.run(settings=BRIEF).exit_code == 0
    losses = town.losses()
    record("index-mapping", "An index of another mapping swapped in during a run", 1, losses=losses)
    assert losses == 0
