"""Parts of `enrich-train compare`: photos, frozen features, checks before the first run, timings, results."""

import dataclasses
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image
from torch.nn import functional

from enrich.errors import UsageError
from enrich.model.bundle import Preprocessing
from tests.support.comparing import draw_prepared, run_train
from training import thesis
from training.compare.plan import Choice, Recipe, make_plans
from training.compare.results import EpochRow, RunKey, RunRow, add_rows, read_results
from training.compare.run import Run, build
from training.data.prepared import read_prepared
from training.models.architectures import WeightSource
from training.trainer import loop
from training.trainer.augment import _crop, augmented
from training.trainer.loading import Batch, Loader, side_of, steps

CPU = torch.device("cpu")
SEEN = Preprocessing((32, 32), "crop", "bilinear", (0.5,) * 3, (0.5,) * 3)
TINY = ("--architecture", "timm:test_resnet", "--weights", "none", "--input-size", "32", "--device", "cpu")


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return draw_prepared(tmp_path_factory.mktemp("compare") / "prepared")


@pytest.fixture
def own(prepared: Path, tmp_path: Path) -> Path:
    """A copy to spoil."""
    return shutil.copytree(prepared, tmp_path / "own")


def same(one: Iterator[Batch], other: Iterator[Batch]) -> bool:
    return all(
        np.array_equal(a.rows, b.rows)
        and torch.equal(a.pictures, b.pictures)
        and torch.equal(a.labels, b.labels)
        for a, b in zip(one, other, strict=True)
    )


def test_batches_do_not_depend_on_threads_nor_on_where_one_starts(prepared: Path) -> None:
    side = side_of(read_prepared(prepared), "balcony", "train")
    alone, threaded = Loader(SEEN, 8, 0, CPU), Loader(SEEN, 8, 2, CPU)
    assert same(alone.training(side, 0, 1), threaded.training(side, 0, 1))
    later = list(alone.training(side, 0, 1))[1:]
    assert same(iter(later), threaded.training(side, 0, 1, start=1))
    assert not same(alone.training(side, 0, 1), alone.training(side, 0, 2))
    assert not same(alone.training(side, 0, 1), alone.training(side, 1, 1))


def test_an_epoch_sees_every_photo_once(prepared: Path) -> None:
    side = side_of(read_prepared(prepared), "rooms", "train")
    batches = list(Loader(SEEN, 8, 0, CPU).training(side, 0, 1))
    assert sorted(int(row) for batch in batches for row in batch.rows) == list(range(30))
    assert [len(batch.rows) for batch in batches] == [8, 8, 8, 6]
    assert {tuple(batch.pictures.shape[1:]) for batch in batches} == {(3, 32, 32)}
    assert all(torch.equal(batch.labels, side.labels[batch.rows]) for batch in batches)


def test_a_last_batch_of_one_photo_is_left_out() -> None:
    assert [steps(count, 8) for count in (16, 17, 18)] == [2, 2, 3]


def test_crops_are_those_of_torchvision() -> None:
    """Share of the area and shape in its bounds and, over many, spread like its own."""
    from torchvision.transforms import RandomResizedCrop

    draw = np.random.default_rng(0)
    ours = np.array([_crop(500, 375, draw) for _ in range(3000)])
    torch.manual_seed(0)
    picture = torch.zeros(3, 375, 500)
    theirs = np.array(
        [RandomResizedCrop.get_params(picture, [0.08, 1.0], [3 / 4, 4 / 3]) for _ in range(3000)]
    )
    left, top, width, height = ours.T
    assert (left >= 0).all() and (left + width <= 500).all() and (top + height <= 375).all()
    ranks = (10, 25, 50, 75, 90)
    for mine, other in (
        (width, theirs[:, 3]),
        (height, theirs[:, 2]),
        (left, theirs[:, 1]),
        (top, theirs[:, 0]),
    ):
        assert np.percentile(mine, ranks) == pytest.approx(np.percentile(other, ranks), abs=15)
    assert _crop(2000, 10, np.random.default_rng(0)) == (993, 0, 13, 10)


def test_half_of_the_photos_are_mirrored(tmp_path: Path) -> None:
    ramp = np.tile(np.arange(200, dtype=np.uint8), (150, 1))
    Image.fromarray(ramp).save(tmp_path / "ramp.png")
    views = [augmented(tmp_path / "ramp.png", SEEN, (0, row)).astype(int) for row in range(200)]
    mirrored = sum(view[:, 0, 0].mean() > view[:, -1, 0].mean() for view in views)
    assert 70 < mirrored < 130


