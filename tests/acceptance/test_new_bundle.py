"""A new bundle: what it would change is foretold, its roll-out stops itself, and going back is a setting."""

import json
from pathlib import Path
from typing import Any

import pytest

from enrich.errors import FlipLimitError, UsageError
from tests.support.bundles import binary_head, bundle_with, make_bundle, room_head
from tests.support.harness import World, assert_same

STRICT = {"true": 0.999999, "false": 0.1}


@pytest.fixture
def stricter(tmp_path: Path) -> Path:
    """The test bundle, but hardly any photo is enough for a balcony."""
    heads = [binary_head("balcony") | {"thresholds": STRICT}, binary_head("fireplace"), room_head()]
    return make_bundle(tmp_path / "stricter", heads=heads).folder


@pytest.fixture
def enriched(world: World) -> World:
    """Twenty homes with the first bundle, ten of them with a balcony."""
    for number in range(20):
        shown = ["kitchen", "balcony"] if number < 10 else ["kitchen"]
        world.listing(f"home-{number:02}", *shown, city="Solna", price=5)
    assert world.run().exit_code == 0
    return world


def with_balcony(world: World) -> int:
    return sum(document.get("has_balcony") is True for document in world.documents().values())


def foretold(world: World, *options: str) -> Any:
    done = world.enrich_here("backfill", "--stale-bundle", "--dry-run", "--json", *options)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_what_would_change_is_foretold_and_nothing_is_written(enriched: World, stricter: Path) -> None:
    enriched.fixed["bundle"] = stricter
    enriched.photos.forget()
    before, state = enriched.documents(), enriched.portal.execute("SELECT * FROM enrichment.listing")
    told = foretold(enriched)
    assert (told["stale"], told["sampled"], told["failed"]) == (20, 20, 0)
    assert told["changed"] == {"has_balcony": 10}
    assert told["shares"] == {"has_balcony": {"true → unknown": 0.5}}
    example = told["examples"][0]
    assert example["change"] == "true → unknown" and example["evidence"].endswith(
        f"/{example['listing_id']}/1.jpg"
    )
    assert enriched.requests() == 0, "features of all photos are kept"
    assert enriched.documents() == before
    assert enriched.portal.execute("SELECT * FROM enrichment.listing") == state

    enriched.backfill(stale_bundle=True)
    assert with_balcony(enriched) == 0, "it came as foretold"
    assert foretold(enriched)["stale"] == 0


def test_a_sample_is_drawn_the_same_every_time_and_shown_to_people(enriched: World, stricter: Path) -> None:
    enriched.fixed["bundle"] = stricter
    first, second = (foretold(enriched, "--sample", "6") for _ in range(2))
    assert first == second and first["sampled"] == 6 and first["stale"] == 20
    shown = enriched.enrich_here("backfill", "--stale-bundle", "--dry-run").stdout
    assert "has_balcony" in shown and "true → unknown" in shown and "50.0%" in shown
    assert "Nothing was written" in shown


def test_what_would_change_for_listings_named_in_another_spelling_is_foretold(
    world: World, stricter: Path, tmp_path: Path
) -> None:
    world.portal.execute("ALTER TABLE listings ALTER id TYPE int USING id::int")
    world.listing("7", "kitchen", "balcony")
    assert world.run().exit_code == 0
    world.fixed["bundle"] = stricter
    named = tmp_path / "ids.txt"
    named.write_text("007\n")
    told = foretold(world, "--ids", str(named))
    assert told["sampled"] == 1 and told["changed"] == {"has_balcony": 1}


def test_what_a_person_said_does_not_flip(enriched: World, stricter: Path) -> None:
    for number in range(10):
        enriched.portal.execute(
            "INSERT INTO enrichment.override (listing_id, field, value) VALUES (:id, 'has_balcony', 'true')",
            id=f"home-{number:02}",
        )
    enriched.fixed["bundle"] = stricter
    assert foretold(enriched)["changed"] == {}
    enriched.backfill(stale_bundle=True, max_flips="0")
    assert with_balcony(enriched) == 10


def test_what_a_removed_head_takes_off_counts_and_what_an_added_one_brings_is_only_told(
    enriched: World, tmp_path: Path
) -> None:
    enriched.fixed["bundle"] = bundle_with(tmp_path / "look", (room_head() | {"name": "look"}, "room"))
    enriched.backfill(stale_bundle=True, max_flips="0")  # only adds

    enriched.fixed["bundle"] = bundle_with(tmp_path / "view", (binary_head("view"), "balcony"))
    told = foretold(enriched)
    assert told["changed"] == {"look_types": 20, "has_view": 10}
    assert told["shares"]["look_types"] == {"loses kitchen": 1.0}
    assert told["shares"]["has_view"] == {"unknown → true": 0.5}
    assert (told["lacking"], told["new"]) == (["look_types"], ["has_view"])
    shown = " ".join(enriched.enrich_here("backfill", "--stale-bundle", "--dry-run").stdout.split())
    assert "The bundle has no head any more for look_types" in shown
    assert "New is has_view; --max-flips does not count it" in shown
    with pytest.raises(FlipLimitError, match="look_types would change for more than 19 of the 20"):
        enriched.backfill(stale_bundle=True, max_flips="19")
    enriched.backfill(stale_bundle=True, max_flips="20")

    enriched.fixed["bundle"] = make_bundle(tmp_path / "plain").folder
    with pytest.raises(FlipLimitError, match="has_view would change for more than 9 of the 20"):
        enriched.backfill(stale_bundle=True, max_flips="9")


