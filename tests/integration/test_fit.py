"""`enrich-train fit` on drawn photos, from a manifest to a bundle that serves; and what it refuses."""

import csv
import errno
import json
import os
import re
import shlex
import shutil
import sqlite3
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from enrich.errors import UsageError
from enrich.index.document import mapping
from enrich.model.bundle import Bundle, Preprocessing, load_bundle
from enrich.model.features import feature_id
from enrich.model.torch_engine import TorchEngine
from enrich.photos.decode import decode
from tests.support.evaluating import run_train
from tests.support.fitting import (
    COLUMNS,
    HOMES,
    LISTINGS,
    condition,
    draw,
    draw_homes,
    fitted,
    run_fit,
    seaview,
)
from training.data.labels import ROOMS
from training.data.photos import load_photos
from training.fit.fit import _training
from training.fit.options import FitOptions, command
from training.models.backbones import load_backbone
from training.models.features import extract
from training.models.heads import FittedHead, fit_head

BACKBONE = "timm:test_resnet"
UNTRAINED = ("--backbone", BACKBONE, "--weights", "none")


@pytest.fixture(scope="module")
def photos_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return draw_homes(tmp_path_factory.mktemp("photos"))


@pytest.fixture(scope="module")
def made(photos_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Bundle, Path, Path]:
    """The bundle of one fit, its model card and its cache."""
    return fitted(photos_dir, tmp_path_factory.mktemp("work"), *UNTRAINED)


def test_a_bundle_comes_out_that_serves_what_it_learnt(
    made: tuple[Bundle, Path, Path], tmp_path: Path
) -> None:
    bundle = made[0]
    assert [head.name for head in bundle.heads] == ["balcony", "fireplace", "room"]
    room = next(head for head in bundle.heads if head.name == "room")
    assert {kind.name for kind in room.classes if not kind.publish} >= {"balcony", "floor_plan", "other"}
    scorer, member = TorchEngine(bundle, "cpu"), bundle.members[0]
    right = 0
    for number, name in enumerate(ROOMS):
        draw(tmp_path / "new.jpg", name, fireplace=False, seed=9_000 + number)
        decoded = decode((tmp_path / "new.jpg").read_bytes(), bundle.preprocessings, 10**6)
        scores = scorer.score([decoded.pixels])[0][member.model_id].scores
        right += int(room.probabilities(scores["room"]).argmax()) == number
    assert right >= 8


def test_figures_and_conditions_are_in_the_manifest_and_on_the_card(made: tuple[Bundle, Path, Path]) -> None:
    bundle, card, _ = made
    balcony = bundle.heads[0]
    assert 0 < balcony.false_threshold <= balcony.true_threshold <= 1
    assert balcony.metrics["homes"] == {
        "homes": HOMES,
        "with": HOMES // 2,
        "sites": HOMES // 2,
        "photos": HOMES * 17 // 2,
        "median_photos": 8.5,
        "prevalence": 0.5,
        "average_precision": balcony.metrics["homes"]["average_precision"],
    }
    fair = balcony.metrics["true"]["cross_fitted"]
    assert fair["tp"] + fair["fp"] + fair["fn"] + fair["tn"] == HOMES
    assert fair["tp"] >= HOMES // 4
    # Hallways are not labelled: they are among no head's held-out photos.
    assert balcony.metrics["photos"]["all"]["photos"] == HOMES * 8 + HOMES // 2
    listing = bundle.manifest["training"]["listing_split"]
    assert (listing["homes"], listing["room"]["kitchen"]["homes"]) == (LISTINGS, LISTINGS)
    text = card.read_text()
    assert "](card-thresholds.png)" in text and (card.parent / "card-thresholds.png").stat().st_size > 10_000
    for said in (
        f"({fair['precision']['hits']} of {fair['precision']['of']})",
        "**An estimate**: only",
        f"--backbone {BACKBONE} --weights none",
        f"{balcony.true_threshold:.4f}",
        f"on the backbone `{BACKBONE}` untrained, frozen",
    ):
        assert said in text
    assert "ImageNet" not in text and "Apache" not in text, "what it started from is nobody's weights"


