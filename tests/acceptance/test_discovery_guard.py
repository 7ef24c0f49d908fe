"""A rise in removals stops the run instead of emptying the index."""

import json
import re

import pytest

from enrich.errors import RemovalGuardError
from jobs.run.reindex import reindex
from jobs.run.stop import Stop
from tests.support.harness import World

MANY = 30


@pytest.fixture
def settled(world: World) -> World:
    """Thirty listings, three of them with photos, published."""
    for number in range(MANY):
        world.listing(f"{number:02}", *(["kitchen", "balcony"] if number < 3 else []), city="Solna")
    assert world.run().published.written == MANY
    world.photos.forget()
    return world


def test_tables_emptied_by_mistake(settled: World) -> None:
    before = settled.versions()
    settled.portal.execute("CREATE TABLE saved AS SELECT * FROM listings")
    settled.portal.execute("CREATE TABLE saved_images AS SELECT * FROM listing_images")
    settled.portal.execute("TRUNCATE listings, listing_images")
    for _ in range(2):  # a second try is no way around it
        stopped = settled.enrich_here("run")
        assert stopped.returncode == 3
        assert str(MANY) in stopped.stderr and "--allow-removals" in stopped.stderr
        assert "Traceback" not in stopped.stderr
        assert settled.versions() == before

    settled.portal.execute("INSERT INTO listings SELECT * FROM saved")
    settled.portal.execute("INSERT INTO listing_images SELECT * FROM saved_images")
    restored = settled.run()
    assert restored.exit_code == 0 and restored.published.written == restored.published.removed == 0
    assert settled.versions() == before and settled.requests() == 0


def test_nothing_left_and_meant(settled: World) -> None:
    settled.portal.execute("TRUNCATE listings, listing_images")
    allowed = settled.enrich("run", "--allow-removals")
    assert allowed.returncode == 0, allowed.stderr
    assert settled.documents() == {}
    assert set(settled.statuses().values()) == {"gone"}


def test_allowing_removals_counts_once(settled: World) -> None:
    settled.portal.execute("UPDATE listings SET active = false WHERE id < '25'")
    assert settled.run(allow_removals=True).published.removed == 25
    settled.fixed["max_removed"] = "2"
    settled.portal.execute("UPDATE listings SET active = false WHERE id < '28'")
    with pytest.raises(RemovalGuardError):
        settled.run()


def test_a_command_that_cannot_allow_removals_names_the_one_that_can(
    settled: World, caplog: pytest.LogCaptureFixture
) -> None:
    settled.portal.execute("UPDATE listings SET active = false WHERE id < '25'")
    right = "25 of 30 documents .* If it is right, `enrich run --allow-removals` lets it pass"
    with pytest.raises(RemovalGuardError, match=right):
        settled.backfill()
    assert reindex(settled.settings(), 1, Stop()).exit_code == 0 and re.search(right, caplog.text)
    assert len(settled.documents()) == MANY


def test_images_emptied_by_mistake(settled: World) -> None:
    """No listing leaves, but every document would lose what its photos showed."""
    before = settled.versions()
    settled.portal.execute("CREATE TABLE saved_images AS SELECT * FROM listing_images")
    settled.portal.execute("TRUNCATE listing_images")
    for _ in range(2):
        with pytest.raises(RemovalGuardError, match=r"no photos at all, and 3 documents"):
            settled.run()
        assert settled.versions() == before
    settled.portal.execute("INSERT INTO listing_images SELECT * FROM saved_images")
    restored = settled.run()
    assert restored.exit_code == 0 and settled.requests() == 0
    assert settled.versions() == before


def test_addresses_of_photos_emptied_by_mistake(settled: World) -> None:
    """As by a view that puts an address together from a column that is NULL now."""
    before = settled.versions()
    settled.portal.execute("ALTER TABLE listing_images ADD saved text")
    settled.portal.execute("UPDATE listing_images SET saved = url, url = NULL")
    with pytest.raises(RemovalGuardError, match=r"no photos at all, and 3 documents"):
        settled.run()
    settled.fixed["max_removed"] = "1"
    settled.portal.execute("UPDATE listing_images SET url = saved WHERE listing_id = '02'")
    with pytest.raises(RemovalGuardError, match=r"and 2 would lose all their photos"):
        settled.run()
    assert settled.versions() == before
    settled.portal.execute("UPDATE listing_images SET url = saved")
    restored = settled.run()
    assert restored.exit_code == 0 and settled.requests() == 0 and settled.versions() == before