@pytest.mark.parametrize("bound", ["4", "20%"])
def test_the_roll_out_ends_itself_before_more_filters_change(
    enriched: World, stricter: Path, bound: str
) -> None:
    old = enriched.fixed["bundle"]
    before = enriched.documents()
    enriched.fixed["bundle"] = stricter
    with pytest.raises(FlipLimitError, match="has_balcony would change for more than 4 of the 20") as raised:
        enriched.backfill(stale_bundle=True, max_flips=bound)
    assert raised.value.exit_code == 3
    assert with_balcony(enriched) >= 10 - 4
    assert set(enriched.statuses().values()) == {"done"}
    assert "ended" in enriched.enrich_here("status").stdout

    kept = with_balcony(enriched)
    assert enriched.run().exit_code == 0
    assert with_balcony(enriched) == kept, "a nightly run does not go on with it"
    enriched.portal.execute("UPDATE listings SET price = 7 WHERE id = 'home-00'")
    enriched.run()
    assert with_balcony(enriched) == kept, "nor for a new price"

    enriched.fixed["bundle"] = old
    enriched.photos.forget()
    enriched.backfill(stale_bundle=True)  # going back is a setting
    assert enriched.requests() == 0
    after = enriched.documents()
    after["home-00"]["price"] = before["home-00"]["price"]
    assert_same(after, before)


def test_a_roll_out_that_ended_itself_says_so_beside_what_the_removal_guard_says(
    enriched: World, stricter: Path
) -> None:
    enriched.fixed |= {"bundle": stricter, "max_removed": "0"}
    enriched.portal.execute("UPDATE listings SET active = false WHERE id = 'home-19'")
    with pytest.raises(FlipLimitError, match="has_balcony would change") as raised:
        enriched.backfill(stale_bundle=True, max_flips="4")
    assert "1 of 20 documents would be removed" in str(raised.value)


def test_a_larger_bound_goes_on(enriched: World, stricter: Path) -> None:
    enriched.fixed["bundle"] = stricter
    with pytest.raises(FlipLimitError):
        enriched.backfill(stale_bundle=True, max_flips="2")
    report = enriched.backfill(stale_bundle=True, max_flips="60%")
    assert report.exit_code == 0 and with_balcony(enriched) == 0


def test_the_bound_holds_for_another_process_that_takes_the_listings(enriched: World, stricter: Path) -> None:
    """The one who asked died right after marking; the next nightly run finds the listings waiting."""
    enriched.fixed["bundle"] = stricter
    killed = enriched.script(
        "import os, jobs.run.backfill as b\n"
        "b.enrich_and_publish = lambda *a, **k: os._exit(9)\n"
        "from jobs.cli.commands import main; main()",
        "backfill",
        "--stale-bundle",
        "--max-flips",
        "3",
    )
    assert killed.returncode == 9, killed.stderr
    assert set(enriched.statuses().values()) == {"pending"}
    report = enriched.run(wait=True)
    assert report.exit_code == 0
    assert with_balcony(enriched) >= 10 - 3
    assert set(enriched.statuses().values()) == {"done"}


def test_listings_that_changed_meanwhile_are_enriched_all_the_same(enriched: World, stricter: Path) -> None:
    enriched.fixed["bundle"] = stricter
    enriched.portal.add_photo("home-00", 9, enriched.photo("bedroom", 5))
    with pytest.raises(FlipLimitError):
        enriched.backfill(stale_bundle=True, max_flips="0")
    enriched.run()
    document = enriched.documents()["home-00"]
    assert "bedroom" in document["room_types"] and document.get("has_balcony") is None
    assert with_balcony(enriched) == 9


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"max_flips": "2%"}, "say --stale-bundle"),
        ({"max_flips": "some", "stale_bundle": True}, "--max-flips some: a share such as 5%"),
        ({"max_flips": "-1", "stale_bundle": True}, "--max-flips -1"),
    ],
)
def test_a_bound_that_makes_no_sense_is_said(world: World, options: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        world.backfill(**options)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--sample", "5"], "say --dry-run, too"),
        (["--dry-run", "--max-flips", "2%"], "leave out --max-flips"),
        (["--dry-run", "--ray", "local", "--revalidate"], "leave out --revalidate and --ray"),
    ],
)
def test_an_option_that_would_have_no_effect_is_refused_before_anything_is_done(
    enriched: World, stricter: Path, options: list[str], message: str
) -> None:
    enriched.fixed["bundle"] = stricter
    refused = enriched.enrich_here("backfill", "--stale-bundle", *options)
    assert refused.returncode == 2 and message in refused.stderr
    assert enriched.portal.execute("SELECT FROM enrichment.backfill") == []