def test_serving_gives_the_logits_that_training_saw(
    made: tuple[Bundle, Path, Path], photos_dir: Path
) -> None:
    bundle, _, cache = made
    photos = load_photos(photos_dir)
    views = extract(load_backbone(BACKBONE, "none"), photos, ("whole", "flip"), cache)
    fitted = fit_head(photos, "room", views, 0)
    expected = fitted.head.logits(views["whole"])
    scorer, member = TorchEngine(bundle, "cpu"), bundle.members[0]
    for row in range(0, len(photos), 17):
        decoded = decode((photos_dir / photos.paths[row]).read_bytes(), bundle.preprocessings, 10**6)
        served = scorer.score([decoded.pixels])[0][member.model_id].scores["room"]
        np.testing.assert_allclose(served, expected[row], atol=2e-3)


def test_a_site_has_no_say_in_its_own_held_out_predictions(
    made: tuple[Bundle, Path, Path], photos_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Other features for one site's photos change what other folds are told, not those of its own fold."""
    photos = load_photos(photos_dir)
    whole = extract(load_backbone(BACKBONE, "none"), photos, ("whole",), made[2])["whole"]
    mine = photos.site == "site3"

    def held_out(features: np.ndarray) -> FittedHead:
        return fit_head(photos, "balcony", {"whole": features}, 0)

    monkeypatch.setattr("training.models.heads.STRENGTHS", (0.01,))
    before = held_out(whole)
    after = held_out(np.where(mine[:, None], whole[::-1], whole))
    fold = before.fold[mine].max()
    same_fold = (before.fold == fold) & ~mine
    other_folds = (before.fold >= 0) & (before.fold != fold)
    np.testing.assert_array_equal(before.held_out[same_fold], after.held_out[same_fold])
    assert (before.held_out[other_folds] != after.held_out[other_folds]).any()


def test_cached_features_are_not_computed_again(
    made: tuple[Bundle, Path, Path], photos_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise AssertionError("the backbone ran")

    monkeypatch.setattr("training.models.features.compiled", refuse)
    photos = load_photos(photos_dir)
    backbone = load_backbone(BACKBONE, "none")
    assert extract(backbone, photos, ("whole", "flip"), made[2])["flip"].shape[0] == len(photos)
    with pytest.raises(AssertionError, match="the backbone ran"):
        extract(load_backbone(BACKBONE, "none", seed=1), photos, ("whole",), made[2])


def test_a_stopped_extraction_goes_on_where_it_was(
    photos_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import training.models.features

    photos = load_photos(photos_dir)
    backbone = load_backbone(BACKBONE, "none")
    real, scored = training.models.features.compiled, []

    def counting(network: torch.nn.Module, preprocessing: Preprocessing) -> object:
        run = real(network, preprocessing)

        def counted(pictures: NDArray[np.uint8]) -> object:
            scored.append(len(pictures))
            if len(scored) == 3:
                raise KeyboardInterrupt
            return run(pictures)

        return counted

    monkeypatch.setattr("training.models.features.compiled", counting)
    with pytest.raises(KeyboardInterrupt):
        extract(backbone, photos, ("whole",), tmp_path)
    stopped = sum(scored[:2])
    scored[:] = [0] * 10
    matrix = extract(backbone, photos, ("whole",), tmp_path)["whole"]
    assert sum(scored) == len(set(photos.sha256)) - stopped
    monkeypatch.undo()
    np.testing.assert_array_equal(matrix, extract(backbone, photos, ("whole",), tmp_path / "fresh")["whole"])


def edit_manifest(folder: Path, change: dict[str, str] | None = None, drop: str = "") -> None:
    """Set columns of every row, or drop one column."""
    with (folder / "manifest.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    columns = [column for column in COLUMNS if column != drop]
    with (folder / "manifest.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, columns, extrasaction="ignore")
        writer.writeheader()
        writer.writerows({**row, **(change or {})} for row in rows)


def break_column(folder: Path) -> str:
    edit_manifest(folder, drop="fireplace")
    return "lacks the column fireplace"


def break_files(folder: Path) -> str:
    (folder / "web_homes/home0/0.jpg").unlink()
    return "the first is web_homes/home0/0.jpg"


def break_classes(folder: Path) -> str:
    edit_manifest(folder, {"balcony": "0"})
    return "head balcony: no threshold can be chosen, the manifest holds fewer than 2 homes with it"


def break_room(folder: Path) -> str:
    edit_manifest(folder, {"room": "kitchen"})
    return "head room: fewer than 2 of its classes have training photos of 2 sites"


def break_photo(folder: Path) -> str:
    (folder / "web_homes/home0/0.jpg").write_bytes(b"<html>not found</html>")
    return "0.jpg cannot be used (unsupported_format"


@pytest.mark.parametrize("broken", [break_column, break_files, break_classes, break_room, break_photo])
def test_bad_photos_end_in_one_line_and_write_nothing(
    made: tuple[Bundle, Path, Path], photos_dir: Path, tmp_path: Path, broken: Callable[[Path], str]
) -> None:
    folder = tmp_path / "photos"
    shutil.copytree(photos_dir, folder)
    said = broken(folder)
    out = tmp_path / "bundle"
    code, error = run_fit(folder, "--out", out, "--cache", made[2], *UNTRAINED)
    assert (code, error.strip().count("\n")) == (2, 0)
    assert said in error
    assert not out.exists()


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--backbone", "timm:no_such_model"), "--backbone timm:no_such_model"),
        (("--backbone", BACKBONE), "no pip package brings its weights"),
        (("--backbone", BACKBONE, "--weights", "best"), "--weights best"),
        (
            ("--backbone", BACKBONE, "--weights", "none", "--homes", "villas"),
            "--homes villas: no photo",
        ),
        ((*UNTRAINED, "--view", "upside-down"), "--view upside-down"),
        ((*UNTRAINED, "--finetune", "top"), "use --finetune all or none"),
        ((*UNTRAINED, "--finetune", "all", "--device", "tpu"), "--device tpu: use auto, cpu"),
        ((*UNTRAINED, "--device", "cuda:99"), "--device cuda:99 is not here"),
        ((*UNTRAINED, "--pool", "mean"), "--pool mean: use one of avg"),
        ((*UNTRAINED, "--share", "web_homes=many"), "--share web_homes=many: write a number"),
        ((*UNTRAINED, "--share", "web_homes"), "--share web_homes: write NAME=VALUE"),
        ((*UNTRAINED, "--share", "web_homes=2"), "--share is for finetuning"),
        ((*UNTRAINED, "--homes", "web_homes/", "--share", "web_homes=2"), "--share is for finetuning"),
        ((*UNTRAINED, "--finetune", "all", "--share", "web_homes/=0"), "--share: nothing is left to learn"),
        ((*UNTRAINED, "--learn-size", "64"), "--learn-size is for finetuning"),
        ((*UNTRAINED, "--finetune", "all", "--share", "web_home=2"), "--share web_home: no photo's path"),
        ((*UNTRAINED, "--head", "balcony=labels.csv"), "--head balcony: a name is"),
        ((*UNTRAINED, "--head", "seaview=none.csv"), "none.csv is missing; it needs the columns path, label"),
    ],
)
def test_bad_options_end_in_one_line(
    made: tuple[Bundle, Path, Path], photos_dir: Path, tmp_path: Path, options: tuple[str, ...], said: str
) -> None:
    code, error = run_fit(photos_dir, "--out", tmp_path / "bundle", "--cache", made[2], *options)
    assert (code, error.strip().count("\n")) == (2, 0)
    assert said in error
    assert not (tmp_path / "bundle").exists()


@pytest.mark.parametrize("seed", [-1, 2**32])
def test_a_seed_that_folds_do_not_take_is_refused(
    made: tuple[Bundle, Path, Path], photos_dir: Path, tmp_path: Path, seed: int
) -> None:
    code, error = run_fit(
        photos_dir, "--out", tmp_path / "bundle", "--cache", made[2], *UNTRAINED, "--seed", seed
    )
    assert code == 2 and "--seed" in error and "Traceback" not in error
    assert not (tmp_path / "bundle").exists()


def test_a_folder_that_holds_something_else_is_refused_before_anything_is_learnt(
    photos_dir: Path, tmp_path: Path
) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    code, error = run_fit(photos_dir, "--out", tmp_path, "--cache", tmp_path / "cache", *UNTRAINED)
    assert code == 2 and "holds 'notes.txt', which is no part of a bundle" in error
    assert not (tmp_path / "cache").exists()


def test_the_command_on_the_card_names_every_option_that_differs() -> None:
    plain = FitOptions(Path("photos"), Path("out"))
    assert command(plain) == "enrich-train fit PHOTOS_DIR --out DIR"
    chosen = replace(plain, seed=3, exclude=("web_catalog",), targets=replace(plain.targets, precision=0.9))
    assert command(chosen).endswith("--seed 3 --exclude web_catalog --precision 0.9")
    spaced = replace(plain, homes="our homes", exclude=("a|b/",), shares={"our homes": 2}, name='"ours"')
    words = ["--share", "our homes=2", "--exclude", "a|b/", "--homes", "our homes", "--name", '"ours"']
    assert shlex.split(command(spaced))[-8:] == words


def test_the_manifest_says_of_a_recipe_what_learnt(
    photos_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def asked(options: FitOptions) -> Bundle:
        assert _training(options, load_photos(photos_dir))["recipe"]["part"] == "all"
        raise UsageError("this is what was asked for")

    monkeypatch.setattr("training.fit.command.fit", asked)
    code, error = run_fit(photos_dir, "--out", tmp_path / "bundle", *UNTRAINED, "--finetune", "all")
    assert code == 2 and "this is what was asked for" in error


def test_the_card_says_so_where_no_threshold_has_the_precision(
    made: tuple[Bundle, Path, Path], photos_dir: Path, tmp_path: Path
) -> None:
    assert "never says *yes*" not in made[1].read_text()
    bundle, card, _ = fitted(photos_dir, tmp_path, *UNTRAINED, "--precision", "1.0")
    assert bundle.heads[0].true_threshold == 1
    text = " ".join(card.read_text().split())
    assert "It never says *yes*: at no threshold is a precision of 1.0 expected of these homes." in text
    assert "the lowest threshold at which a precision of 1.0 is expected" not in text


def test_folders_with_a_pipe_in_their_names_keep_their_cells(photos_dir: Path, tmp_path: Path) -> None:
    photos = tmp_path / "photos"
    shutil.copytree(photos_dir, photos)
    shutil.copytree(photos_dir / "web_homes", photos / "our|homes")
    text = (photos / "manifest.csv").read_text()
    (photos / "manifest.csv").write_text(re.sub(r"web_homes/(home\d?[02468]/)", r"our|homes/\1", text))
    bundle, card, _ = fitted(photos, tmp_path, *UNTRAINED)
    code, said = run_train("evaluate", bundle.folder, photos, "--out", tmp_path / "evaluation")
    assert code == 0, said
    for page in (card, tmp_path / "evaluation" / "report.md"):
        tables = re.findall(r"(?:^\|.*\n)+", page.read_text(), re.MULTILINE)
        assert sum("our" in one for one in tables) >= 3
        for one in tables:
            assert len({len(re.findall(r"(?<!\\)\|", line)) for line in one.splitlines()}) == 1, one


def test_a_folder_with_brackets_and_colons_in_its_name_is_named_as_it_is(
    photos_dir: Path, made: tuple[Bundle, Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "bundle [ours] :house:"
    code, said = run_fit(photos_dir, "--out", out, "--cache", made[2], *UNTRAINED)
    assert code == 0, said
    told = capsys.readouterr().out
    assert f" written to {out}\n" in told
    assert all(told.splitlines()), "a progress bar leaves empty lines where there is no terminal"


def test_the_starter_bundle_is_small_and_says_what_backs_it() -> None:
    starter = Path(__file__).parents[2] / "enrich" / "model" / "starter"
    bundle = load_bundle(starter)
    assert sum(path.stat().st_size for path in starter.iterdir()) <= 15_000_000
    for head in bundle.heads[:2]:
        chosen = head.metrics["true"]["at_threshold"]
        assert chosen["precision"]["value"] >= 0.95
        backing = head.metrics["true"]["cross_fitted"]["precision"]["of"]
        assert head.precision_basis == ("homes" if backing >= 59 else "estimate")
        assert set(head.metrics["true"]["cross_fitted"]["precision"]) == {
            "hits",
            "of",
            "value",
            "low",
            "high",
        }
    assert "for evaluation" in bundle.notice
    card = (starter.parents[2] / "docs" / "model-card.md").read_text()
    assert bundle.bundle_id[:12] in card
    for share, precision in bundle.heads[0].metrics["true"]["precision_elsewhere"].items():
        assert f"{precision:.3f} at a prevalence of {share}" in card


def test_a_class_that_nobody_photographed_is_left_out(
    made: tuple[Bundle, Path, Path], photos_dir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "photos"
    shutil.copytree(photos_dir, folder)
    with (folder / "manifest.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    with (folder / "manifest.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, COLUMNS)
        writer.writeheader()
        writer.writerows({**row, "room": row["room"].replace("floor_plan", "")} for row in rows)
    code, said = run_fit(folder, "--out", tmp_path / "bundle", "--cache", made[2], *UNTRAINED)
    assert code == 0, said
    assert "fewer than 2 sites: floor_plan" in capsys.readouterr().out
    room = load_bundle(tmp_path / "bundle").heads[-1]
    assert [kind.name for kind in room.classes] == [name for name in ROOMS if name != "floor_plan"]
    assert room.metrics["classes"]["bathroom"]["recall"]["value"] > 0.8


def test_a_head_of_ones_own_brings_its_threshold_and_its_fields(
    made: tuple[Bundle, Path, Path], photos_dir: Path, tmp_path: Path
) -> None:
    labels = seaview(photos_dir, tmp_path / "seaview.csv")
    code, said = run_fit(
        photos_dir,
        "--out",
        tmp_path / "bundle",
        "--cache",
        made[2],
        *UNTRAINED,
        "--head",
        f"seaview={labels}",
    )
    assert code == 0, said
    bundle = load_bundle(tmp_path / "bundle")
    assert [head.name for head in bundle.heads] == ["balcony", "fireplace", "seaview", "room"]
    head = bundle.heads[2]
    assert head.kind == "binary" and 0 < head.true_threshold <= 1
    assert head.metrics["homes"]["with"] == HOMES // 2
    assert bundle.manifest["training"]["collections"]["web_homes"]["seaview"] == 14
    assert mapping(bundle.heads, {})["properties"]["has_seaview"] == {"type": "boolean"}


def test_a_head_of_classes_of_ones_own(
    made: tuple[Bundle, Path, Path], photos_dir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    labels = condition(photos_dir, tmp_path / "condition.csv")
    where = ("--out", tmp_path / "bundle", "--cache", made[2])
    code, said = run_fit(photos_dir, *where, *UNTRAINED, "--head", f"condition={labels}")
    assert code == 0, said
    bundle = load_bundle(tmp_path / "bundle")
    assert [head.name for head in bundle.heads] == ["balcony", "fireplace", "condition", "room"]
    head = bundle.heads[2]
    assert [kind.name for kind in head.classes] == ["renovated", "unclear", "worn"]
    told = capsys.readouterr().out
    for one in bundle.heads[2:]:
        (line,) = re.findall(rf"^{one.name}: published: (.*); not published: (.*)$", told, re.MULTILINE)
        for names, published in zip(line, (True, False), strict=True):
            found = [kind.name for kind in one.classes if kind.publish is published]
            assert names == (", ".join(found) or "none")
    assert head.metrics["classes"]["worn"]["recall"]["of"] == HOMES
    assert mapping(bundle.heads, {})["properties"]["condition_types"]["type"] == "keyword"


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("web_homes/home0/5.jpg,1", "condition.csv: label of web_homes/home0/0.jpg is 'worn'; write 1, 0"),
        ("web_homes/home0/5.jpg,As New", "a class cannot be called 'As New'"),
    ],
)
def test_class_names_that_cannot_be_used_end_in_one_line(
    photos_dir: Path, tmp_path: Path, line: str, said: str
) -> None:
    labels = condition(photos_dir, tmp_path / "condition.csv")
    labels.write_text(labels.read_text().replace("web_homes/home0/5.jpg,", line))
    options = ("--out", tmp_path / "bundle", *UNTRAINED, "--head", f"condition={labels}")
    code, error = run_fit(photos_dir, *options)
    assert (code, error.strip().count("\n")) == (2, 0)
    assert said in error


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("nowhere.jpg,1", "seaview.csv: 1 photos are not in manifest.csv, the first is nowhere.jpg"),
        ("web_homes/home0/0.jpg,1", "seaview.csv names web_homes/home0/0.jpg more than once"),
        ("web_homes/home0/5.jpg,yes", "seaview.csv: label of web_homes/home0/5.jpg is 'yes'"),
    ],
)
def test_labels_that_cannot_be_used_end_in_one_line(
    photos_dir: Path, tmp_path: Path, line: str, said: str
) -> None:
    labels = seaview(photos_dir, tmp_path / "seaview.csv", line)
    code, error = run_fit(photos_dir, "--out", tmp_path / "bundle", *UNTRAINED, "--head", f"seaview={labels}")
    assert (code, error.strip().count("\n")) == (2, 0)
    assert said in error
    assert not (tmp_path / "bundle").exists()


def test_heads_on_a_bundles_backbone_have_its_features(
    made: tuple[Bundle, Path, Path], photos_dir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The bundle says of itself that it was finetuned on the photos that the new heads learn from."""
    shutil.copytree(made[0].folder, tmp_path / "base")
    manifest = json.loads((tmp_path / "base" / "manifest.json").read_text())
    manifest["training"]["finetune"] = "top"
    (tmp_path / "base" / "manifest.json").write_text(json.dumps(manifest))
    code, said = run_fit(
        photos_dir, "--frozen-on", tmp_path / "base", "--out", tmp_path / "new", "--cache", made[2],
        "--card", tmp_path / "card.md", "--exclude", "web_homes/home1/", "--name", "new heads",
    )  # fmt: skip
    assert code == 0, said
    (old,), (new,) = made[0].members, load_bundle(tmp_path / "new").members
    assert feature_id(new) == feature_id(old) and new.model_id != old.model_id
    assert new.preprocessing == old.preprocessing and new.pool == old.pool
    assert "not held out: the backbone may have seen photos of this fit" in capsys.readouterr().out
    card = " ".join((tmp_path / "card.md").read_text().split())
    assert "**Not held out**" in card and "of the bundle *listing photos*" in card
    assert "ImageNet" not in card
    code, said = run_fit(
        photos_dir, "--frozen-on", tmp_path / "new", "--out", tmp_path / "newer", "--cache", made[2]
    )
    assert code == 0, said
    assert "the backbone may have seen photos of this fit" in capsys.readouterr().out, (
        "the same backbone still"
    )


def test_a_backbone_is_not_both_taken_as_it_is_and_finetuned(
    made: tuple[Bundle, Path, Path], tmp_path: Path
) -> None:
    code, said = run_fit(
        tmp_path, "--frozen-on", made[0].folder, "--finetune", "top", "--out", tmp_path / "new"
    )
    assert code == 2 and "--finetune and --frozen-on contradict each other" in said


def test_a_bundle_whose_backbone_is_taken_is_not_written_over(
    made: tuple[Bundle, Path, Path], photos_dir: Path, tmp_path: Path
) -> None:
    shutil.copytree(made[0].folder, tmp_path / "base")
    before = (tmp_path / "base" / "manifest.json").read_bytes()
    (tmp_path / "link").symlink_to("base")
    for out in (tmp_path / "base", tmp_path / "link"):
        code, said = run_fit(
            photos_dir, "--frozen-on", tmp_path / "base", "--out", out, "--cache", made[2], "--name", "new"
        )
        assert (code, said.count("\n")) == (2, 1)
        assert f"--out {out} is the bundle of --frozen-on: name another folder" in said
    assert (tmp_path / "base" / "manifest.json").read_bytes() == before


def test_heads_of_the_bundle_that_are_not_named_again_are_said_to_be_left_out(
    made: tuple[Bundle, Path, Path], photos_dir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    seen = f"seaview={seaview(photos_dir, tmp_path / 'seaview.csv')}"
    state = f"condition={condition(photos_dir, tmp_path / 'condition.csv')}"
    base = tmp_path / "base"
    for out, on, heads, left in (
        ("base", UNTRAINED, ("--head", seen, "--head", state), None),
        ("fewer", ("--frozen-on", base), ("--head", seen), "condition"),
        ("alike", ("--frozen-on", base), ("--head", seen, "--head", state), None),
    ):
        code, said = run_fit(photos_dir, "--out", tmp_path / out, "--cache", made[2], *on, *heads)
        assert code == 0, said
        told = capsys.readouterr().out
        assert told.count("left out: the head") == (left is not None)
        assert left is None or f"the head {left} of the bundle of --frozen-on; to keep it, fit again" in told


def test_a_disk_that_is_full_under_the_cached_features_is_said_in_one_line(
    photos_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    connect = sqlite3.connect

    def on_a_small_disk(path: Path) -> sqlite3.Connection:
        store = connect(path)
        store.execute("PRAGMA max_page_count = 4")
        return store

    monkeypatch.setattr(sqlite3, "connect", on_a_small_disk)
    code, said = run_fit(photos_dir, "--out", tmp_path / "bundle", "--cache", tmp_path / "cache", *UNTRAINED)
    assert code == 3 and said.startswith("enrich-train: the disk is full") and len(said.splitlines()) == 1
    assert not (tmp_path / "bundle").exists()


def test_a_photo_that_may_not_be_read_is_said_in_one_line(
    photos_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    photo, read = photos_dir / "web_homes/home0/0.jpg", Path.read_bytes

    def as_anybody(path: Path) -> bytes:
        if path == photo:  # root reads whatever its mode
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))
        return read(path)

    monkeypatch.setattr(Path, "read_bytes", as_anybody)
    code, said = run_fit(photos_dir, "--out", tmp_path / "bundle", "--cache", tmp_path / "cache", *UNTRAINED)
    assert code == 2 and said.startswith(f"enrich-train: {photo} cannot be used: Permission denied; ")
    assert len(said.splitlines()) == 1 and not (tmp_path / "bundle").exists()


def test_a_cache_that_cannot_be_written_is_refused_before_photos_are_read(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for cache in (tmp_path / "file", tmp_path / "file" / "cache"):
        code, said = run_fit(tmp_path / "nowhere", "--out", tmp_path / "bundle", "--cache", cache)
        assert code == 2 and said.startswith(f"enrich-train: --cache {cache} cannot be written: ")
        assert len(said.splitlines()) == 1
    code, said = run_fit(tmp_path / "nowhere", "--out", tmp_path / "bundle", "--cache", tmp_path / "a" / "b")
    assert "manifest.csv is missing" in said and not (tmp_path / "a").exists()


@pytest.mark.parametrize(("card", "reason"), [("file/card.md", "File exists"), ("folder", "Is a directory")])
def test_a_model_card_that_cannot_be_written_is_refused_before_the_bundle_is_made(
    card: str, reason: str, photos_dir: Path, tmp_path: Path
) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "folder").mkdir()
    where = ("--out", tmp_path / "bundle", "--cache", tmp_path / "cache", "--card", tmp_path / card)
    code, said = run_fit(photos_dir, *where, *UNTRAINED)
    assert (code, said) == (2, f"enrich-train: {tmp_path / card} cannot be written: {reason}\n")
    assert not (tmp_path / "bundle").exists()
