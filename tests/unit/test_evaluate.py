"""`enrich-train evaluate` on drawn homes whose answers are known, and thresholds chosen on them."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from enrich.model.bundle import Bundle, load_bundle
from tests.support.bundles import binary_head, make_bundle, room_head
from tests.support.evaluating import OTHER, draw_homes, draw_photo, home_rows, run_train, write_manifest
from training.evaluate.labelled import load_labelled
from training.fit.fit import listing_figures

PLAIN = [*OTHER, *OTHER]
WITH = ["balcony", *PLAIN[1:]]


@pytest.fixture(scope="module")
def evaluated(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any], str]:
    """An evaluation: folder, metrics, and what the command said.

    Homes: balcony found; none and none found; none found though labelled (twice, once of four photos);
    found though labelled none; a photo that cannot be read.
    """
    folder = tmp_path_factory.mktemp("evaluate")
    shown = [WITH, PLAIN, PLAIN, list(OTHER), WITH, [*PLAIN, "bedroom"]]
    labels = [WITH, PLAIN, WITH, WITH[:4], PLAIN, [*PLAIN, "bedroom"]]
    rows = []
    for home, (shows, said) in enumerate(zip(shown, labels, strict=True)):
        mine = home_rows(home, said)
        for number, (row, what) in enumerate(zip(mine, shows, strict=True)):
            draw_photo(folder, row, what, seed=100 * home + number)
        rows += mine
    (folder / rows[-1]["path"]).write_bytes(b"not a photo")
    write_manifest(folder, rows)
    make_bundle(folder / "bundle")
    code, said_all = run_train(
        "evaluate", folder / "bundle", folder, "--out", folder / "out", "--device", "cpu"
    )
    assert code == 0, said_all
    return folder / "out", json.loads((folder / "out" / "metrics.json").read_text()), said_all


def test_listings_by_truth_and_outcome(evaluated: tuple[Path, dict[str, Any], str]) -> None:
    listings = evaluated[1]["heads"]["balcony"]["listings"]
    assert (listings["homes"], listings["with"]) == (6, 3)
    assert listings["outcomes"] == {
        "with": {"true": 1, "unknown": 1, "false": 1},
        "without": {"true": 1, "unknown": 1, "false": 1},  # unknown: 8 of 9 photos are too few to be sure
    }
    assert (listings["precision"]["hits"], listings["precision"]["of"]) == (1, 2)
    assert (listings["recall"]["hits"], listings["recall"]["of"]) == (1, 3)
    assert (listings["negative_precision"]["hits"], listings["negative_precision"]["of"]) == (1, 2)
    # Found: a third of those with it, a third of those without; the interval is Clopper-Pearson's.
    assert listings["at_prevalence"]["0.2"]["precision"] == pytest.approx(0.2)
    assert listings["precision"]["low"] == pytest.approx(0.0126, abs=1e-4)


def test_photos_at_the_thresholds(evaluated: tuple[Path, dict[str, Any], str]) -> None:
    metrics = evaluated[1]
    photos = metrics["heads"]["balcony"]["photos"]
    assert metrics["photos"]["unreadable"] == {"unsupported_format": 1}
    assert (photos["photos"], photos["with"]) == (8 * 5 + 4, 3)
    assert (photos["precision"]["hits"], photos["precision"]["of"]) == (1, 2)
    assert (photos["recall"]["hits"], photos["recall"]["of"]) == (1, 3)
    assert (photos["accuracy"]["hits"], photos["accuracy"]["of"]) == (44 - 3, 44)
    assert (photos["negative_precision"]["hits"], photos["negative_precision"]["of"]) == (40, 42)


def test_classes_with_their_confusion(evaluated: tuple[Path, dict[str, Any], str]) -> None:
    room = evaluated[1]["heads"]["room"]
    # A balcony is drawn, or labelled, in place of a kitchen: it counts as `other`.
    assert room["confusion"] == [[7, 0, 0, 1], [0, 11, 0, 0], [0, 0, 11, 0], [2, 0, 0, 12]]
    assert (room["accuracy"]["hits"], room["accuracy"]["of"]) == (41, 44)
    assert room["three_rooms"]["of"] == 8 + 11 + 11
    assert room["classes"]["kitchen"]["recall"]["hits"] == 7
    assert room["classes"]["kitchen"]["precision"]["of"] == 9
    assert set(room["listings"]) == {"homes", "kitchen", "bathroom", "bedroom"}  # `other` is not published


def test_report_pictures_and_table(evaluated: tuple[Path, dict[str, Any], str]) -> None:
    out, _, said = evaluated
    pictures = {
        f"{head}_{kind}.png"
        for head in ("balcony", "fireplace")
        for kind in ("precision_recall", "reliability", "mistakes")
    }
    pictures |= {"room_confusion.png", "room_reliability.png"}
    assert {path.name for path in out.iterdir()} == pictures | {"report.md", "metrics.json"}
    report = (out / "report.md").read_text()
    for picture in pictures:
        assert f"({picture})" in report
        with Image.open(out / picture) as image:
            image.load()
    assert "| without | 1 | 1 | 1 |" in report and "unsupported_format (1)" in report
    assert "balcony" in said and "1/2 [0.01, 0.99]" in said


def test_a_folder_in_use_is_not_overwritten(tmp_path: Path) -> None:
    make_bundle(tmp_path / "bundle")
    draw_homes(tmp_path / "photos", [WITH])
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "thesis.tex").write_text("mine")
    code, said = run_train("evaluate", tmp_path / "bundle", tmp_path / "photos", "--out", tmp_path / "out")
    assert code == 2 and said.count("\n") == 1 and "holds something else" in said
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["thesis.tex"]


def test_pictures_of_heads_that_are_not_evaluated_any_more_go(tmp_path: Path) -> None:
    photos, out = draw_homes(tmp_path / "photos", [WITH, PLAIN]), tmp_path / "out"
    make_bundle(tmp_path / "bundle")
    arguments = ("evaluate", tmp_path / "bundle", photos, "--out", out, "--device", "cpu")
    assert run_train(*arguments)[0] == 0
    kept = {path.name for path in out.iterdir() if not path.name.startswith("fireplace")}
    mine = {"fireplace.png", "fireplace_of_mine.png", "kitchen_mistakes.png"}
    for name in mine:
        (out / name).write_text("mine")
    rows = [*home_rows(0, WITH), *home_rows(1, PLAIN)]
    write_manifest(photos, rows, ("path", "group", "room", "balcony"))
    assert run_train(*arguments)[0] == 0
    assert {path.name for path in out.iterdir()} == kept | mine


def test_heads_with_nothing_to_evaluate_are_said_to_have_nothing(tmp_path: Path) -> None:
    rows = [{**row, "balcony": "", "room": ""} for row in home_rows(0, PLAIN[:3])]
    for row, what in zip(rows, PLAIN[:3], strict=True):
        draw_photo(tmp_path, row, what, seed=1)
    make_bundle(tmp_path / "bundle")
    write_manifest(tmp_path, rows)
    code, said = run_train("evaluate", tmp_path / "bundle", tmp_path, "--out", tmp_path / "out")
    assert code == 0, said
    heads = json.loads((tmp_path / "out" / "metrics.json").read_text())["heads"]
    assert heads["balcony"]["photos"]["photos"] == heads["room"]["photos"] == 0
    assert heads["fireplace"]["listings"] == {"homes": 0}
    assert "No group has enough labelled photos" in (tmp_path / "out" / "report.md").read_text()


def test_homes_that_nobody_looked_at_are_none_without_it_on_the_card(tmp_path: Path) -> None:
    """Of split `listing`: one home labelled whole; one but for a photo, which shows a balcony; one not."""
    rows = []
    for home, shows in enumerate([WITH, WITH, PLAIN]):
        mine = home_rows(home, shows, split="listing")
        for number, (row, what) in enumerate(zip(mine, shows, strict=True)):
            draw_photo(tmp_path, row, what, seed=100 * home + number)
        rows += mine
    rows[len(WITH)]["balcony"] = ""
    rows[2 * len(WITH) :] = [{**row, "balcony": ""} for row in rows[2 * len(WITH) :]]
    bundle = make_bundle(tmp_path / "bundle")
    photos, _ = load_labelled(write_manifest(tmp_path, rows), bundle)
    figures = listing_figures(bundle, photos, torch.device("cpu"), tmp_path)
    assert figures["homes"] == 3
    assert figures["balcony"]["with"] == {"true": 1, "unknown": 0, "false": 0}
    assert figures["balcony"]["without"] == {"true": 0, "unknown": 1, "false": 0}
    assert sum(figures["fireplace"]["without"].values()) == 3


def test_a_prefix_of_homes_without_photos_is_an_error(tmp_path: Path) -> None:
    make_bundle(tmp_path / "bundle")
    draw_homes(tmp_path / "photos", [WITH])
    options = ["--out", tmp_path / "out", "--homes", "house/"]
    code, said = run_train("evaluate", tmp_path / "bundle", tmp_path / "photos", *options)
    assert code == 2 and "--homes house/: no path of the chosen photos starts so" in said


def test_a_device_that_is_not_here_is_refused_by_the_name_of_its_option(tmp_path: Path) -> None:
    make_bundle(tmp_path / "bundle")
    draw_homes(tmp_path / "photos", [WITH])
    options = ["--out", tmp_path / "out", "--device", "cuda:99"]
    code, said = run_train("evaluate", tmp_path / "bundle", tmp_path / "photos", *options)
    assert code == 2 and "--device cuda:99 is not here" in said and not (tmp_path / "out").exists()


@pytest.fixture(scope="module")
def adjusted(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """A bundle, 12 homes with a balcony and 12 without, and the bundle re-thresholded on them (`new`)."""
    folder = tmp_path_factory.mktemp("rethreshold")
    make_bundle(folder / "old")
    draw_homes(folder / "photos", [WITH] * 12 + [PLAIN] * 12)
    options = ["--out", folder / "out", "--rethreshold", folder / "new", "--prevalence", 0.3]
    code, said = run_train("evaluate", folder / "old", folder / "photos", *options)
    assert code == 0, said
    return folder, said


def test_new_thresholds_keep_the_models(adjusted: tuple[Path, str]) -> None:
    folder, said = adjusted
    assert said.endswith("; weights as before, nothing is scored again\n")
    old, new = load_bundle(folder / "old"), load_bundle(folder / "new")
    assert [one.model_id for one in new.members] == [one.model_id for one in old.members]
    assert new.bundle_id != old.bundle_id
    assert (folder / "new" / "tiny.safetensors").read_bytes() == (
        folder / "old" / "tiny.safetensors"
    ).read_bytes()


def test_new_thresholds_tell_these_homes_apart_and_say_on_what(adjusted: tuple[Path, str]) -> None:
    folder, said = adjusted
    bundle = load_bundle(folder / "new")
    head = bundle.heads[0]
    metrics = head.metrics
    assert (metrics["homes"]["homes"], metrics["homes"]["with"], metrics["homes"]["photos"]) == (24, 12, 192)
    assert metrics["true"]["prevalence"] == 0.3
    at_threshold = metrics["true"]["at_threshold"]
    assert (at_threshold["tp"], at_threshold["fp"], at_threshold["fn"]) == (12, 0, 0)
    assert at_threshold["precision"]["low"] == pytest.approx(0.025 ** (1 / 12), abs=1e-4)
    assert metrics["true"]["basis"] == "estimate" and "fewer than 59 homes were found" in said
    assert 0 < head.false_threshold <= head.true_threshold < 1
    assert head.true_at["0.95"] == head.true_threshold
    assert list(head.true_at.values()) == sorted(head.true_at.values())
    assert bundle.manifest["rethresholded"]["heads"] == ["balcony", "room"]
    assert bundle.manifest["rethresholded"]["from_bundle"] == load_bundle(folder / "old").bundle_id


def test_a_head_with_too_few_homes_stays_as_it_was(adjusted: tuple[Path, str]) -> None:
    folder, said = adjusted
    old, new = load_bundle(folder / "old"), load_bundle(folder / "new")
    assert new.heads[1] == old.heads[1]
    assert "fireplace: thresholds left as they were: 0 homes with it and 24 without" in said


def test_evaluating_on_the_homes_that_chose_the_thresholds_is_warned_of(adjusted: tuple[Path, str]) -> None:
    folder, _ = adjusted
    code, said = run_train("evaluate", folder / "new", folder / "photos", "--out", folder / "again")
    assert code == 0 and "Mind: the bundle's thresholds were chosen on these very photos" in said
    listings = json.loads((folder / "again" / "metrics.json").read_text())["heads"]["balcony"]["listings"]
    # What serving makes of the homes is what choosing saw, at the threshold itself, too.
    assert listings["outcomes"]["with"] == {"true": 12, "unknown": 0, "false": 0}
    assert listings["outcomes"]["without"]["true"] == 0
    assert listings["calibration_error"] < 0.1


@pytest.mark.parametrize("precision", [0.5, 0.99999, 1.0])
def test_thresholds_are_chosen_for_any_precision_that_may_be_asked_for(
    adjusted: tuple[Path, str], tmp_path: Path, precision: float
) -> None:
    options = ["--out", tmp_path / "out", "--rethreshold", tmp_path / "new", "--precision", precision]
    code, said = run_train("evaluate", adjusted[0] / "old", adjusted[0] / "photos", *options)
    assert code == 0, said
    head = load_bundle(tmp_path / "new").heads[0]
    assert (head.precision_target, head.true_at[f"{precision:g}"]) == (precision, head.true_threshold)


def rethresholded(folder: Path, **said_of_each: str) -> tuple[Bundle, str]:
    """`folder/old` with thresholds of 24 homes, whose photos have this in the manifest; and what was said."""
    homes = [WITH] * 12 + [PLAIN] * 12
    draw_homes(folder / "photos", homes)
    rows = [row for home, shows in enumerate(homes) for row in home_rows(home, shows)]
    write_manifest(folder / "photos", [row | said_of_each for row in rows])
    options = ["--out", folder / "out", "--rethreshold", folder / "new"]
    code, said = run_train("evaluate", folder / "old", folder / "photos", *options)
    assert code == 0, said
    return load_bundle(folder / "new"), said


def test_thresholds_are_chosen_on_homes_of_one_site(tmp_path: Path) -> None:
    make_bundle(tmp_path / "old")
    made, _ = rethresholded(tmp_path, source="our-agency")
    homes_seen = made.heads[0].metrics["homes"]
    assert (homes_seen["homes"], homes_seen["sites"], homes_seen["folds_of"]) == (24, 1, "home")


def test_too_few_homes_write_no_bundle(tmp_path: Path) -> None:
    make_bundle(tmp_path / "old")
    draw_homes(tmp_path / "photos", [WITH, PLAIN, PLAIN])
    options = ["--out", tmp_path / "out", "--rethreshold", tmp_path / "new"]
    code, said = run_train("evaluate", tmp_path / "old", tmp_path / "photos", *options)
    assert code == 2 and not (tmp_path / "new").exists()
    assert "enrich-train: no new bundle: balcony: thresholds left as they were: 1 homes with it and 2" in said


def test_rooms_alone_get_thresholds_of_their_own(tmp_path: Path) -> None:
    """As those of a comparison, of which only the rooms were exported."""
    make_bundle(tmp_path / "old")
    draw_homes(tmp_path / "photos", [PLAIN] * 12)
    options = ["--out", tmp_path / "out", "--rethreshold", tmp_path / "new"]
    code, said = run_train("evaluate", tmp_path / "old", tmp_path / "photos", *options)
    assert code == 0, said
    assert "balcony: thresholds left as they were: 0 homes with it and 12 without" in said
    assert "room: 96 photos of 12 homes; published: kitchen, bathroom, bedroom" in said
    assert load_bundle(tmp_path / "new").manifest["rethresholded"]["heads"] == ["room"]


def test_a_head_of_which_nothing_is_published_needs_no_labels(tmp_path: Path) -> None:
    room = room_head()
    room["classes"] = [{**kind, "publish": False} for kind in room["classes"]]
    make_bundle(tmp_path / "old", heads=[binary_head("balcony"), binary_head("fireplace"), room])
    made, said = rethresholded(tmp_path, room="")
    assert "room: left as it was: no home has 4 labelled photos" in said
    assert made.manifest["rethresholded"]["heads"] == ["balcony"]


def test_rethreshold_does_not_overwrite(tmp_path: Path) -> None:
    old = make_bundle(tmp_path / "old")
    draw_homes(tmp_path / "photos", [WITH])
    options = ["--out", tmp_path / "out", "--rethreshold", tmp_path / "old"]
    code, said = run_train("evaluate", tmp_path / "old", tmp_path / "photos", *options)
    assert code == 2 and "is in use" in said and not (tmp_path / "out").exists()
    assert load_bundle(tmp_path / "old").bundle_id == old.bundle_id
