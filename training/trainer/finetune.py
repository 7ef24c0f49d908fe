"""Finetuning: the upper stages of the backbone and all heads learn jointly.

Each photo is drawn as often as its labels weigh, each time drawn anew (`trainer.augment`); a photo without
a label for a head has no say there. What is drawn depends on seed and step alone, so a run that was killed
ends as any other.
"""

import copy
import hashlib
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from rich.progress import track
from torch import Tensor, nn

from enrich.atomic import new_file
from training.data.labels import UNLABELLED
from training.models.backbones import Backbone
from training.models.features import normalised, pixels
from training.models.heads import LinearHead
from training.trainer import augment, trainable

CPU = torch.device("cpu")
CHECKPOINT_STEPS = 25
PREDICT_BATCH = 16


@dataclass(frozen=True)
class Recipe:
    """How long and how fast. `samples`: photos drawn; the share `alone` of them comes first and teaches
    only the heads."""

    part: Literal["top", "all"] = "top"
    """What of the backbone learns: the upper stages of an EfficientNet-Lite, or all of any backbone."""
    samples: int = 24_000
    alone: float = 0.08
    batch: int = 32
    top_rate: float = 2.5e-4
    stage_decay: float = 0.75
    """The learning rate of a stage, as a part of that of the stage above it."""
    head_rate: float = 1e-3
    decay: float = 0.05
    dropout: float = 0.25
    smoothing: float = 0.03
    average: float = 0.99
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
    paths: Sequence[Path],
    tasks: Sequence[Task],
    rows: NDArray[np.int64],
    weight: NDArray[np.float64],
    recipe: Recipe,
    seed: int,
    folder: Path,
    device: torch.device = CPU,
) -> Finetuned:
    """Learn from the photos `paths[rows]`, drawn by `weight` [rows].

    `folder` keeps checkpoints: the same call goes on where it was stopped, and one that had finished returns
    at once.

    Raises:
        UsageError: the backbone is not one that can be finetuned, or a photo cannot be decoded.
    """
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{_key(backbone, paths, tasks, rows, weight, recipe, seed)[:24]}.pt"
    run = _Run(backbone, tasks, recipe, seed, device)
    start = run.load(path)
    draws = _draws(range(start, recipe.steps), rows, weight, recipe.batch, seed)
    made = augment.batches(paths, backbone.preprocessing, draws, seed)
    for step, (chosen, pictures) in track(
        enumerate(made, start), "finetune", recipe.steps - start, transient=True
    ):
        run.step(step, pictures, {task.name: task.labels[chosen] for task in tasks})
        if (step + 1) % CHECKPOINT_STEPS == 0 or step + 1 == recipe.steps:
            run.save(path, step + 1)
    return run.result()


def averaged(runs: Sequence[Finetuned]) -> Finetuned:
    """One model with the mean of the weights of several that started from the same backbone: a model soup
    (Wortsman et al. 2022)."""
    first, count = runs[0], len(runs)
    tensors = {name: torch.stack([run.tensors[name] for run in runs]).mean(0) for name in first.tensors}
    heads = {
        name: LinearHead(
            sum((run.heads[name].weight for run in runs[1:]), head.weight) / np.float32(count),
            sum((run.heads[name].bias for run in runs[1:]), head.bias) / np.float32(count),
        )
        for name, head in first.heads.items()
    }
    return Finetuned(tensors, heads)


def predict(
    backbone: Backbone, finetuned: Finetuned, paths: Sequence[Path], rows: NDArray[np.int64]
) -> dict[str, NDArray[np.float64]]:
    """Logits [rows, outputs] of each head for the photos as serving sees them, in fp32."""
    module = copy.deepcopy(backbone.module)
    module.load_state_dict(finetuned.tensors, strict=False)
    parts = []
    for start in range(0, len(rows), PREDICT_BATCH):
        chosen = rows[start : start + PREDICT_BATCH]
        pictures = np.stack([pixels(paths[row], backbone.preprocessing, ("whole",))[0] for row in chosen])
        with torch.inference_mode():
            parts.append(module(normalised(pictures, backbone.preprocessing)).numpy())
    vectors = np.concatenate(parts)
    return {name: head.logits(vectors) for name, head in finetuned.heads.items()}


