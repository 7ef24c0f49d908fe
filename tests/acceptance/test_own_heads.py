"""A portal's own heads go through every command by the manifest alone: one more `has_…`, one more of classes.

Most of it with a bundle made by hand, whose answers are known exactly; then five heads from `fit --head`.
"""

import csv
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from enrich.model.bundle import load_bundle
from tests.support.bundles import binary_head, bundle_with, make_bundle
from tests.support.evaluating import OTHER, home_rows, run_train
from tests.support.evaluating import draw_homes as draw_plain_homes
from tests.support.fitting import HOMES, condition, draw_homes, fitted, seaview
from tests.support.harness import World

CONDITION = {
    "name": "condition",
    "kind": "multiclass",
    "temperature": 1.0,
    "metrics": {},
    "classes": [  # in the order of the test bundle's rooms, like which it answers
        {"name": "renovated", "publish": True, "threshold": 0.6},
        {"name": "worn", "publish": True, "threshold": 0.6},
        {"name": "as_new", "publish": True, "threshold": 0.6},
        {"name": "unclear", "publish": False, "threshold": 0.6},
    ],
}
SEAVIEW = binary_head("seaview")


@pytest.fixture
def portal(world: World, tmp_path: Path) -> World:
    world.fixed["bundle"] = bundle_with(tmp_path, (SEAVIEW, "balcony"), (CONDITION, "room"))
    world.listing("sea", "kitchen", "balcony", city="Solna")
    world.listing("town", "bathroom", "bedroom", city="Lund")
    return world


def test_check_names_the_columns_that_the_views_lack_until_the_next_migrate(portal: World) -> None:
    def told() -> str:
        done = portal.enrich_here("check")
        assert done.returncode == 0, done.stdout
        return done.stdout

    lacking = "the views lack has_seaview, seaview_confidence, condition_types: `enrich migrate` adds them"
    assert lacking in told()
    assert portal.enrich_here("migrate").returncode == 0
    assert "the views lack" not in told()


def test_they_go_through_every_command(portal: World, tmp_path: Path) -> None:
    def said(*arguments: str) -> str:
        done = portal.enrich_here(*arguments)
        assert done.returncode == 0, done.stderr
        return done.stdout

    def found(*arguments: str) -> list[str]:
        portal.elasticsearch.indices.refresh(index=portal.index)
        told = json.loads(said("search", *arguments, "--json"))
        return [document["listing_id"] for document in told["hits"]]

    said("migrate")
    said("run")
    assert portal.documents()["sea"]["condition_types"] == ["renovated"]
    assert portal.documents()["town"]["condition_types"] == ["as_new", "worn"]

    assert found("--has", "seaview") == ["sea"]
    assert found("--type", "condition=worn") == ["town"]
    assert found("--has", "seaview", "--type", "condition=worn") == []

    shown = json.loads(said("show", "sea", "--json"))
    assert [photo["probabilities"]["condition"].keys() for photo in shown["photos"]] == [
        {"renovated", "worn", "as_new", "unclear"}
    ] * 2
    text = said("show", "sea")
    assert all(word in text for word in ("seaview", "condition", "renovated"))

    status = json.loads(said("status", "--json"))
    assert "seaview" in status["bundle"]["precision_basis"]

    said("override", "town", "condition_types=renovated", "has_seaview=true", "--photo", "1", "--by", "ann")
    said("publish")
    assert found("--type", "condition=renovated") == ["sea", "town"]
    assert set(found("--has", "seaview")) == {"sea", "town"}
    assert "condition_types" in said("override", "--list")

    said("labels", "export", str(tmp_path / "labels"))
    with (tmp_path / "labels" / "manifest.csv").open(encoding="utf-8") as file:
        rows = {(row["group"], row["position"]): row for row in csv.DictReader(file)}
    assert rows["town", "1"]["seaview"] == "1"
    assert "condition" in rows["town", "1"]

    view = "SELECT position, condition_type, seaview_probability FROM enrichment.photo_attributes"
    photos = portal.portal.execute(f"{view} WHERE listing_id = 'sea' ORDER BY position")
    assert [photo.condition_type for photo in photos] == ["renovated", "unclear"]
    assert photos[0].seaview_probability < 0.1 < 0.9 < photos[1].seaview_probability
    listings = portal.portal.execute(
        "SELECT has_seaview, condition_types FROM enrichment.listing_attributes WHERE id = 'sea'"
    )
    assert [tuple(row) for row in listings] == [(True, ["renovated"])]

    strict = SEAVIEW | {"thresholds": {"true": 0.999999, "false": 0.1}}
    picky = CONDITION | {"classes": [one | {"threshold": 0.999999} for one in CONDITION["classes"]]}
    portal.fixed["bundle"] = bundle_with(tmp_path / "next", (strict, "balcony"), (picky, "room"))
    told: Any = json.loads(said("backfill", "--stale-bundle", "--dry-run", "--json"))
    assert told["changed"] == {"has_seaview": 1, "condition_types": 1}, "of the town a person has spoken"

    portal.fixed["bundle"] = make_bundle(tmp_path / "without").folder
    said("backfill", "--stale-bundle")
    assert "condition_types" not in portal.documents()["sea"]


