"""The commands that people use day by day, on a portal with a few homes."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.support.bundles import binary_head, make_bundle, room_head
from tests.support.command import enrich_here
from tests.support.harness import World
from tests.support.photo_server import FINE, status

Command = Callable[..., Any]


@pytest.fixture
def enrich(world: World) -> Command:
    """Run a command that succeeds: what it printed, parsed where --json was asked for."""
    world.listing("1", "balcony", "kitchen", city="Solna", price=100)
    world.listing("2", "fireplace", "kitchen", "bathroom", city="Solna", price=200)
    world.listing("3", "balcony", "fireplace", city="Lund", price=300)
    world.listing("4", "bedroom", city="Lund", price=400)

    def run(*arguments: str, code: int = 0) -> Any:
        done = world.enrich_here(*arguments)
        assert done.returncode == code, done.stdout + done.stderr
        if code == 2:
            return done.stderr
        return json.loads(done.stdout) if "--json" in arguments else done.stdout

    return run


def found(enrich: Command, *arguments: str) -> set[str]:
    return {document["listing_id"] for document in enrich("search", "--json", *arguments)["hits"]}


def test_search_filters_as_a_buyer_would(enrich: Command, world: World) -> None:
    enrich("run")
    world.elasticsearch.indices.refresh(index=world.index)
    assert found(enrich) == {"1", "2", "3", "4"}
    assert found(enrich, "--has", "balcony") == {"1", "3"}
    assert found(enrich, "--has", "balcony", "--has", "fireplace") == {"3"}
    assert found(enrich, "--room", "kitchen") == {"1", "2"} == found(enrich, "--type", "room=kitchen")
    assert found(enrich, "--room", "kitchen", "--room", "bathroom") == {"2"}
    assert found(enrich, "--has", "balcony", "--where", "city=Solna") == {"1"}
    assert found(enrich, "--where", "price=400", "--where", "city=Lund") == {"4"}
    assert found(enrich, "--has", "balcony", "--room", "bathroom") == set()

    limited = enrich("search", "--json", "--limit", "1")
    assert limited["total"] == 4 and len(limited["hits"]) == 1
    table = enrich("search", "--has", "balcony")
    evidence = world.documents()["1"]["evidence"]["balcony"]
    assert evidence["position"] == 0 and evidence["url"] == world.photos.url("/1/0.jpg")
    assert f"photo 0 {evidence['confidence']:.2f} {evidence['url']}" in table
    assert "Solna" in table and "2 listings with balcony." in table

    assert "balcony, fireplace" in enrich("search", "--has", "sauna", code=2)
    assert "bathroom" in enrich("search", "--room", "attic", code=2)
    assert "city" in enrich("search", "--where", "town=Solna", code=2)


def test_a_persons_word_outranks_the_model_until_it_is_cleared(enrich: Command, world: World) -> None:
    enrich("run")
    enrich("override", "1", "has_balcony=false", "room_types=bathroom", "--note", "seen on site")
    enrich("publish")
    document = world.documents()["1"]
    assert document["has_balcony"] is False and document["room_types"] == ["bathroom"]
    assert document["evidence"]["balcony"].keys() == {"override", "model_confidence"}
    sure = {"range": {"balcony_confidence": {"gte": 0.9}}}  # the stricter filter of docs/index.md
    assert document["balcony_confidence"] == 0.0 and "1" not in world.matching(sure)

    listing = enrich("show", "1", "--json")
    assert listing["attributes"]["fields"]["has_balcony"] is False
    assert listing["model_attributes"]["fields"]["has_balcony"] is True
    assert {o["field"]: (o["value"], o["note"]) for o in listing["overrides"]} == {
        "has_balcony": (False, "seen on site"), "room_types": (["bathroom"], "seen on site")
    }  # fmt: skip
    shown = enrich("show", "1")
    assert "a person" in shown and "seen on site" in shown and "yes from 0.9" in shown
    assert "room_types was set to bathroom by" in shown

    enrich("override", "1", "--clear", "has_balcony", "--clear", "room_types")
    assert "waits for the next publish" in enrich("show", "1")
    assert enrich("override", "1", "--clear", "has_balcony") == "1: has_balcony had no override\n"
    enrich("publish")
    document = world.documents()["1"]
    assert document["has_balcony"] is True and document["room_types"] == ["kitchen"]
    assert "1" in world.matching(sure)
    assert "'9'" in enrich("override", "9", "has_balcony=true", code=2)


def test_check_asks_for_no_photo_of_rows_without_a_url(enrich: Command, world: World) -> None:
    for position in range(2, 12):
        world.portal.execute(
            "INSERT INTO listing_images (listing_id, position) VALUES ('1', :position)", position=position
        )
    assert "✓ photos" in enrich("check")


def test_what_a_person_said_of_a_listing_that_waits_is_shown(enrich: Command) -> None:
    enrich("run", "--limit", "1")
    (waits,) = [id for id in ("2", "3", "4") if "Not enriched yet" in enrich("show", id)][:1]
    enrich("override", waits, "has_balcony=false", "--note", "seen on site")
    shown = enrich("show", waits)
    assert "has_balcony was set to false by" in shown and "seen on site" in shown


def test_show_says_which_photo_decided_and_what_failed(enrich: Command, world: World) -> None:
    broken = world.photos.behave("/broken.jpg", status(500))
    world.portal.add("5", [world.photo("balcony", 77), broken], city="Lund")
    enrich("run")
    listing = enrich("show", "5", "--json")
    good, bad = listing["photos"]
    assert good["status"] == "ok" and good["probabilities"]["balcony"] > 0.9
    evidence = listing["attributes"]["evidence"]["balcony"]
    assert evidence["position"] == 0 and evidence["url"] == good["url"]
    assert evidence["confidence"] == pytest.approx(good["probabilities"]["balcony"], abs=1e-3)
    assert (bad["status"], bad["failures"], bad["probabilities"]) == ("server_error", 1, {})
    assert bad["next_try"] and listing["status"] == "retry" and listing["not_before"]
    assert listing["revision"] == listing["published_revision"]
    text = enrich("show", "5")
    assert "too few photos seen: 1 of the 8 that no takes" in text  # of a fireplace
    assert "server_error" in text and "next try" in text and "1 of 2 photos seen, 1 failed" in text
    assert "'9'" in enrich("show", "9", code=2)


def test_status_counts_listings_documents_and_runs(enrich: Command, world: World) -> None:
    assert "No run yet" in enrich("status")
    world.photos.behave("/4/0.jpg", status(500), FINE)
    enrich("run")
    enrich("override", "1", "has_balcony=false")
    told = enrich("status", "--json")
    assert told["listings"] == {"done": 3, "retry": 1}
    assert told["outbox"] == {"unpublished": 1, "awaiting": 0, "refused": 0}
    assert told["bundles"] == {told["bundle"]["id"]: 4} and told["stale_listings"] == 0
    (run,) = told["runs"]
    assert (run["kind"], run["exit_code"], run["figures"]["photos"]) == ("run", 0, 8)
    assert told["bundle"]["precision_basis"] == {"balcony": "not stated", "fireplace": "not stated"}
    text = enrich("status")
    assert "balcony: not stated" in text
    assert "3 done" in text and "1 in retry" in text and "1 unpublished" in text
    assert "server_error 1" in text and "test" in text


def test_a_bundle_says_its_limits_once_a_run_and_what_backs_its_precision(
    enrich: Command, world: World, tmp_path: Path
) -> None:
    heads = [binary_head("balcony"), binary_head("fireplace"), room_head()]
    heads[0]["metrics"] = {"true": {"basis": "estimate"}}
    heads[1]["metrics"] = {"true": {"basis": "homes"}}
    made = make_bundle(tmp_path / "bundle", heads=heads)
    manifest = {**made.manifest, "notice": "trained on research-only photos"}
    (made.folder / "manifest.json").write_text(json.dumps(manifest))
    environment = world.environment(bundle=str(made.folder))
    done = enrich_here(environment, "run")
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("trained on research-only photos") == 1
    told = enrich_here(environment, "status").stdout
    assert "balcony: an estimate" in told
    assert "fireplace: backed by real homes" in told


def test_retry_brings_a_listing_right_without_waiting(enrich: Command, world: World) -> None:
    world.photos.behave("/4/0.jpg", status(410), FINE)  # 410: for good, says the photo host
    enrich("run")
    assert world.documents()["4"]["enrichment"]["photos_failed"] == 1
    assert "'9'" in enrich("retry", "4", "9", code=2)
    enrich("run")
    assert world.requests("/4/0.jpg") == 1  # neither the failed retry nor another run asks again
    assert enrich("retry", "4") == "1 listings will be tried again by the next run\n"
    enrich("run")
    assert world.documents()["4"]["room_types"] == ["bedroom"]


def test_a_dry_run_prints_documents_and_deletes_and_writes_nothing(enrich: Command, world: World) -> None:
    rehearsed = enrich("run", "--dry-run", "--json")
    assert world.statuses() == {} and world.documents() == {}
    enrich("run")
    for document in rehearsed["documents"]:
        for name in ("revision", "enriched_at"):
            del document["enrichment"][name]
    assert {document["listing_id"]: document for document in rehearsed["documents"]} == world.documents()
    world.portal.remove("4")
    text = enrich("run", "--dry-run")
    assert "delete 4\n" in text and "would write 0 documents and delete 1" in text
    assert "4" in world.documents()


def test_ids_and_limit_restrict_a_run(enrich: Command, world: World, tmp_path: Any) -> None:
    (tmp_path / "ids").write_text("2\n3\n")
    report = enrich("run", "--ids", str(tmp_path / "ids"), "--limit", "1", "--json")
    assert report["listings"] == 1 and report["documents"]["written"] == 1
    assert set(world.documents()) < {"2", "3"}
    assert enrich("run", "--json")["listings"] == 3


def test_ids_that_no_listing_has_are_named(world: World, tmp_path: Path) -> None:
    world.listing("2", "kitchen")
    (tmp_path / "ids").write_text("2\nzz\nyy\n")
    for command in ("run", "backfill", "rescore"):
        ended = world.enrich(command, "--ids", str(tmp_path / "ids"))
        assert ended.returncode == 0, ended.stderr
        assert "no listing has 2 of the ids in --ids, such as zz" in ended.stderr, command


def test_show_says_which_answers_another_setting_made(world: World) -> None:
    world.listing("9", "kitchen", "balcony")
    assert world.run(settings={"min_photos_false": 1}).exit_code == 0
    because = json.loads(world.enrich_here("show", "9", "--json").stdout)["why"]
    assert because["fireplace"].endswith(
        "(the answer kept is of another ENRICH_MIN_PHOTOS_FALSE; enrich backfill renews it)"
    )
    assert "kept" not in because["balcony"]
    assert world.backfill().exit_code == 0
    because = json.loads(world.enrich_here("show", "9", "--json").stdout)["why"]
    assert because["fireplace"].endswith("too few photos seen: 2 of the 8 that no takes")