def test_many_listings_without_their_photos_count_as_removals(settled: World) -> None:
    settled.fixed["max_removed"] = "2"
    before = settled.versions()
    settled.portal.execute("DELETE FROM listing_images WHERE listing_id IN ('00', '01')")
    settled.portal.remove("29")
    with pytest.raises(RemovalGuardError, match=r"1 of 30 .* removed and 2 would lose all their photos"):
        settled.run()
    assert settled.versions() == before
    settled.run(allow_removals=True)
    assert "29" not in settled.documents() and settled.documents()["00"]["photo_count"] == 0
    assert settled.run().figures.listings == 0


def test_many_deactivated_at_once_trip_the_guard_and_a_few_do_not(settled: World) -> None:
    before = settled.versions()
    settled.portal.execute("UPDATE listings SET active = false WHERE id < '21'")
    with pytest.raises(RemovalGuardError, match=rf"\b21 of {MANY}\b.*--allow-removals"):
        settled.run()
    assert settled.versions() == before
    assert set(settled.statuses().values()) == {"done"}
    settled.portal.execute("UPDATE listings SET active = true WHERE id = '20'")
    assert settled.run().published.removed == 20
    assert settled.documents().keys() == {f"{number:02}" for number in range(20, MANY)}


@pytest.mark.parametrize(("max_removed", "most"), [("3", 3), ("90%", 27)])
def test_the_limit_is_a_setting(settled: World, max_removed: str, most: int) -> None:
    settled.fixed["max_removed"] = max_removed
    settled.portal.execute("UPDATE listings SET active = false WHERE id <= :last", last=f"{most:02}")
    with pytest.raises(RemovalGuardError, match=rf"{most + 1} of {MANY}.*ENRICH_MAX_REMOVED={max_removed}"):
        settled.run()
    settled.portal.execute("UPDATE listings SET active = true WHERE id = :last", last=f"{most:02}")
    assert settled.run().published.removed == most


def test_what_is_new_comes_in_although_the_guard_tripped(settled: World) -> None:
    saved = settled.portal.execute("SELECT id FROM listings WHERE id < '25'")
    settled.portal.execute("UPDATE listings SET active = false WHERE id < '25'")
    settled.listing("new", "bedroom")
    for _ in range(2):  # nights in a row
        with pytest.raises(RemovalGuardError):
            settled.run()
        assert settled.documents()["new"]["room_types"] == ["bedroom"]
        assert len(settled.documents()) == MANY + 1
    kept = settled.portal.execute("SELECT exit_code, left(error, 8) FROM enrichment.run ORDER BY id")
    assert kept == [(0, None), (3, "25 of 30"), (3, "25 of 31")]
    settled.portal.execute("UPDATE listings SET active = true")
    assert len(saved) == 25 and settled.run().published.written == 0


def test_what_was_done_is_told_although_the_guard_tripped(settled: World) -> None:
    settled.portal.execute("UPDATE listings SET active = false WHERE id < '25'")
    settled.listing("new", "bedroom")
    told = settled.enrich_here("run")
    assert told.returncode == 3 and told.stderr.count("\n") == 1
    assert "found      6 listings" in told.stdout and "documents  1 written, 0 removed" in told.stdout
    for command in ("run", "backfill"):
        done = settled.enrich_here(command, "--json")
        figures = json.loads(done.stdout)
        assert (done.returncode, figures["exit_code"], figures["discovery"]["seen"]) == (3, 3, 6)


def test_the_column_active_lost(settled: World) -> None:
    """Renamed or dropped, it would bring every inactive listing back into the search."""
    settled.portal.execute("UPDATE listings SET active = false WHERE id < '05'")
    settled.run()
    before = settled.versions()
    settled.portal.execute("ALTER TABLE listings RENAME active TO is_active")
    for command in (
        ("run",),
        ("run", "--dry-run"),
        ("reindex",),
        ("check",),
        ("reconcile",),
        ("reconcile", "--fix"),
    ):
        stopped = settled.enrich_here(*command)
        told = stopped.stderr + stopped.stdout
        assert stopped.returncode == 2, told
        assert "no column active, which run 2 read" in told and "ENRICH_SOURCE_LISTINGS" in told
    assert settled.versions() == before

    settled.portal.execute("CREATE VIEW homes AS SELECT *, is_active AS active FROM listings")
    mended = settled.run(settings={"source_listings": "homes"})
    assert mended.published.written == mended.published.removed == 0 and settled.versions() == before


def test_a_portal_that_never_had_the_column_active(settled: World) -> None:
    settled.portal.execute("ALTER TABLE listings DROP COLUMN active")
    settled.portal.execute("UPDATE enrichment.run SET figures = figures - 'active_column'")
    assert settled.run().exit_code == 0 and settled.run().exit_code == 0