def test_a_photo_that_cannot_be_decoded_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "broken.jpg").write_bytes(b"\xff\xd8\xff nothing")
    with pytest.raises(UsageError, match=r"broken\.jpg cannot be decoded"):
        augmented(tmp_path / "broken.jpg", SEEN, (0, 0))


def test_features_kept_of_a_frozen_backbone_give_the_same_result(prepared: Path, tmp_path: Path) -> None:
    data = read_prepared(prepared)
    choice = Choice(("timm:test_resnet",), ("feature_extraction",), ("balcony",), size=32)
    plan = make_plans(data, choice, WeightSource("none"), Recipe(epochs=3, batch=8, rate=0.1))[0]
    loader = Loader(plan.preprocessing, 8, 0, CPU)
    loaded, losses = [], set()

    def counted(side: object) -> Iterator[Batch]:
        loaded.append(side)
        return Loader.validation(loader, side)  # type: ignore[arg-type]

    def ended(row: EpochRow) -> None:
        with torch.inference_mode():
            batches = Loader.validation(loader, validation)
            logits = torch.cat([network(batch.pictures)[0] for batch in batches])
        assert row.val_loss == float(functional.cross_entropy(logits, validation.labels))
        losses.add(row.val_loss)

    loader.validation = counted  # type: ignore[method-assign]
    network, validation = build(plan, CPU), side_of(data, "balcony", "val")
    run = Run(plan, network, side_of(data, "balcony", "train"), validation, loader, ended)
    assert len(list(loop.learn(run, tmp_path / "checkpoint.pt", 60))) == 9
    assert len(loaded) == 1 and len(losses) == 3


def refused(*arguments: object) -> str:
    code, said = run_train("compare", *arguments)
    assert (code, said.count("\n")) == (2, 1), said
    return said


def test_photos_that_do_not_do_are_refused_before_the_first_run(
    prepared: Path, own: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    said = refused(prepared, "--out", out, *TINY, "--batch", "11")
    assert "class balcony of balcony has 10 training photos, fewer than a batch of 11" in said
    one = draw_prepared(tmp_path / "one", {"views": ("sea",)})
    assert "task views has one class only (sea)" in refused(one, "--out", out, *TINY, "--batch", "8")
    unseen = draw_prepared(tmp_path / "unseen", {"views": ("sea", "yard")}, val=0)
    assert "has no validation photo" in refused(unseen, "--out", out, *TINY, "--batch", "8")
    photo = next((own / "photos").rglob("*.jpg"))
    photo.write_bytes(photo.read_bytes() + b"\0")
    assert f"{photo.name} was changed" in refused(own, "--out", out, *TINY, "--batch", "8")
    (own / "prepared.csv").write_text((own / "prepared.csv").read_text().replace("home1", "home2"))
    assert "prepared.csv was changed" in refused(own, "--out", out, *TINY, "--batch", "8")
    assert "is not a prepared folder" in refused(tmp_path / "none", "--out", out, *TINY)
    assert not out.exists()


@pytest.mark.parametrize(
    ("option", "expected"),
    [
        (("--architecture", "resnet19"), "--architecture resnet19: use resnet18"),
        (("--task", "pools"), "--task pools: "),
        (("--mode", "both"), "--mode both: use feature_extraction or finetuning"),
        (("--device", "tpu"), "--device tpu"),
        (("--device", "cuda:9"), "--device cuda:9 is not here"),
        (("--weights-dir", "here"), "leave out --weights none"),
        (("--architecture", "alexnet"), "alexnet cannot see a picture of 32x32"),
        (("--weights", "package"), "--architecture timm:test_resnet: no pip package brings its weights"),
    ],
)
def test_options_that_do_not_do_are_refused(
    prepared: Path, tmp_path: Path, option: tuple[str, str], expected: str
) -> None:
    assert expected in refused(prepared, "--out", tmp_path / "out", *TINY, "--batch", "8", *option)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("more", [(), ("--timing-steps", "1", "--rounds", "1")])
@pytest.mark.parametrize("place", ["labels.csv", "labels.csv/results"])
def test_a_place_that_cannot_be_a_folder_is_refused(
    prepared: Path, tmp_path: Path, place: str, more: tuple[str, ...]
) -> None:
    (tmp_path / "labels.csv").write_text("path,label")
    said = refused(prepared, "--out", tmp_path / place, *TINY, "--batch", "8", "--task", "balcony", *more)
    assert said.startswith(f"enrich-train: --out {tmp_path / place} cannot be written: ")
    assert (tmp_path / "labels.csv").read_text() == "path,label"


def test_a_folder_in_which_nothing_can_be_written_is_refused_before_anything_is_measured(
    prepared: Path, tmp_path: Path
) -> None:
    (tmp_path / "out" / ".lock").mkdir(parents=True)
    measured = ("--batch", "8", "--task", "balcony", "--timing-steps", "1")
    said = refused(prepared, "--out", tmp_path / "out", *TINY, *measured)
    assert said.startswith(f"enrich-train: --out {tmp_path / 'out'} cannot be written: ")


def test_a_loss_that_is_not_finite_ends_the_run_in_one_line(prepared: Path, tmp_path: Path) -> None:
    options = (*TINY, "--task", "balcony", "--batch", "8", "--rate", "1e38")
    code, said = run_train("compare", prepared, "--out", tmp_path / "out", *options)
    name = "balcony__timm-test_resnet__feature_extraction__s0"
    last = rf"enrich-train: {name}, epoch \d: the loss is (inf|nan); use a lower --rate"
    assert code == 2 and re.fullmatch(last, said.splitlines()[-1])


def test_too_little_disk_is_refused(prepared: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=1_000_000))
    said = refused(prepared, "--out", tmp_path / "out", *TINY, "--batch", "8")
    assert "has 0.0 GB free, and 4 runs need up to 0.0 GB" in said
    assert not (tmp_path / "out").exists()


