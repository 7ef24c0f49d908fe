"""Finetuning: the upper stages of the backbone and all heads learn jointly.

Each photo is drawn as often as its labels weigh, each time drawn anew (`trainer.augment`); a photo without
a label for a head has no say there. What is drawn depends on seed and step alone, so a run that was killed
ends as any other.
"""

import copy
import hashlib
import json
import math
from collections.abc import Generator, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from training.data.labels import UNLABELLED
from training.models.backbones import Backbone, compiled
from training.models.features import Pixels, made_ahead, pixels
from training.models.heads import LinearHead
from training.terminal import with_bar
from training.trainer import augment, trainable
from training.trainer.loop import learn, locked, resume

CPU = torch.device("cpu")
SAVE_SECONDS = 60.0
PREDICT_BATCH = 16
Pictures = tuple[NDArray[np.int64], NDArray[np.uint8]]
"""Rows of photos, and the photos [n, h, w, 3]."""


@dataclass(frozen=True)
class Recipe:
    """How long and how fast. `samples`: photos drawn; the share `alone` of them comes first and teaches
    only the heads."""

    part: Literal["top", "all", "none"] = "top"
    """What of the backbone learns: the upper stages of an EfficientNet-Lite, all of any backbone, nothing."""
    samples: int = 24_000
    side: int = 0
    """Of the pictures to learn from, in pixels; 0: the input's. Parts of photos show things larger than whole
    photos do, so what learns from smaller ones serves better (Touvron et al. 2019)."""
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
class Lessons:
    """The photos to learn from: `paths[rows]`, drawn by `weight` [rows], by the labels of `tasks`. `sha256`:
    of the files at `paths`."""

    paths: Sequence[Path]
    sha256: Sequence[str]
    tasks: Sequence[Task]
    rows: NDArray[np.int64]
    weight: NDArray[np.float64]


@dataclass(frozen=True)
class Finetuned:
    """The averaged weights: those of the backbone that learnt, by timm's names, and the heads."""

    tensors: dict[str, Tensor]
    heads: dict[str, LinearHead]


def finetune(
    backbone: Backbone, lessons: Lessons, recipe: Recipe, seed: int, folder: Path, device: torch.device = CPU
) -> Finetuned:
    """Learn, and keep checkpoints in `folder`: the same call goes on where it was stopped, and one that had
    finished returns at once. Where another process makes the same one, it waits for that. Raises UsageError:
    the backbone is not one that can be finetuned, or a photo cannot be decoded."""
    checkpoint = folder / f"{_key(backbone, lessons, recipe, seed)[:24]}.pt"
    with locked(checkpoint.with_suffix(".lock")):
        run = _Run(backbone, lessons, recipe, seed, device)
        resume(run, checkpoint)
        steps = learn(run, checkpoint, SAVE_SECONDS)
        for _ in with_bar(steps, "finetune", recipe.steps - run.done):
            pass
        return run.result()


def averaged(runs: Sequence[Finetuned]) -> Finetuned:
    """One model with the mean of the weights of several that started from the same backbone: a model soup
    (Wortsman et al. 2022)."""
    tensors = {name: torch.stack([run.tensors[name] for run in runs]).mean(0) for name in runs[0].tensors}
    heads = {
        name: LinearHead(
            np.mean([run.heads[name].weight for run in runs], axis=0),
            np.mean([run.heads[name].bias for run in runs], axis=0),
        )
        for name in runs[0].heads
    }
    return Finetuned(tensors, heads)


def predict(
    backbone: Backbone, finetuned: Finetuned, paths: Sequence[Path], rows: NDArray[np.int64]
) -> dict[str, NDArray[np.float64]]:
    """Logits [rows, outputs] of each head for the photos as serving sees them, in fp32."""
    module = copy.deepcopy(backbone.module)
    module.load_state_dict(finetuned.tensors, strict=False)
    run, parts = compiled(module, backbone.preprocessing), []
    for start in range(0, len(rows), PREDICT_BATCH):
        chosen = rows[start : start + PREDICT_BATCH]
        pictures = [pixels(paths[row], backbone.preprocessing, ("whole",))[0] for row in chosen]
        parts.append(run(np.stack(pictures)))
    vectors = np.concatenate(parts)
    return {name: head.logits(vectors) for name, head in finetuned.heads.items()}


