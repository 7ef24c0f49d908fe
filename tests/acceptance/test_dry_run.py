"""`run --dry-run` says what the run that follows does: its counts are that run's counts."""

import json
from pathlib import Path
from typing import Any

import pytest

from enrich.source.discover import Discovery
from enrich.source.foresee import Prospect
from enrich.state.backfills import Backfills, Selection
from enrich.state.database import Database
from jobs.run.dry_run import RehearsalQueue, Rehearsed
from jobs.run.services import open_services
from tests.acceptance.test_merge_mode import PortalIndex
from tests.support.enriched import result
from tests.support.harness import World
from tests.support.proxy import Proxy

MANY = 30


def counts(report: Any) -> dict[str, int]:
    published = report.published
    return {name: getattr(published, name) for name in ("written", "removed", "awaiting", "refused")}


def foretold(world: World, *arguments: str) -> dict[str, Any]:
    done = world.enrich_here("run", "--dry-run", "--json", *arguments)
    assert done.returncode == 0, done.stderr
    told: dict[str, Any] = json.loads(done.stdout)
    return told


def test_the_counts_are_those_of_the_run_that_follows(world: World) -> None:
    """New, changed, removed, waiting, unpublished and refused listings, and some that are none of these."""
    for number in range(MANY):
        world.listing(f"{number:02}", "kitchen", city="Solna", price=number)
    world.run()
    state = "UPDATE enrichment.listing SET"
    world.portal.add_photo("00", 1, world.photo("balcony", 1, "/00/1.jpg"))  # changed: another document
    world.portal.execute("UPDATE listings SET price = 100 WHERE id IN ('01', '02')")  # other columns
    world.portal.remove("03")  # leaves the index
    outbox = "UPDATE enrichment.publication SET"
    world.portal.execute(  # unpublished
        f"{outbox} revision = NULL, status = 'waiting' WHERE listing_id = '04'"
    )
    world.portal.execute(f"{state} status = 'pending', requested = 2 WHERE id IN ('05', '02')")  # waits: same
    world.portal.execute(f"{state} status = 'retry', not_before = now() WHERE id = '06'")  # due: the same
    world.portal.execute(  # not due
        f"{state} status = 'retry', not_before = now() + interval '1 day', bundle_id = '?' WHERE id = '07'"
    )
    world.portal.execute(  # waits: another document
        f"{state} status = 'pending', bundle_id = '?' WHERE id = '08'"
    )
    for number in range(3):
        world.listing(f"new-{number}", "bedroom")
    # One that the index refuses, night after night: its price is out of the range of a long.
    world.portal.execute(
        f"{state} columns = columns || '{{\"price\": \"x\"}}', revision = revision + 1 WHERE id = '09'"
    )
    world.portal.execute(f"{outbox} status = 'refused', not_before = 'infinity' WHERE listing_id = '09'")

    told = foretold(world)
    assert told["counts"] == {"written": 8, "removed": 1, "awaiting": 0, "refused": 1}
    assert len(told["documents"]) == 8 and told["removed"] == ["03"]
    assert counts(world.run()) == told["counts"]


def test_a_backfill_that_was_killed_before_it_marked_is_not_counted_and_that_is_said(
    world: World, database: Database
) -> None:
    world.listing("a", "kitchen")
    world.run()
    assert "backfill" not in world.enrich_here("run", "--dry-run").stderr
    Backfills(database).ask(Selection())
    done = world.enrich_here("run", "--dry-run")
    assert done.returncode == 0 and "1 backfill whose listings are not all marked yet" in done.stderr


def test_a_sample_is_shown_and_the_rest_counted(world: World) -> None:
    for number in range(MANY):
        world.listing(f"{number:02}", "kitchen")
    told = foretold(world)
    assert told["counts"]["written"] == MANY and len(told["documents"]) == 20
    limited = world.enrich_here("run", "--dry-run", "--limit", "3")
    assert limited.stdout.count("put {") == 3 and "would write 3 documents" in limited.stdout


def test_what_never_reached_the_index_is_not_deleted(world: World) -> None:
    world.listing("a", "kitchen")
    world.listing("b", "kitchen")
    world.run(limit=1)
    world.portal.remove("b")
    assert foretold(world)["counts"]["removed"] == 0
    assert world.run().published.removed == 0


