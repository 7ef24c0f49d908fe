"""Finetuning: the upper stages of the backbone and all heads learn together, from cached activations.

Each photo is drawn as often as its labels weigh, under one of its views; a photo without a label for a head
has no say there. What is drawn depends on seed and step alone, so a run that was killed ends as any other.
"""

import copy
import hashlib
import json
import math
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from rich.progress import track
from torch import Tensor, nn

from training import top
from training.backbones import Backbone
from training.data import UNLABELLED
from training.heads import LinearHead

Activations = Mapping[str, NDArray[np.float16]]
"""View -> [photos, h, w, channels]: what `top.front` made of it; `whole` is what serving sees."""

CHECKPOINT_STEPS = 25


@dataclass(frozen=True)
class Recipe:
    """How long and how fast. `samples`: photos drawn; the share `alone` of them comes first and teaches
    only the heads."""

    samples: int = 32_000
    alone: float = 0.15
    batch: int = 64
    top_rate: float = 3e-4
    head_rate: float = 2e-3
    decay: float = 0.02
    dropout: float = 0.2
    smoothing: float = 0.03
    average: float = 0.98
    """Weights are averaged over steps with this memory; the average is what is kept."""

    @property
    def steps(self) -> int:
        return max(1, self.samples // self.batch)


@dataclass(frozen=True)
class Task:
    """One head to learn: labels int [photos]; one output: binary, else one a class."""

    name: str
    labels: NDArray[np.int64]
    outputs: int


@dataclass(frozen=True)
class Finetuned:
    """The averaged weights: those of the backbone that learnt, by timm's names, and the heads."""

    tensors: dict[str, Tensor]
    heads: dict[str, LinearHead]


def finetune(
    backbone: Backbone,
    activations: Activations,
    tasks: Sequence[Task],
    rows: NDArray[np.int64],
    weight: NDArray[np.float64],
    recipe: Recipe,
    seed: int,
    folder: Path,
) -> Finetuned:
    """Learn from the photos `rows`, drawn by `weight` [rows].

    `folder` keeps checkpoints: the same call goes on where it was stopped, and one that had finished returns
    at once.

    Raises:
        UsageError: the backbone is not one that can be finetuned.
    """
    top.check_supported(backbone.module, backbone.name)
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{_key(backbone, tuple(activations), tasks, rows, weight, recipe, seed)[:24]}.pt"
    run = _Run(backbone, tasks, recipe, seed)
    start = run.load(path)
    for step in track(range(start, recipe.steps), "finetune", recipe.steps - start, transient=True):
        chosen, views = _draw(rows, weight, tuple(activations), recipe.batch, [seed, step])
        x = np.stack([activations[view][row] for row, view in zip(chosen, views, strict=True)])
        run.step(step, x, {task.name: task.labels[chosen] for task in tasks})
        if (step + 1) % CHECKPOINT_STEPS == 0 or step + 1 == recipe.steps:
            run.save(path, step + 1)
    return run.result()


def predict(
    backbone: Backbone, finetuned: Finetuned, whole: NDArray[np.float16], rows: NDArray[np.int64]
) -> dict[str, NDArray[np.float64]]:
    """Logits [rows, outputs] of each head, in fp32."""
    module = copy.deepcopy(backbone.module)
    module.load_state_dict(finetuned.tensors, strict=False)
    vectors = features(module, whole, rows)
    return {name: head.logits(vectors) for name, head in finetuned.heads.items()}


def features(module: nn.Module, whole: NDArray[np.float16], rows: NDArray[np.int64]) -> NDArray[np.float32]:
    """Features [rows, width] of activations, in fp32."""
    with torch.inference_mode():
        parts = [
            top.features(module, _tensor(whole[rows[start : start + 64]])).numpy()
            for start in range(0, len(rows), 64)
        ]
    return np.concatenate(parts)


class _Run:
    """Model, optimiser and averaged weights of one finetuning."""

    def __init__(self, backbone: Backbone, tasks: Sequence[Task], recipe: Recipe, seed: int) -> None:
        self._recipe, self._seed = recipe, seed
        self._module = copy.deepcopy(backbone.module)
        upper = top.trainable(self._module)
        width: int = self._module.num_features  # type: ignore[assignment]
        heads = {task.name: nn.Linear(width, task.outputs) for task in tasks}
        for head in heads.values():
            nn.init.zeros_(head.weight)
            nn.init.zeros_(head.bias)
        self._heads = nn.ModuleDict(heads)
        self._learnt = upper | {f"head.{name}": p for name, p in self._heads.named_parameters()}
        self._average = {name: p.detach().clone() for name, p in self._learnt.items()}
        self._optimiser = torch.optim.AdamW(
            [{"params": list(upper.values())}, {"params": list(self._heads.parameters())}],
            weight_decay=recipe.decay,
        )

    def step(self, step: int, x: NDArray[np.float16], labels: Mapping[str, NDArray[np.int64]]) -> float:
        recipe = self._recipe
        torch.manual_seed(self._seed * 1_000_003 + step)
        alone = step < recipe.alone * recipe.steps
        done = step / recipe.steps
        cosine = 0.5 * (1 + math.cos(math.pi * done))
        top_group, head_group = self._optimiser.param_groups
        top_group["lr"] = (
            0.0 if alone else recipe.top_rate * cosine * min(1.0, (done - recipe.alone) * 20 + 0.1)
        )
        head_group["lr"] = recipe.head_rate * cosine
        with torch.autocast("cpu", torch.bfloat16), torch.set_grad_enabled(not alone):
            vectors = top.features(self._module, _tensor(x))
        vectors = F.dropout(vectors, recipe.dropout)
        loss = sum(
            (
                _loss(head(vectors), torch.from_numpy(labels[name]), recipe)
                for name, head in self._heads.items()
            ),
            torch.zeros(()),
        )
        self._optimiser.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        self._optimiser.step()
        memory = min(recipe.average, (1 + step) / (10 + step))
        for name, parameter in self._learnt.items():
            self._average[name].lerp_(parameter.detach(), 1 - memory)
        return float(loss.detach())

    def load(self, path: Path) -> int:
        """Take up the checkpoint at `path`; returns the step to go on with."""
        if not path.exists():
            return 0
        stored = torch.load(path, weights_only=True)
        with torch.no_grad():
            for name, parameter in self._learnt.items():
                parameter.copy_(stored["learnt"][name])
        self._average = stored["average"]
        self._optimiser.load_state_dict(stored["optimiser"])
        return int(stored["step"])

    def save(self, path: Path, step: int) -> None:
        learnt = {name: parameter.detach() for name, parameter in self._learnt.items()}
        state = {
            "step": step,
            "learnt": learnt,
            "average": self._average,
            "optimiser": self._optimiser.state_dict(),
        }
        torch.save(state, path.with_suffix(".part"))
        os.replace(path.with_suffix(".part"), path)

    def result(self) -> Finetuned:
        heads = {
            name: LinearHead(
                self._average[f"head.{name}.weight"].numpy().copy(),
                self._average[f"head.{name}.bias"].numpy().copy(),
            )
            for name in self._heads
        }
        tensors = {
            name: tensor.clone() for name, tensor in self._average.items() if not name.startswith("head.")
        }
        return Finetuned(tensors, heads)


def _loss(logits: Tensor, labels: Tensor, recipe: Recipe) -> Tensor:
    known = labels != UNLABELLED
    if not known.any():
        return logits.sum() * 0
    if logits.shape[1] > 1:
        return F.cross_entropy(logits[known], labels[known], label_smoothing=recipe.smoothing)
    target = labels[known].float() * (1 - recipe.smoothing) + recipe.smoothing / 2
    return 2 * F.binary_cross_entropy_with_logits(logits[known, 0], target)


def _draw(
    rows: NDArray[np.int64],
    weight: NDArray[np.float64],
    views: Sequence[str],
    count: int,
    seed: Sequence[int],
) -> tuple[NDArray[np.int64], Iterator[str]]:
    rng = np.random.default_rng(seed)
    chosen = rng.choice(rows, count, p=weight / weight.sum())
    return chosen, iter(rng.choice(views, count))


def _tensor(x: NDArray[np.float16]) -> Tensor:
    return torch.from_numpy(np.asarray(x)).float().permute(0, 3, 1, 2)


def _key(
    backbone: Backbone,
    views: Sequence[str],
    tasks: Sequence[Task],
    rows: NDArray[np.int64],
    weight: NDArray[np.float64],
    recipe: Recipe,
    seed: int,
) -> str:
    digest = hashlib.sha256(json.dumps([backbone.key, asdict(recipe), seed, top.START, views]).encode())
    for task in tasks:
        digest.update(f"{task.name}{task.outputs}".encode() + task.labels.tobytes())
    digest.update(rows.tobytes() + weight.tobytes())
    return digest.hexdigest()