def test_five_heads_that_fit_made(world: World, tmp_path: Path) -> None:
    photos = draw_homes(tmp_path / "photos")
    heads = [f"seaview={seaview(photos, tmp_path / 'sea.csv')}"]
    heads += [f"condition={condition(photos, tmp_path / 'condition.csv')}"]
    options = (
        "--backbone",
        "timm:test_resnet",
        "--weights",
        "none",
        *(w for h in heads for w in ("--head", h)),
    )
    bundle, *_ = fitted(photos, tmp_path, *options)
    assert [head.name for head in bundle.heads] == ["balcony", "fireplace", "seaview", "condition", "room"]
    world.fixed["bundle"] = bundle.folder
    for home in range(HOMES, HOMES + 3):
        files = sorted((photos / "web_homes" / f"home{home}").iterdir())
        world.portal.add(
            f"home{home}", [world.photos.add(f"/{home}/{f.name}", f.read_bytes()) for f in files]
        )

    def said(*arguments: str) -> Any:
        done = world.enrich_here(*arguments)
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout) if "--json" in arguments else done.stdout

    said("migrate")
    said("check")
    said("run")
    documents = world.documents()
    assert len(documents) == 3
    assert all({"worn", "renovated"} & set(document["condition_types"]) for document in documents.values())
    assert all(0 <= document["seaview_confidence"] <= 1 for document in documents.values())
    worn = {id for id, document in documents.items() if "worn" in document["condition_types"]}
    hits = said("search", "--type", "condition=worn", "--json")["hits"]
    assert {hit["listing_id"] for hit in hits} == worn
    for id in documents:
        shown = said("show", id, "--json")
        assert set(shown["heads"]) == {"balcony", "fireplace", "seaview", "condition", "room"}

    measured = ("--split", "listing", *(word for head in heads for word in ("--head", head)))
    code, told = run_train("evaluate", bundle.folder, photos, "--out", tmp_path / "evaluation", *measured)
    assert code == 0, told
    figures = json.loads((tmp_path / "evaluation" / "metrics.json").read_text())["heads"]
    assert set(figures) == {"balcony", "fireplace", "seaview", "condition", "room"}
    assert figures["seaview"]["listings"]["homes"] == 3
    assert set(figures["condition"]["classes"]) == {"renovated", "unclear", "worn"}


SEEN = ["balcony", *OTHER, *OTHER[1:]]
PLAIN = [*OTHER, *OTHER]
LIKE = dict(zip(OTHER, ("renovated", "worn", "as_new", "unclear"), strict=True))
Measure = Callable[..., tuple[int, str]]


