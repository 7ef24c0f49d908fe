"""Finetuning: the upper stages are timm's own, what learns is what should, and a killed run goes on."""

import hashlib
import struct
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from enrich.errors import UsageError
from enrich.model.network import Normalise
from training.data.labels import UNLABELLED
from training.models.backbones import Backbone, load_backbone
from training.models.features import pixels
from training.trainer import augment, trainable
from training.trainer import finetune as finetuning
from training.trainer.finetune import Lessons, Recipe, Task, averaged, finetune, predict

RECIPE = Recipe(samples=96, batch=8, alone=0.25, head_rate=1e-2)
PHOTOS = 40


@pytest.fixture(scope="module")
def backbone() -> Backbone:
    return load_backbone("timm:tf_efficientnet_lite0", weights="none", size=64, seed=1)


@pytest.fixture(scope="module")
def pictures() -> torch.Tensor:
    return torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))


@pytest.fixture(scope="module")
def drawn_photos(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Photos of noise; every second one, those labelled 1, is red at the bottom."""
    folder, noise = tmp_path_factory.mktemp("photos"), np.random.default_rng(0)
    paths = []
    for number in range(PHOTOS):
        pixels = noise.integers(0, 200, (80, 80, 3), dtype=np.uint8)
        if number % 2:
            pixels[30:] = (250, 20, 10)
        paths.append(folder / f"{number}.jpg")
        Image.fromarray(pixels).save(paths[-1])
    return paths


def fit(
    backbone: Backbone,
    paths: list[Path],
    labels: np.ndarray,
    folder: Path,
    seed: int = 0,
    recipe: Recipe = RECIPE,
) -> finetuning.Finetuned:
    task, rows = Task("balcony", labels, 1), np.arange(len(labels))
    sha256 = [hashlib.sha256(path.read_bytes()).hexdigest() for path in paths]
    lessons = Lessons(paths, sha256, [task], rows, np.ones(len(labels)))
    return finetune(backbone, lessons, recipe, seed, folder)


def test_front_and_top_are_the_whole_backbone(backbone: Backbone, pictures: torch.Tensor) -> None:
    with torch.inference_mode():
        top = trainable.LiteTop(backbone.module, backbone.name)
        ours = top.features(top.front(pictures))
        theirs = backbone.module(pictures)
    torch.testing.assert_close(ours, theirs, rtol=1e-3, atol=1e-5)


def test_what_the_lower_stages_make_on_a_cpu_is_what_they_make_elsewhere(backbone: Backbone) -> None:
    pictures = np.random.default_rng(0).integers(0, 256, (11, 64, 64, 3), dtype=np.uint8)
    top = trainable.LiteTop(backbone.module, backbone.name)
    normalised = Normalise(backbone.preprocessing)(torch.from_numpy(pictures))
    with torch.inference_mode():
        wanted = top.front(normalised)
    found = trainable.front(top, backbone.preprocessing, torch.device("cpu"))(pictures)
    torch.testing.assert_close(found, wanted, rtol=1e-3, atol=1e-4 * float(wanted.abs().max()))


def test_gradients_are_those_of_torch(backbone: Backbone, pictures: torch.Tensor) -> None:
    module: Any = backbone.module
    top = trainable.LiteTop(module, backbone.name)
    start = top.front(pictures).detach()
    one, other = (start.clone().requires_grad_(True) for _ in range(2))
    upper = torch.nn.Sequential(*module.blocks[trainable.START :], module.conv_head, module.bn2)
    top.features(one).pow(2).sum().backward()  # type: ignore[no-untyped-call]
    upper(other).mean((2, 3)).pow(2).sum().backward()
    assert one.grad is not None and other.grad is not None
    assert other.grad.abs().max() > 0
    torch.testing.assert_close(one.grad, other.grad, rtol=1e-2, atol=1e-3 * float(other.grad.abs().max()))


def test_only_the_upper_stages_learn(backbone: Backbone, drawn_photos: list[Path], tmp_path: Path) -> None:
    labels = np.tile([0, 1], PHOTOS // 2)
    before = {name: tensor.clone() for name, tensor in backbone.module.state_dict().items()}
    learnt = fit(backbone, drawn_photos, labels, tmp_path).tensors
    after = backbone.module.state_dict()
    assert all(torch.equal(before[name], after[name]) for name in before), "the backbone given is left alone"
    assert all(
        name.startswith(("blocks.3", "blocks.4", "blocks.5", "blocks.6", "conv_head", "bn2"))
        for name in learnt
    )
    assert not any("conv_dw" in name or "running" in name for name in learnt)
    assert any(not torch.equal(before[name], tensor) for name, tensor in learnt.items())


def test_it_learns_what_the_labels_say(backbone: Backbone, drawn_photos: list[Path], tmp_path: Path) -> None:
    labels = np.tile([0, 1], PHOTOS // 2)
    learnt = fit(backbone, drawn_photos, labels, tmp_path)
    logits = predict(backbone, learnt, drawn_photos, np.arange(PHOTOS))["balcony"]
    assert logits[labels == 1].min() > logits[labels == 0].max()


def test_it_may_learn_from_smaller_pictures_than_are_served(
    backbone: Backbone, drawn_photos: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    labels, seen = np.tile([0, 1], PHOTOS // 2), set()
    real = finetuning._Run.step

    def step(run: finetuning._Run, batch: finetuning.Pictures) -> float:
        seen.add(batch[1].shape[1:])
        return real(run, batch)

    monkeypatch.setattr(finetuning._Run, "step", step)
    learnt = fit(backbone, drawn_photos, labels, tmp_path, recipe=replace(RECIPE, side=48))
    assert seen == {(48, 48, 3)}
    logits = predict(backbone, learnt, drawn_photos, np.arange(PHOTOS))["balcony"]
    assert logits[labels == 1].min() > logits[labels == 0].max(), "of pictures of 64 px"


def test_unlabelled_photos_have_no_say(backbone: Backbone, drawn_photos: list[Path], tmp_path: Path) -> None:
    learnt = fit(backbone, drawn_photos, np.full(PHOTOS, UNLABELLED), tmp_path)
    head = learnt.heads["balcony"]
    assert not head.bias.any() and not head.weight.any()


def test_a_killed_run_ends_as_an_undisturbed_one(
    backbone: Backbone, drawn_photos: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(finetuning, "SAVE_SECONDS", 0.0)
    labels = np.tile([0, 1], PHOTOS // 2)
    whole = fit(backbone, drawn_photos, labels, tmp_path / "whole")
    real, done = finetuning._Run.step, []

    def dies(run: finetuning._Run, batch: finetuning.Pictures) -> float:
        done.append(run.done)
        if len(done) == 8:
            raise KeyboardInterrupt
        return real(run, batch)

    monkeypatch.setattr(finetuning._Run, "step", dies)
    with pytest.raises(KeyboardInterrupt):
        fit(backbone, drawn_photos, labels, tmp_path / "killed")
    again = fit(backbone, drawn_photos, labels, tmp_path / "killed")
    assert done[8] == 7, "goes on behind the last checkpoint, not from the start"
    for name, tensor in whole.tensors.items():
        torch.testing.assert_close(again.tensors[name], tensor, rtol=1e-5, atol=1e-6)
    assert (
        fit(backbone, drawn_photos, labels, tmp_path / "killed", seed=1).heads["balcony"].bias
        != whole.heads["balcony"].bias
    )


def test_of_two_at_once_the_second_waits_and_finds_it_finished(
    backbone: Backbone, drawn_photos: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    labels = np.tile([0, 1], PHOTOS // 2)
    real, done, second = finetuning._Run.step, list[int](), list[Future[finetuning.Finetuned]]()
    with ThreadPoolExecutor() as pool:

        def step(run: finetuning._Run, batch: finetuning.Pictures) -> float:
            done.append(run.done)
            if not second:
                second.append(pool.submit(fit, backbone, drawn_photos, labels, tmp_path))
                wait(second, 3)
            return real(run, batch)

        monkeypatch.setattr(finetuning._Run, "step", step)
        one = fit(backbone, drawn_photos, labels, tmp_path)
        other = second[0].result()
    assert done == list(range(RECIPE.steps))
    assert (one.heads["balcony"].weight == other.heads["balcony"].weight).all()


def test_a_loss_that_is_not_finite_ends_it(
    backbone: Backbone, drawn_photos: list[Path], tmp_path: Path
) -> None:
    labels, recipe = np.tile([0, 1], PHOTOS // 2), replace(RECIPE, head_rate=1e30)
    with pytest.raises(UsageError, match=r"step \d+ of 12: the loss is (inf|nan); .*--finetune none"):
        fit(backbone, drawn_photos, labels, tmp_path, recipe=recipe)


def test_a_damaged_checkpoint_is_refused_and_kept(
    backbone: Backbone, drawn_photos: list[Path], tmp_path: Path
) -> None:
    labels = np.tile([0, 1], PHOTOS // 2)
    fit(backbone, drawn_photos, labels, tmp_path, recipe=Recipe(samples=8, batch=8))
    (checkpoint,) = tmp_path.glob("*.pt")
    checkpoint.write_bytes(b"PK no checkpoint")
    with pytest.raises(UsageError, match=r"is not a readable checkpoint .* delete it to start the run over"):
        fit(backbone, drawn_photos, labels, tmp_path, recipe=Recipe(samples=8, batch=8))
    assert checkpoint.read_bytes() == b"PK no checkpoint"


def test_each_step_draws_anew_by_weight() -> None:
    rows, weight = np.array([3, 5, 9]), np.array([1.0, 0.0, 3.0])
    draws = [chosen for _, chosen in finetuning._draws(range(50), rows, weight, 20, 0)]
    counts = {row: int((np.array(draws) == row).sum()) for row in (3, 5, 9)}
    assert counts[5] == 0
    assert 2.0 < counts[9] / counts[3] < 4.5
    assert any((one != draws[0]).any() for one in draws)
    later = [chosen for _, chosen in finetuning._draws(range(30, 50), rows, weight, 20, 0)]
    assert all((one == other).all() for one, other in zip(draws[30:], later, strict=True))


def test_a_photo_is_drawn_anew_each_time_and_the_same_from_the_same_seed(
    backbone: Backbone, drawn_photos: list[Path]
) -> None:
    size = backbone.preprocessing
    seen = [augment.drawn(drawn_photos[1], size, (0, step)) for step in range(12)]
    assert all(picture.shape == (64, 64, 3) and picture.dtype == np.uint8 for picture in seen)
    assert len({picture.tobytes() for picture in seen}) > 6
    assert (augment.drawn(drawn_photos[1], size, (0, 3)) == seen[3]).all()
    served = pixels(drawn_photos[1], size, ("whole",))[0]
    assert any((picture == served).all() for picture in seen), "some as serving sees them"


def test_any_backbone_can_learn_as_a_whole(drawn_photos: list[Path], tmp_path: Path) -> None:
    backbone = load_backbone("timm:test_vit", weights="none", seed=1)
    labels = np.tile([0, 1], PHOTOS // 2)
    recipe = Recipe(part="all", samples=24, batch=8)
    learnt = fit(backbone, drawn_photos, labels, tmp_path, recipe=recipe)
    before = backbone.module.state_dict()
    assert set(learnt.tensors) == {name for name, _ in backbone.module.named_parameters()}
    assert any(not torch.equal(before[name], tensor) for name, tensor in learnt.tensors.items())


def test_other_backbones_are_refused_with_a_way_out() -> None:
    with pytest.raises(UsageError, match="--finetune all or none"):
        trainable.LiteTop(torch.nn.Linear(2, 2), "timm:resnet18")


def test_runs_are_averaged_weight_by_weight(
    backbone: Backbone, drawn_photos: list[Path], tmp_path: Path
) -> None:
    labels = np.tile([0, 1], PHOTOS // 2)
    one, other = (fit(backbone, drawn_photos, labels, tmp_path, seed) for seed in (0, 1))
    mean = averaged([one, other])
    for name, tensor in mean.tensors.items():
        torch.testing.assert_close(tensor, (one.tensors[name] + other.tensors[name]) / 2)
    head = mean.heads["balcony"]
    np.testing.assert_allclose(head.bias, (one.heads["balcony"].bias + other.heads["balcony"].bias) / 2)
    assert head.weight.dtype == np.float32
    alone = averaged([one])
    assert all(torch.equal(alone.tensors[name], tensor) for name, tensor in one.tensors.items())


@pytest.mark.parametrize("kind", ["clear", "grey of 16 bits"])
def test_what_is_drawn_has_the_colours_that_serving_sees(
    backbone: Backbone, tmp_path: Path, kind: str
) -> None:
    clear, grey = np.zeros((80, 80, 4), np.uint8), np.full((80, 80), 0x4000, np.uint16)
    path = tmp_path / "photo.png"
    Image.fromarray(clear if kind == "clear" else grey).save(path)
    served = pixels(path, backbone.preprocessing, ("whole",))[0].mean()
    assert served == (255 if kind == "clear" else 64)
    for seed in range(20):
        assert 0.4 * served < augment.drawn(path, backbone.preprocessing, (seed,)).mean() < 2 * served


def test_a_photo_on_its_side_whose_other_metadata_are_odd_is_drawn(
    backbone: Backbone, tmp_path: Path
) -> None:
    """Serving reads it. Its maker's name is a fraction."""
    maker, side = struct.pack("<HHII", 0x010F, 5, 1, 38), struct.pack("<HHII", 0x0112, 3, 1, 6)
    exif = b"Exif\0\0II*\0" + struct.pack("<IH", 8, 2) + maker + side + struct.pack("<III", 0, 1, 3)
    path = tmp_path / "photo.jpg"
    picture = np.zeros((60, 80, 3), np.uint8)
    picture[:, :40] = 250  # the left half, which comes up
    Image.fromarray(picture).save(path, exif=exif)
    for seed in range(20):
        seen = augment.drawn(path, backbone.preprocessing, (seed,))
        assert seen[:8].mean() > seen[-8:].mean() + 50
