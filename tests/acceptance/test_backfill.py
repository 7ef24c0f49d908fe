"""Backfills beside nightly runs and after kills: nothing that was asked for is lost."""

import json
import signal
import sys
from concurrent.futures import ThreadPoolExecutor

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
    told = json.loads(enriched.enrich("status", "--json").stdout)["backfills"]
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
    told = enriched.enrich("status").stdout
    assert "backfill #1" in told and "20 marked so far" in told
    report = enriched.run() if next_start == "run" else enriched.backfill(revalidate=True)
    assert report.figures.unchanged == MANY == enriched.requests()
    assert report.joined == (None if next_start == "run" else 1) and report.marked is None
    assert "30 marked, done" in enriched.enrich("status").stdout


def test_an_emptied_image_table_keeps_a_backfill_from_marking(enriched: World) -> None:
    before = enriched.versions()
    enriched.portal.execute("CREATE TABLE saved AS SELECT * FROM listing_images; DELETE FROM listing_images")
    with pytest.raises(RemovalGuardError, match="no photos at all"):
        enriched.backfill()
    assert enriched.versions() == before and set(enriched.statuses().values()) == {"done"}
    enriched.portal.execute("INSERT INTO listing_images SELECT * FROM saved")
    assert enriched.run().figures.listings == MANY, "the next start does what was asked for"


def test_an_emptied_image_table_leaves_nothing_to_a_worker_beside(
    enriched: World, gate: Gate, beside: ThreadPoolExecutor
) -> None:
    """Another worker takes whatever is pending while the guard makes up its mind, and afterwards."""
    gate.holds(enriched.photos, *enriched.listing("zz-new", "balcony"))
    worker = beside.submit(enriched.backfill, ids=["zz-new"], settings={"fetch_timeout": 120.0})
    until(lambda: enriched.requests("/zz-new/0.jpg"), "the other worker is under way")
    other = beside.submit(enriched.backfill, settings={"fetch_timeout": 120.0})
    until(lambda: enriched.statuses()["29"] == "done" and other.running(), "the other one looks for work")
    enriched.portal.execute("DELETE FROM listing_images WHERE listing_id <> 'zz-new'")
    with pytest.raises(RemovalGuardError, match="would lose all their photos"):
        enriched.run(ids=[f"{number:02}" for number in range(MANY)], settings={"max_removed": "0"})
    gate.open()
    worker.result(), other.result()
    assert {d["photo_count"] for d in enriched.documents().values()} == {1}