@pytest.fixture
def labelled(tmp_path: Path) -> Measure:
    """Runs `evaluate` of a bundle with `seaview` and `condition` on 12 homes with a sea view and 12 without;
    their labels are in files, `sea.csv` and `condition.csv`."""
    homes = [SEEN] * 12 + [PLAIN] * 12
    draw_plain_homes(tmp_path / "photos", homes)
    rows = [row for home, shows in enumerate(homes) for row in home_rows(home, shows)]
    sea = [f"{row['path']},{row['balcony']}" for row in rows]
    condition = [f"{row['path']},{LIKE[row['room']]}" for row in rows]
    (tmp_path / "sea.csv").write_text("\n".join(["path,label", *sea]))
    (tmp_path / "condition.csv").write_text("\n".join(["path,label", *condition]))
    bundle = bundle_with(tmp_path / "own", (SEAVIEW, "balcony"), (CONDITION, "room"))

    def measure(*options: object) -> tuple[int, str]:
        return run_train("evaluate", bundle, tmp_path / "photos", "--out", tmp_path / "out", *options)

    return measure


def test_they_are_measured_and_adjusted_on_labels_in_files(labelled: Measure, tmp_path: Path) -> None:
    files = ("--head", f"seaview={tmp_path / 'sea.csv'}", "--head", f"condition={tmp_path / 'condition.csv'}")
    code, said = labelled(*files, "--rethreshold", tmp_path / "new")
    assert code == 0, said
    figures = json.loads((tmp_path / "out" / "metrics.json").read_text())["heads"]
    # What they answer, and what their files say, is what `balcony` and `room` answer, and the manifest says.
    assert figures["seaview"]["photos"] == figures["balcony"]["photos"]
    assert figures["seaview"]["listings"]["outcomes"]["with"]["true"] == 12
    assert figures["condition"]["confusion"] == figures["room"]["confusion"]
    assert "three_rooms" in figures["room"] and figures["condition"]["three_rooms"] is None
    new = {head.name: head for head in load_bundle(tmp_path / "new").heads}
    assert new["seaview"].metrics["homes"]["with"] == 12
    assert new["seaview"].true_threshold == new["balcony"].true_threshold
    assert new["condition"].temperature == new["room"].temperature


def test_a_file_may_label_more_photos_than_are_chosen(labelled: Measure, tmp_path: Path) -> None:
    sea = f"seaview={tmp_path / 'sea.csv'}"
    code, said = labelled(
        "--head", sea, *(w for home in range(10, 24) for w in ("--exclude", f"homes/{home}/"))
    )
    assert code == 0, said
    figures = json.loads((tmp_path / "out" / "metrics.json").read_text())["heads"]
    assert figures["seaview"]["listings"]["homes"] == 10
    assert "condition" not in figures and "head condition is not evaluated" in said


@pytest.mark.parametrize(
    ("head", "label", "message"),
    [
        ("poolview", "1", "--head poolview: the bundle has no such head; it has balcony, "),
        (
            "condition",
            "ruined",
            "label of homes/0/0.jpg is 'ruined'; write renovated, worn, as_new, unclear",
        ),
        ("condition", "1", "label of homes/0/0.jpg is '1'; write renovated, worn, as_new, unclear"),
        ("seaview", "worn", "label of homes/0/0.jpg is 'worn'; write 1, 0, or nothing"),
        ("balcony", "1", "--head balcony: a name is made of"),
    ],
)
def test_labels_that_are_not_for_the_bundle(
    labelled: Measure, tmp_path: Path, head: str, label: str, message: str
) -> None:
    (tmp_path / "wrong.csv").write_text(f"path,label\nhomes/0/0.jpg,{label}\n")
    code, said = labelled("--head", f"{head}={tmp_path / 'wrong.csv'}")
    assert (code, said.count("\n")) == (2, 1) and message in said
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (("seaview=none.csv",), "--head seaview: none.csv is missing; it needs the columns path, label"),
        (("seaview",), "--head seaview: write NAME=VALUE"),
        (("seaview=a.csv", "seaview=b.csv"), "--head seaview is given twice"),
    ],
)
def test_files_of_labels_that_are_not_there(labelled: Measure, given: tuple[str, ...], message: str) -> None:
    code, said = labelled(*(word for one in given for word in ("--head", one)))
    assert (code, said.count("\n")) == (2, 1) and message in said