def test_runs_are_ordered_so_that_the_cheap_mode_comes_first(prepared: Path) -> None:
    plans = make_plans(read_prepared(prepared), Choice(seeds=(0, 1)), WeightSource("none"), Recipe())
    assert len(plans) == 2 * 2 * 5 * 2
    assert [plan.key for plan in plans[:2]] == [
        RunKey(task, "resnet18", "feature_extraction", 0) for task in ("balcony", "rooms")
    ]
    assert plans[0].recipe == Recipe(30, 32, 0.001, 0.9, "fp32")
    assert plans[10].key == RunKey("balcony", "resnet18", "finetuning", 0)


def test_timings_take_turns_and_reckon_with_the_thesis_photos(prepared: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    options = (*TINY, "--task", "balcony", "--batch", "8", "--timing-steps", "2", "--rounds", "2")
    assert run_train("compare", prepared, "--out", out, *options)[0] == 0
    timings = read_results(out).timings
    assert timings["round"].tolist() == [1, 1, 2, 2]
    assert timings["mode"].tolist() == ["feature_extraction", "finetuning"] * 2
    photos = thesis.PHOTOS["balcony"]
    expected = photos[0] / timings.train_images_per_second + photos[1] / timings.val_images_per_second
    assert timings.epoch_seconds.tolist() == pytest.approx(expected.tolist(), rel=1e-4)
    assert not (out / "runs").exists()
    assert "timings.csv is there already" in refused(prepared, "--out", out, *options)


def test_rows_of_the_same_key_give_way(tmp_path: Path) -> None:
    row = EpochRow("balcony", "resnet18", "finetuning", 0, 1, 0.5, 0.5, 0.5, 0.5, 1.0, None)
    add_rows(tmp_path, [row, dataclasses.replace(row, epoch=2)])
    add_rows(tmp_path, [dataclasses.replace(row, train_loss=0.25)])
    epochs = read_results(tmp_path).epochs
    assert dict(zip(epochs["epoch"], epochs.train_loss, strict=True)) == {1: 0.25, 2: 0.5}
    assert len((tmp_path / "epochs.csv").read_text().splitlines()) == 3, "in the file, too"


def test_results_of_others_may_leave_fields_empty(tmp_path: Path) -> None:
    row = RunRow("balcony", "resnet18", "finetuning", None, None, None, 366.0, None, 0.9656, *[None] * 7)
    add_rows(tmp_path, [row])
    add_rows(tmp_path, [dataclasses.replace(row, seed=0, best_val_accuracy=0.97)])
    results = read_results(tmp_path)
    assert results.runs.best_val_accuracy.tolist() == [0.9656, 0.97]
    assert results.runs.seed.isna().tolist() == [True, False] and results.epochs.empty


def test_tables_that_are_none_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="holds no results"):
        read_results(tmp_path)
    (tmp_path / "runs.csv").write_text("task,mode\nbalcony,finetuning\n")
    with pytest.raises(UsageError, match=r"runs\.csv lacks the column architecture"):
        read_results(tmp_path)