class _Run:
    """Model, optimiser and averaged weights of one finetuning."""

    def __init__(
        self, backbone: Backbone, tasks: Sequence[Task], recipe: Recipe, seed: int, device: torch.device
    ) -> None:
        self._recipe, self._seed, self._preprocessing = recipe, seed, backbone.preprocessing
        self._device = device
        self._learner = trainable.LEARNERS[recipe.part](
            copy.deepcopy(backbone.module).to(device), backbone.name
        )
        upper = self._learner.parameters()
        heads = {task.name: nn.Linear(backbone.width, task.outputs) for task in tasks}
        for head in heads.values():
            nn.init.zeros_(head.weight)
            nn.init.zeros_(head.bias)
        self._heads = nn.ModuleDict(heads).to(device)
        self._learnt = upper | {f"head.{name}": p for name, p in self._heads.named_parameters()}
        self._average = {name: p.detach().clone() for name, p in self._learnt.items()}
        stages: list[dict[str, Any]] = [
            {"params": [upper[name]], "share": recipe.stage_decay ** self._learner.depth(name)}
            for name in upper
        ]
        self._optimiser = torch.optim.AdamW(
            [*stages, {"params": list(self._heads.parameters())}], weight_decay=recipe.decay
        )

    def step(self, step: int, pictures: NDArray[np.uint8], labels: Mapping[str, NDArray[np.int64]]) -> float:
        recipe = self._recipe
        torch.manual_seed(self._seed * 1_000_003 + step)
        alone = step < recipe.alone * recipe.steps
        self._set_rates(step)
        with torch.autocast(self._device.type, torch.bfloat16):
            with torch.no_grad():
                pixels = normalised(pictures, self._preprocessing).to(self._device)
                x = self._learner.front(pixels).float()
            with torch.set_grad_enabled(not alone):
                vectors = self._learner.features(x)
        vectors = F.dropout(vectors, recipe.dropout)
        loss = sum(
            (
                _loss(head(vectors), torch.from_numpy(labels[name]).to(self._device), recipe)
                for name, head in self._heads.items()
            ),
            torch.zeros((), device=self._device),
        )
        self._optimiser.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        self._optimiser.step()
        memory = min(recipe.average, (1 + step) / (10 + step))
        for name, parameter in self._learnt.items():
            self._average[name].lerp_(parameter.detach(), 1 - memory)
        return float(loss.detach())

    def _set_rates(self, step: int) -> None:
        recipe, done = self._recipe, step / self._recipe.steps
        cosine = 0.5 * (1 + math.cos(math.pi * done))
        warm = min(1.0, max(0.0, (done - recipe.alone) * 20 + 0.1))
        *stages, heads = self._optimiser.param_groups
        for group in stages:
            group["lr"] = 0.0 if done < recipe.alone else recipe.top_rate * group["share"] * cosine * warm
        heads["lr"] = recipe.head_rate * cosine

    def load(self, path: Path) -> int:
        """Take up the checkpoint at `path`; returns the step to go on with."""
        if not path.exists():
            return 0
        stored = torch.load(path, weights_only=True, map_location=self._device)
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
        with new_file(path) as part:
            torch.save(state, part)

    def result(self) -> Finetuned:
        heads = {
            name: LinearHead(
                self._average[f"head.{name}.weight"].cpu().numpy().copy(),
                self._average[f"head.{name}.bias"].cpu().numpy().copy(),
            )
            for name in self._heads
        }
        tensors = {
            name: tensor.cpu().clone()
            for name, tensor in self._average.items()
            if not name.startswith("head.")
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


def _draws(
    steps: range, rows: NDArray[np.int64], weight: NDArray[np.float64], count: int, seed: int
) -> Iterator[tuple[int, NDArray[np.int64]]]:
    chance = weight / weight.sum()
    for step in steps:
        yield step, np.random.default_rng([seed, step]).choice(rows, count, p=chance)


def _key(
    backbone: Backbone,
    paths: Sequence[Path],
    tasks: Sequence[Task],
    rows: NDArray[np.int64],
    weight: NDArray[np.float64],
    recipe: Recipe,
    seed: int,
) -> str:
    digest = hashlib.sha256(json.dumps([backbone.key, asdict(recipe), seed, trainable.START]).encode())
    for task in tasks:
        digest.update(f"{task.name}{task.outputs}".encode() + task.labels.tobytes())
    digest.update("\n".join(str(paths[row]) for row in rows).encode())
    digest.update(rows.tobytes() + weight.tobytes())
    return digest.hexdigest()
