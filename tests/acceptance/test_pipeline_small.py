"""Whole runs at the edges: one photo, no photo, many, a stage that breaks, parts of the work, rehearsal."""

import json
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest import mock

import pytest

from enrich.model.aggregate import aggregate
from enrich.pipeline.figures import Figures
from jobs.run.dry_run import rehearse
from jobs.run.nightly import RunOptions
from jobs.run.stop import Stop
from tests.support.bundles import draw_bytes, make_bundle
from tests.support.harness import CHECKOUT, World, assert_same
from tests.support.photo_server import FINE, Answer, status

STAGES = {
    "fetch": "enrich.photos.http.HttpTransport.fetch",
    "decode": "enrich.pipeline.photo.decode",
    "score": "enrich.model.openvino_engine.OpenVinoEngine.score",
    "save": "enrich.state.listings.Listings.complete",
}


def test_one_photo_does_not_wait_for_a_full_batch(world: World) -> None:
    world.listing("only", "balcony")
    report = world.run(settings={"batch_size": 32})
    assert (report.figures.scored, report.published.written, report.exit_code) == (1, 1, 0)
    assert world.documents()["only"]["has_balcony"] is True


def test_a_listing_without_photos_is_processed_and_nothing_is_known_of_it(world: World) -> None:
    world.listing("bare", city="Solna")
    report = world.run()
    assert report.exit_code == 0 and world.statuses() == {"bare": "done"}
    document = world.documents()["bare"]
    assert document["photo_count"] == document["enrichment"]["photos_seen"] == 0
    assert not any(name.startswith(("has_", "room_types")) for name in document)


def test_seen_and_nothing_found_is_told_from_not_processed(world: World) -> None:
    world.listing("plain", *["other"] * 8)
    world.run()
    document = world.documents()["plain"]
    assert document["room_types"] == [] and document["enrichment"]["photos_seen"] == 8
    assert document["has_balcony"] is False and document["has_fireplace"] is False


def test_too_few_photos_to_say_no(world: World) -> None:
    world.listing("few", *["other"] * 7)
    world.run()
    assert "has_balcony" not in world.documents()["few"]


@pytest.fixture
def two_listings(world: World) -> World:
    world.listing("house", "kitchen", "balcony")
    world.listing("flat", "bedroom")
    return world


def check_given_back(world: World) -> None:
    """No lease is held, the run counts as broken, and the next one does all the work."""
    rows = world.portal.execute("SELECT status, lease_token, attempts FROM enrichment.listing")
    assert {tuple(row) for row in rows} <= {("pending", None, 1), ("pending", None, 0)}
    assert world.portal.execute("SELECT exit_code FROM enrichment.run") == [(70,)]
    mended = world.run()
    assert mended.exit_code == 0 and mended.published.written == 2
    assert world.documents()["house"]["has_balcony"] is True


@pytest.mark.parametrize("stage", STAGES)
def test_a_stage_that_raises_ends_the_run_and_gives_the_leases_back(two_listings: World, stage: str) -> None:
    broken = mock.patch(STAGES[stage], side_effect=RuntimeError("the stage broke"))
    with broken, pytest.raises(RuntimeError, match="the stage broke"):
        two_listings.run()
    check_given_back(two_listings)


def test_a_stage_that_raises_ends_the_command_with_an_error(two_listings: World) -> None:
    code = (
        "import sys; from unittest import mock; from jobs.cli.commands import main\n"
        "sys.argv = ['enrich', 'run']\n"
        f"with mock.patch({STAGES['decode']!r}, side_effect=RuntimeError('the stage broke')): main()"
    )
    command = [sys.executable, "-c", code]
    environment = two_listings.environment()
    broken = subprocess.run(command, cwd=CHECKOUT, env=environment, capture_output=True, text=True)
    assert broken.returncode == 70 and "the stage broke" in broken.stderr
    assert "Traceback" not in broken.stderr
    check_given_back(two_listings)


