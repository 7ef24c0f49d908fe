"""A photo host that is gone, comes and goes, resets or crawls: in the end the same documents."""

import random
from concurrent.futures import ThreadPoolExecutor
from threading import Event

import pytest

from enrich.errors import ErrorBudgetError
from tests.faults.conftest import Record
from tests.faults.town import BRIEF, HOMES, Town
from tests.support.wire import Wire

HASTY = {**BRIEF, "fetch_timeout": 0.5}


def finish(town: Town) -> int:
    """The host is well again, and hours have passed; how many documents the next run leaves wrong."""
    town.hours_later()
    assert town.world.run(settings=BRIEF).exit_code == 0
    return town.losses()


def test_gone_the_budget_ends_the_run_and_nothing_is_held_against_the_homes(
    town: Town, photo_wire: Wire, record: Record
) -> None:
    photo_wire.down()
    with pytest.raises(ErrorBudgetError) as stopped:
        town.world.run(settings=HASTY)
    assert stopped.value.exit_code == 3
    photo_wire.up()
    report = town.world.run(settings=BRIEF)  # at once, not an hour later
    losses = town.losses()
    record("photos-gone", "Photos of a host that is gone", town.photos, losses=losses)
    assert report.exit_code == 0 and losses == 0 and town.settled()


def test_gone_for_a_few_homes_only_they_are_tried_again_later(
    town: Town, photo_wire: Wire, record: Record
) -> None:
    photo_wire.down()
    report = town.world.run(limit=10, settings=HASTY)
    assert report.exit_code == 0 and report.figures.retry > 5
    photo_wire.up()
    assert town.world.run(settings=BRIEF).published.written == HOMES - 10
    failed = sum(report.figures.failures.values())
    losses = finish(town)
    record("photos-gone-briefly", "Photos of a host that was gone for a moment", failed, losses=losses)
    assert losses == 0 and town.settled()


def test_coming_and_going(town: Town, photo_wire: Wire, beside: ThreadPoolExecutor, record: Record) -> None:
    dice, ended, outages = random.Random(5), Event(), 0
    # Slow enough that the run lives through some outages.
    photo_wire.delay = lambda: 0.02
    running = beside.submit(town.world.run, settings={**HASTY, "fetch_per_host": 2, "error_budget": 1.0})
    running.add_done_callback(lambda _: ended.set())
    while not ended.wait(dice.uniform(0.05, 0.15)):
        photo_wire.down()
        outages += 1
        ended.wait(dice.uniform(0.02, 0.08))
        photo_wire.up()
    report = running.result()
    assert report.exit_code == 0 and report.published.written == HOMES
    losses = finish(town)
    record("photos-flapping", "Outages of a photo host that comes and goes", outages, losses=losses)
    assert outages >= 3 and losses == 0 and town.settled()


def test_resetting_in_the_middle_of_photos(town: Town, photo_wire: Wire, record: Record) -> None:
    photo_wire.reset_after = 12_000
    report = town.world.run(settings={**HASTY, "error_budget": 1.0})
    assert report.exit_code == 0 and report.published.written == HOMES
    photo_wire.reset_after = None
    photo_wire.cut()
    losses = finish(town)
    record("photos-resets", "Connections reset in the middle of a photo", photo_wire.resets, losses=losses)
    assert photo_wire.resets >= 20 and losses == 0 and town.settled()


def test_answers_that_come_too_late(town: Town, photo_wire: Wire, record: Record) -> None:
    dice, late = random.Random(6), [0]

    def delay() -> float:
        slow = dice.random() < 0.15
        late[0] += slow
        return 0.8 if slow else 0.0

    photo_wire.delay = delay
    report = town.world.run(settings={**HASTY, "error_budget": 1.0})
    assert report.exit_code == 0 and report.published.written == HOMES
    photo_wire.delay = lambda: 0.0
    losses = finish(town)
    record("photos-slow", "Answers of a photo host that came too late", late[0], losses=losses)
    assert late[0] >= 10 and losses == 0 and town.settled()
