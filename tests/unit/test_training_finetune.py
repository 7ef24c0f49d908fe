"""Finetuning: the upper stages are timm's own, what learns is what should, and a killed run goes on."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from enrich.errors import UsageError
from training import finetune as finetuning
from training import top
from training.backbones import Backbone, load_backbone
from training.data import UNLABELLED
from training.finetune import Recipe, Task, finetune, predict

RECIPE = Recipe(samples=96, batch=8, alone=0.25, head_rate=1e-2)
PHOTOS = 40


@pytest.fixture(scope="module")
def backbone() -> Backbone:
    return load_backbone("timm:tf_efficientnet_lite0", weights="none", size=64, seed=1)


@pytest.fixture(scope="module")
def pictures() -> torch.Tensor:
    return torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))


def activations(labels: np.ndarray) -> dict[str, np.ndarray]:
    """Photos of 4x4 cells; the label lifts some channels everywhere."""
    rng = np.random.default_rng(0)
    whole = rng.normal(0, 1, (len(labels), 4, 4, 112)).astype(np.float16)
    whole[labels == 1, :, :, :20] += 3
    return {"whole": whole, "other": whole[:, :, ::-1].copy()}


def fit(backbone: Backbone, labels: np.ndarray, folder: Path, seed: int = 0) -> finetuning.Finetuned:
    task = Task("balcony", labels, 1)
    return finetune(
        backbone,
        activations(labels),
        [task],
        np.arange(len(labels)),
        np.ones(len(labels)),
        RECIPE,
        seed,
        folder,
    )


def test_front_and_top_are_the_whole_backbone(backbone: Backbone, pictures: torch.Tensor) -> None:
    with torch.inference_mode():
        ours = top.features(backbone.module, top.front(backbone.module, pictures))
        theirs = backbone.module(pictures)
    torch.testing.assert_close(ours, theirs, rtol=1e-3, atol=1e-5)


def test_gradients_are_those_of_torch(backbone: Backbone, pictures: torch.Tensor) -> None:
    module: Any = backbone.module
    start = top.front(module, pictures).detach()
    one, other = (start.clone().requires_grad_(True) for _ in range(2))
    upper = torch.nn.Sequential(*module.blocks[top.START :], module.conv_head, module.bn2)
    top.features(module, one).pow(2).sum().backward()  # type: ignore[no-untyped-call]
    upper(other).mean((2, 3)).pow(2).sum().backward()
    assert one.grad is not None and other.grad is not None
    assert other.grad.abs().max() > 0
    torch.testing.assert_close(one.grad, other.grad, rtol=1e-2, atol=1e-3 * float(other.grad.abs().max()))


def test_only_the_upper_stages_learn(backbone: Backbone, tmp_path: Path) -> None:
    labels = np.tile([0, 1], PHOTOS // 2)
    before = {name: tensor.clone() for name, tensor in backbone.module.state_dict().items()}
    learnt = fit(backbone, labels, tmp_path).tensors
    after = backbone.module.state_dict()
    assert all(torch.equal(before[name], after[name]) for name in before), "the backbone given is left alone"
    assert all(name.startswith(("blocks.5", "blocks.6", "conv_head", "bn2")) for name in learnt)
    assert not any("conv_dw" in name or "running" in name for name in learnt)
    assert any(not torch.equal(before[name], tensor) for name, tensor in learnt.items())


def test_it_learns_what_the_labels_say(backbone: Backbone, tmp_path: Path) -> None:
    labels = np.tile([0, 1], PHOTOS // 2)
    learnt = fit(backbone, labels, tmp_path)
    logits = predict(backbone, learnt, activations(labels)["whole"], np.arange(PHOTOS))["balcony"]
    assert logits[labels == 1].min() > logits[labels == 0].max()


def test_unlabelled_photos_have_no_say(backbone: Backbone, tmp_path: Path) -> None:
    learnt = fit(backbone, np.full(PHOTOS, UNLABELLED), tmp_path)
    head = learnt.heads["balcony"]
    assert not head.bias.any() and not head.weight.any()


def test_a_killed_run_ends_as_an_undisturbed_one(
    backbone: Backbone, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(finetuning, "CHECKPOINT_STEPS", 3)
    labels = np.tile([0, 1], PHOTOS // 2)
    whole = fit(backbone, labels, tmp_path / "whole")
    real, done = finetuning._Run.step, []

    def dies(run: finetuning._Run, step: int, *given: object) -> float:
        done.append(step)
        if len(done) == 8:
            raise KeyboardInterrupt
        return real(run, step, *given)  # type: ignore[arg-type]

    monkeypatch.setattr(finetuning._Run, "step", dies)
    with pytest.raises(KeyboardInterrupt):
        fit(backbone, labels, tmp_path / "killed")
    again = fit(backbone, labels, tmp_path / "killed")
    assert done[8] == 6, "goes on behind the last checkpoint, not from the start"
    for name, tensor in whole.tensors.items():
        torch.testing.assert_close(again.tensors[name], tensor, rtol=1e-5, atol=1e-6)
    assert (
        fit(backbone, labels, tmp_path / "killed", seed=1).heads["balcony"].bias
        != whole.heads["balcony"].bias
    )


def test_each_step_draws_anew_by_weight_and_from_every_view() -> None:
    rows, weight = np.array([3, 5, 9]), np.array([1.0, 0.0, 3.0])
    drawn, views = [], []
    for step in range(50):
        chosen, seen = finetuning._draw(rows, weight, ("whole", "drawn1"), 20, [0, step])
        drawn.append(chosen)
        views += list(seen)
    counts = {row: int((np.array(drawn) == row).sum()) for row in (3, 5, 9)}
    assert counts[5] == 0
    assert 2.0 < counts[9] / counts[3] < 4.5
    assert set(views) == {"whole", "drawn1"}
    assert any((one != drawn[0]).any() for one in drawn)


def test_other_backbones_are_refused_with_a_way_out() -> None:
    with pytest.raises(UsageError, match="--finetune none"):
        top.check_supported(torch.nn.Linear(2, 2), "timm:resnet18")