def test_what_the_guard_would_withhold_is_said(world: World) -> None:
    for number in range(MANY):
        world.listing(f"{number:02}", "kitchen")
    world.run()
    world.portal.execute("DELETE FROM listing_images")
    world.listing("new", "bedroom")
    refused = world.enrich_here("run", "--dry-run", "--json", max_removed="3")
    assert refused.returncode == 3 and "ENRICH_MAX_REMOVED=3" in refused.stderr
    assert json.loads(refused.stdout)["counts"] == {"written": 1, "removed": 0, "awaiting": 0, "refused": 0}


@pytest.mark.parametrize("how", ["dropped", "replaced", "renamed"])
def test_an_index_that_is_another_one_now_gets_everything(world: World, how: str) -> None:
    for number in range(4):
        world.listing(f"{number:02}", "kitchen")
    world.run()
    world.portal.remove("00")
    world.run()
    world.portal.remove("01")
    if how == "renamed":
        world.fixed["index"] = f"{world.index}-renamed"
    else:
        world.drop_indices()
    if how == "replaced":
        world.elasticsearch.indices.create(index=f"{world.index}-by-hand", aliases={world.index: {}})
    before = sorted(world.elasticsearch.indices.get(index=f"{world.index}*"))
    told = foretold(world)
    assert (told["counts"]["written"], told["counts"]["removed"], told["removed"]) == (2, 0, [])
    assert sorted(world.elasticsearch.indices.get(index=f"{world.index}*")) == before, (
        "a dry run writes nothing"
    )
    assert counts(world.run()) == told["counts"]


def test_an_index_that_is_away_is_taken_for_the_last_one(world: World, elasticsearch_proxy: Proxy) -> None:
    world.listing("a", "kitchen")
    world.run()
    elasticsearch_proxy.always(503)
    told = world.enrich_here("run", "--dry-run", "--json", elasticsearch_url=elasticsearch_proxy.url)
    assert told.returncode == 0 and json.loads(told.stdout)["counts"]["written"] == 0
    assert "taken for the one that was published to last" in told.stderr


def test_what_awaits_the_portal_s_document_is_asked_of_its_index(world: World, tmp_path: Path) -> None:
    world.fixed.update(index_mode="merge", index_columns=())
    portal_index = PortalIndex(world.elasticsearch, world.index)
    for id in ("flat", "house", "sold"):
        world.listing(id, "kitchen")
        portal_index.save(id)
    world.run()
    world.portal.remove("sold")
    told = foretold(world)["counts"]
    assert told == {"written": 0, "removed": 1, "awaiting": 0, "refused": 0}
    portal_index.rebuild("flat", "sold")  # without our fields
    for id in ("new", "later"):
        world.listing(id, "bedroom")
    portal_index.save("new")
    (only := tmp_path / "ids").write_text("later\n")
    told = foretold(world, "--ids", str(only))["counts"]  # which does not see that one was sold
    assert told == {"written": 2, "removed": 0, "awaiting": 2, "refused": 0}
    told = foretold(world)["counts"]
    assert told == {"written": 2, "removed": 0, "awaiting": 2, "refused": 0}
    assert counts(world.run()) == told
    portal_index.save("house")
    told = foretold(world)["counts"]
    assert told == {"written": 1, "removed": 0, "awaiting": 1, "refused": 0}
    assert counts(world.run()) == told
    portal_index.save("flat")  # without our fields
    for options in ((), ("--ids", str(only))):
        told = foretold(world, *options)["counts"]
        assert told == {"written": 1, "removed": 0, "awaiting": 1, "refused": 0}
    assert counts(world.run()) == told


def test_photos_that_a_run_would_not_ask_for_are_not_asked_for(world: World) -> None:
    """Two listings have versions of their own of one URL; the one enriched first is to be enriched again."""
    url = world.photo("kitchen", 1)
    for id in ("first", "second"):
        world.portal.add(id, [url], version=id)
        world.run()
    world.portal.execute("UPDATE enrichment.listing SET status = 'pending', requested = 2 WHERE id = 'first'")
    world.photos.forget()
    told = foretold(world)["counts"]
    assert world.requests() == 0
    assert counts(world.run()) == told and world.requests() == 0


def test_what_was_counted_already_when_a_dry_run_ends_is_not_counted_again(world: World) -> None:
    """A run that stops itself gives back what is in hand, also what was completed just now."""
    with open_services(world.settings()) as services:
        told = Rehearsed(Discovery(), 20)
        queue = RehearsalQueue(
            services, told, iter([Prospect("a", enriched=True), Prospect("b", enriched=True)])
        )
        claims = queue.claim(2)
        queue.complete([result(claims[0])])
        queue.release(claims)
    assert told.counts.written == 1