class _Run:
    """Model, optimiser and averaged weights of one finetuning."""

    identity = None
    remedy = "look at the photos and their labels, or fit again with --finetune none"

    def __init__(
        self, backbone: Backbone, lessons: Lessons, recipe: Recipe, seed: int, device: torch.device
    ) -> None:
        self._lessons, self._recipe, self._seed, self._device = lessons, recipe, seed, device
        self._preprocessing = backbone.preprocessing
        if recipe.side:
            self._preprocessing = replace(backbone.preprocessing, size=(recipe.side, recipe.side))
        self.done = 0
        self._learner = trainable.LEARNERS[recipe.part](
            copy.deepcopy(backbone.module).to(device), backbone.name
        )
        upper = self._learner.parameters()
        self._front = trainable.front(self._learner, self._preprocessing, device)
        self._heads = nn.ModuleDict(
            {task.name: nn.Linear(backbone.width, task.outputs) for task in lessons.tasks}
        )
        for parameter in self._heads.parameters():
            nn.init.zeros_(parameter)
        self._heads.to(device)
        self._learnt = upper | {f"head.{name}": p for name, p in self._heads.named_parameters()}
        self._average = {name: p.detach().clone() for name, p in self._learnt.items()}
        stages: list[dict[str, Any]] = [
            {"params": [upper[name]], "share": recipe.stage_decay ** self._learner.depth(name)}
            for name in upper
        ]
        self._optimiser = torch.optim.AdamW(
            [*stages, {"params": list(self._heads.parameters())}], weight_decay=recipe.decay
        )

    @property
    def where(self) -> str:
        return f"finetuning, step {self.done} of {self._recipe.steps}"

    def batches(self) -> Generator[Pictures]:
        lessons = self._lessons

        def drawn(photo: tuple[int, int, int]) -> Pixels:
            step, place, row = photo
            return augment.drawn(lessons.paths[row], self._preprocessing, (self._seed, step, place))

        left = range(self.done, self._recipe.steps)
        draws = _draws(left, lessons.rows, lessons.weight, self._recipe.batch, self._seed)
        photos = ([(step, place, row) for place, row in enumerate(rows)] for step, rows in draws)
        for batch, pictures in made_ahead(photos, drawn, threads=1):
            yield np.array([row for _, _, row in batch]), np.stack(pictures)

    def step(self, batch: Pictures) -> float:
        recipe, step, (rows, pictures) = self._recipe, self.done, batch
        torch.manual_seed(self._seed * 1_000_003 + step)
        self._set_rates(step)
        with torch.autocast(self._device.type, torch.bfloat16):
            x = self._front(pictures)
            with torch.set_grad_enabled(step >= recipe.alone * recipe.steps):
                vectors = self._learner.features(x)
        vectors = F.dropout(vectors, recipe.dropout)
        loss = torch.zeros((), device=self._device)
        for task in self._lessons.tasks:
            labels = torch.from_numpy(task.labels[rows]).to(self._device)
            loss = loss + _loss(self._heads[task.name](vectors), labels, recipe)
        self._optimiser.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        self._optimiser.step()
        memory = min(recipe.average, (1 + step) / (10 + step))
        for name, parameter in self._learnt.items():
            self._average[name].lerp_(parameter.detach(), 1 - memory)
        self.done += 1
        return float(loss.detach())

    def _set_rates(self, step: int) -> None:
        recipe, done = self._recipe, step / self._recipe.steps
        cosine = 0.5 * (1 + math.cos(math.pi * done))
        warm = min(1.0, max(0.0, (done - recipe.alone) * 20 + 0.1))
        *stages, heads = self._optimiser.param_groups
        for group in stages:
            group["lr"] = 0.0 if done < recipe.alone else recipe.top_rate * group["share"] * cosine * warm
        heads["lr"] = recipe.head_rate * cosine

    def state(self) -> dict[str, Any]:
        return {
            "step": self.done,
            "learnt": {name: parameter.detach() for name, parameter in self._learnt.items()},
            "average": self._average,
            "optimiser": self._optimiser.state_dict(),
        }

    def load(self, state: dict[str, Any]) -> None:
        with torch.no_grad():
            for name, parameter in self._learnt.items():
                parameter.copy_(state["learnt"][name])
                self._average[name].copy_(state["average"][name])
        self._optimiser.load_state_dict(state["optimiser"])
        self.done = int(state["step"])

    def result(self) -> Finetuned:
        heads = {
            name: LinearHead(
                self._average[f"head.{name}.weight"].cpu().numpy().copy(),
                self._average[f"head.{name}.bias"].cpu().numpy().copy(),
            )
            for name in self._heads
        }
        average = self._average.items()
        tensors = {name: t.cpu().clone() for name, t in average if not name.startswith("head.")}
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


def _key(backbone: Backbone, lessons: Lessons, recipe: Recipe, seed: int) -> str:
    digest = hashlib.sha256(json.dumps([backbone.key, asdict(recipe), seed, trainable.START]).encode())
    for task in lessons.tasks:
        digest.update(f"{task.name}{task.outputs}".encode() + task.labels.tobytes())
    digest.update("\n".join(lessons.sha256[row] for row in lessons.rows).encode())
    digest.update(lessons.rows.tobytes() + lessons.weight.tobytes())
    return digest.hexdigest()