def test_what_breaks_on_one_listing_quarantines_that_listing(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    def picky(bundle: Any, results: Any, least: int) -> Any:
        if any("/cursed/" in result.photo.url for result in results):
            raise ValueError("cannot make sense of it")
        return aggregate(bundle, results, least)

    monkeypatch.setattr("enrich.pipeline.listing.aggregate", picky)
    world.listing("cursed", "kitchen")
    world.listing("fine", "bedroom")
    report = world.run()
    assert report.exit_code == 1 and report.figures.quarantined == 1
    assert world.statuses() == {"cursed": "quarantined", "fine": "done"}
    assert "cannot make sense of it" in world.portal.state("cursed").error
    assert world.documents().keys() == {"fine"}
    monkeypatch.undo()
    assert world.run().exit_code == 0  # known trouble is no news
    world.enrich_here("retry", "cursed")
    world.run()
    assert world.documents()["cursed"]["room_types"] == ["kitchen"]


def test_a_listing_that_cannot_be_saved_costs_no_other(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    def odd(bundle: Any, results: Any, least: int) -> Any:
        found = aggregate(bundle, results, least)
        cursed = any("/cursed/" in result.photo.url for result in results)
        return replace(found, fields={**found.fields, "odd": float("nan")}) if cursed else found

    monkeypatch.setattr("enrich.pipeline.listing.aggregate", odd)
    for id in ("one", "cursed", "two", "three"):
        world.listing(id, "kitchen")
    report = world.run()
    figures = report.figures
    assert (report.exit_code, figures.quarantined, figures.listings, figures.stale) == (1, 1, 3, 0)
    assert world.statuses() == {
        id: "quarantined" if id == "cursed" else "done" for id in ("one", "cursed", "two", "three")
    }
    assert world.portal.state("cursed").error.startswith("save: ")
    assert world.documents().keys() == {"one", "two", "three"}


def slowly(answer: Answer) -> None:
    """As most photo hosts answer, so that requests pile up where nothing limits them."""
    time.sleep(0.02)
    FINE(answer)


def test_many_photos_in_one_listing_with_few_requests_at_once(world: World) -> None:
    many = 300
    kinds = ["other"] * (many - 1) + ["balcony"]
    urls = [world.photos.add(f"/{n}.jpg", draw_bytes(kind, n, (64, 64))) for n, kind in enumerate(kinds)]
    for n in range(many):
        world.photos.behave(f"/{n}.jpg", slowly)
    world.portal.add("palace", urls)
    report = world.run(settings={"fetch_concurrency": 3, "batch_size": 8})
    assert world.requests() == many and world.photos.busiest == 3
    assert report.figures.photos == report.figures.scored == many
    document = world.documents()["palace"]
    assert document["photo_count"] == document["enrichment"]["photos_seen"] == many
    assert document["evidence"]["balcony"]["position"] == many - 1


def test_a_person_outranks_the_model_now_and_later(world: World, tmp_path: Path) -> None:
    world.listing("house", "kitchen", "balcony")
    world.run()
    said = world.enrich_here("override", "house", "has_balcony=false", "room_types=bathroom,kitchen")
    assert said.returncode == 0, said.stderr
    world.publish()

    def check() -> None:
        document = world.documents()["house"]
        assert document["has_balcony"] is False and document["room_types"] == ["bathroom", "kitchen"]
        assert document["balcony_confidence"] == 0.0
        evidence = document["evidence"]["balcony"]
        assert evidence["override"] is True and evidence["model_confidence"] > 0.9

    check()
    world.portal.add_photo("house", 2, world.photo("bedroom", 1, "/house/2.jpg"))
    assert world.run().figures.listings == 1
    check()
    world.fixed["bundle"] = make_bundle(tmp_path / "next", name="next").folder
    assert world.backfill(stale_bundle=True).figures.listings == 1
    check()
    assert (
        world.enrich_here("override", "house", "--clear", "has_balcony", "--clear", "room_types").returncode
        == 0
    )
    world.publish()
    assert world.documents()["house"]["has_balcony"] is True
    assert world.documents()["house"]["room_types"] == ["bedroom", "kitchen"]


def test_what_is_said_to_be_left_of_a_run_is_no_more_than_its_limit(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[int] = []

    @contextmanager
    def shown(figures: Figures, remaining: Callable[[], int], interval: float) -> Iterator[None]:
        told.append(remaining())
        yield
        told.append(remaining())

    monkeypatch.setattr("jobs.run.session.shown", shown)
    for id in "abc":
        world.listing(id, "kitchen")
    world.run(limit=2)
    world.run()
    assert told == [2, 0, 1, 0]


def test_limit_takes_so_many_and_the_next_run_goes_on(world: World) -> None:
    for id in "abcde":
        world.listing(id, "kitchen")
    assert world.run(limit=2).published.written == 2
    assert world.documents().keys() == {"a", "b"} and world.requests() == 2
    assert world.run().published.written == 3
    assert world.documents().keys() == set("abcde") and world.requests() == 5


def test_ids_restrict_discovery_and_enrichment(world: World) -> None:
    for id in "abc":
        world.listing(id, "kitchen")
    assert world.run(ids=["b", "nowhere"]).exit_code == 0
    assert world.documents().keys() == {"b"} and world.statuses() == {"b": "done"}
    world.run()
    for id in "abc":
        world.portal.execute("UPDATE listings SET price = 7, active = id <> 'b' WHERE id = :id", id=id)
    assert world.run(ids=["a", "b"]).published.removed == 1
    prices = {id: document.get("price") for id, document in world.documents().items()}
    assert prices == {"a": 7, "c": None}


def contents(world: World) -> dict[str, list[Any]]:
    """Every row of every table of ours."""
    tables = world.portal.execute("SELECT tablename FROM pg_tables WHERE schemaname = 'enrichment'")
    return {
        name: sorted(map(str, world.portal.execute(f"SELECT to_jsonb(t), t.xmin FROM enrichment.{name} t")))
        for (name,) in tables
    }


def test_dry_run_writes_nothing_and_foretells_what_the_run_writes(world: World) -> None:
    for id in "abcd":
        world.listing(id, "kitchen", "balcony", city="Solna", price=1)
    world.run()
    assert world.enrich_here("override", "a", "has_fireplace=true").returncode == 0
    world.publish()
    world.portal.add_photo("a", 2, world.photo("bedroom", 1, "/a/2.jpg"))
    world.portal.execute("UPDATE listings SET price = 2 WHERE id = 'b'")
    world.portal.remove("c")
    world.listing("new", "bathroom", "fireplace", city="Lund")
    state, index, writes = contents(world), world.versions(), world.writes()

    rehearsed = world.enrich_here("run", "--dry-run", "--json")
    assert rehearsed.returncode == 0, rehearsed.stderr
    assert (contents(world), world.versions(), world.writes()) == (state, index, writes)
    foretold = json.loads(rehearsed.stdout)
    assert foretold["removed"] == ["c"]
    documents = {document["listing_id"]: document for document in foretold["documents"]}
    assert documents.keys() == {"a", "b", "new"}
    for document in documents.values():
        for name in ("revision", "enriched_at"):
            document["enrichment"].pop(name)

    report = world.run()
    assert (report.published.written, report.published.removed) == (3, 1)
    after = world.documents()
    assert after.keys() == {"a", "b", "d", "new"}
    assert_same({id: after[id] for id in documents}, documents)


def test_dry_run_before_the_first_run_creates_no_index(world: World) -> None:
    world.listing("house", "kitchen")
    (document,) = rehearse(world.settings(), RunOptions(), Stop()).documents
    assert document["listing_id"] == "house" and document["room_types"] == ["kitchen"]
    assert not world.elasticsearch.indices.exists(index=f"{world.index}*", allow_no_indices=False)
    assert world.statuses() == {}


def test_a_failing_photo_host_stops_the_run_and_is_not_held_against_the_listings(world: World) -> None:
    many = 260
    body = draw_bytes("kitchen")
    for number in range(many):
        path = f"/{number:03}.jpg"
        world.photos.add(path, body)
        world.photos.behave(path, status(500))
        world.portal.add(f"{number:03}", [world.photos.url(path)])
    stopped = world.enrich("run")
    assert stopped.returncode == 3
    assert "ENRICH_ERROR_BUDGET" in stopped.stderr and "server_error" in stopped.stderr
    assert "Traceback" not in stopped.stderr
    assert 200 <= world.requests() < many
    assert world.portal.execute("SELECT exit_code FROM enrichment.run") == [(3,)]
    held = world.portal.execute("SELECT status, attempts, transient_rounds FROM enrichment.listing")
    assert {row.attempts for row in held} == {row.transient_rounds for row in held} == {0}
    assert Counter(row.status for row in held).keys() <= {"pending", "retry"}

    for number in range(many):
        world.photos.behave(f"/{number:03}.jpg", FINE)
    recovered = world.run()
    assert recovered.exit_code == 0
    assert {tuple(d["room_types"]) for d in world.documents().values()} == {("kitchen",)}
    assert len(world.documents()) == many
