"""Figures of an evaluation against cases worked out by hand."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from enrich.errors import UsageError
from tests.support.bundles import make_bundle
from tests.support.evaluating import home_rows, write_manifest
from training.data.homes import find_homes
from training.data.labels import UNLABELLED
from training.evaluate.labelled import load_labelled
from training.evaluate.measure import calibration_error, reliability
from training.evaluate.report import check_out
from training.evaluate.rethreshold import check_target
from training.evaluate.trained_on import frozen_on, warnings
from training.thresholds.calibrate import Share
from training.thresholds.rules import of_three_rooms

SIX = ["kitchen", "bathroom", "bedroom", "other", "balcony", "fireplace"]


def files(folder: Path, rows: list[dict[str, str]]) -> None:
    for row in rows:
        path = folder / row["path"]
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(row["path"].encode())


def test_reliability_bins_and_expected_calibration_error() -> None:
    # Bin 0.2 to 0.3: four answers, one right; bin 0.9 to 1.0, which holds 1.0, too: two of two right.
    confidence = np.array([0.2, 0.21, 0.22, 0.29, 0.9, 1.0])
    right = np.array([True, False, False, False, True, True])
    bins = reliability(confidence, right)
    assert bins["answers"].to_dict() == {2: 4, 9: 2}
    assert bins.right[2] == 0.25 and bins.confidence[2] == pytest.approx(0.23)
    assert calibration_error(confidence, right) == pytest.approx((4 * 0.02 + 2 * 0.05) / 6)


def test_nothing_to_calibrate_has_no_error_figure() -> None:
    assert np.isnan(calibration_error(np.empty(0), np.empty(0, dtype=bool)))


def test_three_rooms_are_told_from_each_other_alone() -> None:
    names = ["other", "kitchen", "bedroom", "bathroom"]
    scores = np.array(
        [
            [9.0, 2.0, 1.0, 0.0],  # a kitchen, more like `other`: right among the three
            [0.0, 3.0, 2.0, 1.0],  # a bedroom, taken for a kitchen
            [0.0, 0.0, 0.0, 5.0],  # a bathroom
            [0.0, 7.0, 0.0, 0.0],  # no room of the three: not asked
        ]
    )
    truth = np.array([1, 2, 3, 0])
    assert of_three_rooms(scores, truth, names) == Share(2, 3)
    assert of_three_rooms(scores[:, :3], truth[:2], names[:3]) is None


def test_manifest_columns_become_labels_of_the_bundles_heads(tmp_path: Path) -> None:
    rows = home_rows(0, SIX)
    rows[0]["balcony"] = ""
    rows[1]["room"] = "stairs"  # counts as `other`
    rows[2]["room"] = ""
    files(tmp_path, rows)
    photos, remarks = load_labelled(write_manifest(tmp_path, rows), make_bundle(tmp_path / "bundle"))
    assert list(photos.labels) == ["balcony", "fireplace", "room"]
    assert photos.labels["balcony"].tolist() == [UNLABELLED, 0, 0, 0, 1, 0]
    assert photos.labels["room"].tolist() == [0, 3, UNLABELLED, 3, 3, 3]
    assert remarks == []


def test_classes_that_the_bundle_lacks_are_masked_and_said(tmp_path: Path) -> None:
    rows = home_rows(0, SIX)
    rows[3]["room"] = rows[4]["room"] = "cellar"
    files(tmp_path, rows)
    photos, remarks = load_labelled(write_manifest(tmp_path, rows), make_bundle(tmp_path / "bundle"))
    assert photos.labels["room"].tolist() == [0, 1, 2, UNLABELLED, UNLABELLED, 3]
    assert len(remarks) == 1 and "cellar (2)" in remarks[0]


def test_a_head_without_a_column_is_skipped_and_said(tmp_path: Path) -> None:
    rows = home_rows(0, SIX)
    files(tmp_path, rows)
    write_manifest(tmp_path, rows, ["path", "group", "balcony"])
    photos, remarks = load_labelled(tmp_path, make_bundle(tmp_path / "bundle"))
    assert list(photos.labels) == ["balcony"]
    assert remarks == [
        "head fireplace is not evaluated: the manifest has no column fireplace",
        "head room is not evaluated: the manifest has no column room",
    ]


def test_rows_are_chosen_by_split_and_path(tmp_path: Path) -> None:
    rows = home_rows(0, SIX, split="train") + home_rows(1, SIX) + home_rows(2, SIX)
    files(tmp_path, rows)
    bundle = make_bundle(tmp_path / "bundle")
    photos, _ = load_labelled(write_manifest(tmp_path, rows), bundle, "own", ("homes/2/",))
    assert set(photos.group) == {"home-1"}


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"balcony": "yes"}, "balcony of homes/0/0.jpg is 'yes'; write 1, 0, or nothing"),
        ({"path": "homes/0/1.jpg"}, "names homes/0/1.jpg more than once"),
        ({"path": "homes/0/gone.jpg"}, "1 photos of"),
    ],
)
def test_unusable_rows_are_one_clear_line(tmp_path: Path, change: dict[str, str], says: str) -> None:
    rows = home_rows(0, SIX)
    files(tmp_path, rows)
    rows[0].update(change)
    with pytest.raises(UsageError, match=says):
        load_labelled(write_manifest(tmp_path, rows), make_bundle(tmp_path / "bundle"))


def test_no_class_in_common_is_an_error_that_names_both_sides(tmp_path: Path) -> None:
    rows = [{**row, "room": "cellar"} for row in home_rows(0, SIX)]
    files(tmp_path, rows)
    with pytest.raises(UsageError, match=r"room holds cellar, none of which .* kitchen, bathroom"):
        load_labelled(write_manifest(tmp_path, rows), make_bundle(tmp_path / "bundle"))


@pytest.mark.parametrize(
    ("columns", "chosen", "says"),
    [
        (["path", "balcony"], {}, "lacks the column group"),
        (["path", "group"], {}, "column for none of the bundle's heads; name one of balcony, fire"),
        (["path", "group", "balcony"], {"split": "own"}, "no column split; leave out --split"),
        (["path", "group", "split", "balcony"], {"split": "test"}, "no photo of split 'test'; there are own"),
        (["path", "group", "balcony"], {"exclude": ["homes/"]}, "holds no photo outside --exclude"),
    ],
)
def test_unusable_manifests_are_one_clear_line(
    tmp_path: Path, columns: list[str], chosen: dict[str, Any], says: str
) -> None:
    rows = home_rows(0, SIX)
    files(tmp_path, rows)
    with pytest.raises(UsageError, match=says):
        load_labelled(write_manifest(tmp_path, rows, columns), make_bundle(tmp_path / "bundle"), **chosen)


def test_homes_are_groups_of_four_labelled_photos_under_the_prefix(tmp_path: Path) -> None:
    rows = home_rows(0, SIX[:4]) + home_rows(1, SIX[:3]) + home_rows(2, SIX)
    files(tmp_path, rows)
    photos, _ = load_labelled(write_manifest(tmp_path, rows), make_bundle(tmp_path / "bundle"))
    everything = np.ones(len(photos), dtype=bool)
    assert [home.tolist() for home in find_homes(photos, everything, ())] == [
        [0, 1, 2, 3],
        [7, 8, 9, 10, 11, 12],
    ]
    assert [home.tolist() for home in find_homes(photos, everything, ("homes/2",))] == [[7, 8, 9, 10, 11, 12]]
    without_one = everything.copy()
    without_one[0] = False
    assert [len(home) for home in find_homes(photos, without_one, ())] == [6]


def test_photos_learnt_from_are_warned_of_and_held_out_ones_are_not(tmp_path: Path) -> None:
    rows = home_rows(0, SIX, split="train") + home_rows(1, SIX, split="own")
    files(tmp_path, rows)
    bundle = make_bundle(tmp_path / "bundle")
    photos, _ = load_labelled(write_manifest(tmp_path, rows), bundle)
    assert warnings(bundle, photos) == []
    bundle.manifest["training"] = {"collections": {"homes": {"trained_on": 6}, "scenes": {"trained_on": 9}}}
    assert len(warnings(bundle, photos)) == 1
    assert "learnt from 6 of these 12 photos, by its manifest (homes)" in warnings(bundle, photos)[0]
    bundle.manifest["training"]["collections"]["homes"] = 6  # as others may write it
    assert warnings(bundle, photos) == []
    held_out, _ = load_labelled(tmp_path, bundle, "own")
    assert warnings(bundle, held_out) == []
    bundle.manifest["rethresholded"] = {
        "photos_sha256": replace(held_out, sha256=held_out.sha256[::-1]).digest
    }
    assert "thresholds were chosen on these very photos" in warnings(bundle, held_out)[0]


def test_of_a_bundle_with_other_thresholds_a_fit_keeps_only_what_its_backbone_saw(tmp_path: Path) -> None:
    rows = home_rows(0, SIX, split="train")
    files(tmp_path, rows)
    base = make_bundle(tmp_path / "bundle")
    photos, _ = load_labelled(write_manifest(tmp_path, rows), base)
    base.manifest["training"] = {"finetune": "top", "collections": {"scenes": {"trained_on": 9}}}
    base.manifest["rethresholded"] = {"photos_sha256": photos.digest}
    assert frozen_on(base, photos)["learnt"] == []
    base.manifest["training"]["collections"]["homes"] = {"trained_on": 6}
    (line,) = frozen_on(base, photos)["learnt"]
    assert "learnt from 6 of these 6 photos" in line


def test_a_bundle_of_an_earlier_version_still_says_that_its_backbone_saw_photos(tmp_path: Path) -> None:
    rows = home_rows(0, SIX, split="train")
    files(tmp_path, rows)
    base = make_bundle(tmp_path / "bundle")
    photos, _ = load_labelled(write_manifest(tmp_path, rows), base)
    before = {"name": "starter", "bundle": "b1", "learnt": ["the bundle learnt from 6 of these 6 photos"]}
    learnt = {"homes": {"trained_on": 6}}
    base.manifest["training"] = {"finetune": "none", "collections": learnt, "frozen_on": before}
    assert len(frozen_on(base, photos)["learnt"]) == 1


def test_heads_on_the_backbone_of_heads_on_a_backbone_know_what_it_learnt_from(tmp_path: Path) -> None:
    rows = home_rows(0, SIX, split="train")
    files(tmp_path, rows)
    bundle = make_bundle(tmp_path / "bundle")
    photos, _ = load_labelled(write_manifest(tmp_path, rows), bundle)
    learnt = {"homes": {"trained_on": 6}}
    bundle.manifest["training"] = {"finetune": "top", "collections": learnt}
    elsewhere = replace(photos, collection=np.array(["scenes"] * len(photos)))
    for _ in range(2):
        kept = frozen_on(bundle, elsewhere)
        assert (kept["learnt"], kept["collections"]) == ([], learnt)
        told = {"finetune": "none", "collections": {"scenes": {"trained_on": 6}}, "frozen_on": kept}
        bundle.manifest["training"] = told
        assert len(frozen_on(bundle, photos)["learnt"]) == 1
        assert "learnt from 6 of these 6 photos, by its manifest (homes)" in warnings(bundle, photos)[0]
    told["frozen_on"] = {"learnt": [], "collections": {}}
    assert frozen_on(bundle, elsewhere)["learnt"] == [], "its heads learnt from them, not its backbone"


def test_a_place_for_no_evaluation_is_refused_before_anything_is_scored(tmp_path: Path) -> None:
    (tmp_path / "labels.csv").write_text("path,label")
    place = tmp_path / "labels.csv" / "evaluation"
    with pytest.raises(UsageError, match=r"--out .*labels\.csv/evaluation cannot be written"):
        check_out(place)
    with pytest.raises(UsageError, match=r"--rethreshold .*labels\.csv/evaluation cannot be written"):
        check_target(place)


def test_a_bundle_of_a_comparison_says_that_nobody_knows_what_it_learnt_from(tmp_path: Path) -> None:
    rows = home_rows(0, SIX, split="train")
    files(tmp_path, rows)
    bundle = make_bundle(tmp_path / "bundle")
    photos, _ = load_labelled(write_manifest(tmp_path, rows), bundle)
    bundle.manifest["exported"] = [{"task": "balcony", "mode": "feature_extraction"}]
    assert "does not tell which photos" in warnings(bundle, photos)[0]
    assert frozen_on(bundle, photos)["learnt"] == [], "its head learnt, not its backbone"
    bundle.manifest["exported"][0]["mode"] = "finetuning"
    for _ in range(2):
        kept = frozen_on(bundle, photos)
        (line,) = kept["learnt"]
        assert "does not tell which photos" in line
        bundle.manifest["training"] = {"finetune": "none", "collections": {}, "frozen_on": kept}
        bundle.manifest.pop("exported", None)
        assert warnings(bundle, photos) == [line]
