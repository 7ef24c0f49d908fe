"""Backfills beside nightly runs and after kills: nothing that was asked for is lost."""

import json
import signal
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime

import pytest

from enrich.errors import RemovalGuardError
from tests.support.gate import Gate
from tests.support.harness import World, until

MANY = 30


@pytest.fixture
def enriched(world: World) -> World:
    for number in range(MANY):
        world.listing(f"{number:02}", "kitchen")
    assert world.run().published.written == MANY
    world.photos.forget()
    return world


def test_a_backfill_beside_a_nightly_run_marks_and_does_its_listings(
    enriched: World, gate: Gate, beside: ThreadPoolExecutor
) -> None:
    """The nightly run holds discovery for as long as it lasts."""
    gate.holds(enriched.photos, *enriched.listing("zz-new", "balcony"))
    nightly = beside.submit(enriched.run, settings={"fetch_timeout": 120.0})
    until(lambda: enriched.requests("/zz-new/0.jpg"), "the nightly run is under way")
    backfill = beside.submit(enriched.backfill, revalidate=True, settings={"fetch_timeout": 120.0})
    until(lambda: enriched.requests() == 1 + MANY, "all listings are asked for again")
    assert not nightly.done()
    gate.open()
    report = backfill.result()
    assert (report.exit_code, report.marked, report.joined, report.discovery) == (0, MANY + 1, None, None)
    assert nightly.result().exit_code == 0
    told = json.loads(enriched.enrich_here("status", "--json").stdout)["backfills"]
    assert [(b["marked"], b["left"], b["done_at"] is not None) for b in told] == [(MANY + 1, 0, True)]


KILLED_WHILE_MARKING = """
import os, signal
from enrich.state import backfills
from jobs.cli.commands import main
backfills.MARK_PAGE = 10
pages, mark = [], backfills.Backfills._mark_page
def dying(self, id):
    if len(pages) == 2:
        os.kill(os.getpid(), signal.SIGKILL)
    pages.append(id)
    return mark(self, id)
backfills.Backfills._mark_page = dying
main()
"""


@pytest.mark.parametrize("next_start", ["run", "backfill"])
def test_killed_while_marking_the_next_start_goes_on(
    enriched: World, monkeypatch: pytest.MonkeyPatch, next_start: str
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr("tests.support.harness.ENRICH", [sys.executable, "-c", KILLED_WHILE_MARKING])
        killed = enriched.enrich("backfill", "--revalidate")
    assert killed.returncode == -signal.SIGKILL
    told = enriched.enrich_here("status").stdout
    assert "backfill #1" in told and "20 marked so far" in told
    report = enriched.run() if next_start == "run" else enriched.backfill(revalidate=True)
    assert report.figures.unchanged == MANY == enriched.requests()
    assert report.joined == (None if next_start == "run" else 1) and report.marked is None
    assert "30 marked, done" in enriched.enrich_here("status").stdout


def test_a_backfill_of_an_emptied_image_table_publishes_nothing_empty(enriched: World) -> None:
    before = enriched.versions()
    enriched.portal.execute("CREATE TABLE saved AS SELECT * FROM listing_images; DELETE FROM listing_images")
    with pytest.raises(RemovalGuardError, match="no photos at all"):
        enriched.backfill()
    assert enriched.versions() == before and set(enriched.statuses().values()) == {"retry"}
    enriched.portal.execute("INSERT INTO listing_images SELECT * FROM saved")
    enriched.portal.execute("UPDATE enrichment.listing SET not_before = now()")
    assert enriched.run().figures.listings == MANY, "what was asked for is done when the photos are back"


def test_an_emptied_image_table_leaves_nothing_to_a_worker_beside(
    enriched: World, gate: Gate, beside: ThreadPoolExecutor
) -> None:
    """A worker takes whatever is pending, while the guard makes up its mind and afterwards."""
    gate.holds(enriched.photos, *enriched.listing("zz-new", "balcony"))
    future = datetime(2100, 1, 1, tzinfo=UTC)
    worker = beside.submit(enriched.backfill, since=future, settings={"fetch_timeout": 120.0})
    until(lambda: enriched.requests("/zz-new/0.jpg"), "the worker is under way")
    before = enriched.versions()
    enriched.portal.execute("DELETE FROM listing_images WHERE listing_id <> 'zz-new'")
    nightly = beside.submit(enriched.run, settings={"page_size": 5})
    started = "SELECT count(*) FROM enrichment.run WHERE kind = 'run'"
    until(lambda: enriched.portal.execute(started) == [(2,)], "the nightly run is under way")
    time.sleep(4)  # several looks of the worker for more to do
    assert enriched.statuses() == {**{f"{n:02}": "done" for n in range(MANY)}, "zz-new": "leased"}
    gate.open()
    assert worker.result().figures.listings == 1
    with pytest.raises(RemovalGuardError, match=f"{MANY} would lose all their photos"):
        nightly.result()
    assert enriched.versions().items() >= before.items()
    assert enriched.documents()["zz-new"]["has_balcony"] is True
