"""Finetuning as `fit` needs it: every head's held-out logits by folds of sites, then the fit on all photos.

The same folds are also evaluated with a frozen backbone, so that the card says what finetuning is worth.
"""

import multiprocessing
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from enrich.cores import usable_cores
from enrich.errors import UsageError
from training.data.labels import UNLABELLED
from training.data.photos import PhotoSet
from training.fit.frozen import figures, frozen_logits
from training.models.backbones import Backbone, rounded
from training.models.features import extract
from training.models.heads import FittedHead, check_classes, check_folds, photo_weights, site_folds
from training.trainer import trainable
from training.trainer.devices import keep_memory
from training.trainer.finetune import CPU, Finetuned, Lessons, Recipe, Task, averaged, finetune, predict

FOLDS = 3
"""Fewer than for heads alone, since each costs a finetuning; held-out figures are the lower for it."""


@dataclass(frozen=True)
class Plan:
    """How to finetune, beside what.

    `shares`: collection -> how much a photo of it counts (1 where not named). `runs`: finetunings that differ
    in their seed and are averaged to one. `jobs`: how many work side by side on a CPU, one thread each; 0: as
    many as there are cores. On a GPU they come one after another.
    """

    recipe: Recipe = field(default_factory=Recipe)
    shares: Mapping[str, float] = field(default_factory=dict)
    cache: Path = Path("runs/features")
    seed: int = 0
    runs: int = 1
    jobs: int = 0
    device: torch.device = CPU


@dataclass(frozen=True)
class Together:
    """The finetuned backbone (half precision, as the bundle ships it), its heads, and what frozen ones reach
    in the same folds."""

    backbone: Backbone
    heads: tuple[FittedHead, ...]
    comparison: dict[str, Any]
    by_fold: tuple[Backbone, ...]
    """The backbones that did not learn from a fold."""


def fit_multitask(
    photos: PhotoSet, names: Sequence[str], backbone: Backbone, plan: Plan, homes_in: str, precision: float
) -> Together:
    """Finetune once per fold for held-out logits of the heads `names`, then once on all training photos.

    `homes_in`, `precision`: as of `frozen.figures`, for the comparison.

    Raises:
        UsageError: the backbone cannot be finetuned, a photo cannot be decoded, too few homes or sites, or
            shares that leave nothing to learn from.
    """
    trainable.LEARNERS[plan.recipe.part](backbone.module, backbone.name)  # refused before hours are spent
    rows = np.flatnonzero(photos.split == "train")
    labelled = {name: rows[photos.labels[name][rows] != UNLABELLED] for name in names}
    for name, known in labelled.items():
        classes = photos.classes.get(name, ("0", "1"))
        check_classes(name, photos.labels[name][known], classes, photos.site[known])
    fold = site_fold(photos, names, plan.seed)
    for name, known in labelled.items():
        check_folds(name, photos.labels[name][known], fold[known])
    work = finetunings(photos, names, backbone, plan, fold)
    vectors = extract(backbone, photos, ("whole",), plan.cache)
    with _workers(plan.jobs if plan.device.type == "cpu" else 1) as run:
        *by_fold, (final, _) = run(work)
    logits = held_out(work[:FOLDS], [predicted for _, predicted in by_fold])
    learnt = [finetuned for finetuned, _ in by_fold]
    heads = tuple(_fitted(task, final, learnt, logits[task.name], fold) for task in work[-1].tasks)
    binary = [head for head in heads if head.name not in photos.classes]
    comparison = {
        head.name: {
            "frozen": figures(
                photos, head.name, frozen_logits(photos, head.name, vectors, fold), fold, homes_in, precision
            ),
            "finetuned": figures(photos, head.name, head.held_out, fold, homes_in, precision),
        }
        for head in binary
    }
    backbones = tuple(rounded(backbone, one.tensors) for one in learnt)
    return Together(rounded(backbone, final.tensors), heads, comparison, backbones)


def finetunings(
    photos: PhotoSet, names: Sequence[str], backbone: Backbone, plan: Plan, fold: NDArray[np.int64]
) -> list["Finetuning"]:
    """One for each fold, which is held out in it, and last the one on all training photos. `fold`: as of
    `site_fold`.

    Raises:
        UsageError: one has no photo to learn from.
    """
    tasks = [Task(name, photos.labels[name], len(photos.classes.get(name, "1"))) for name in names]
    rows = np.flatnonzero(photos.split == "train")
    weight = _weights(photos, tasks, rows, plan.shares)
    if not all(weight[rows[fold[rows] != number]].any() for number in range(FOLDS)):
        raise UsageError(
            "--share: nothing is left to learn from where a third of the sites is held out; give photos of "
            "more sites a share above 0"
        )
    return [
        Finetuning(photos, backbone, tasks, weight, plan, fold != number, rows[fold[rows] == number])
        for number in (*range(FOLDS), -1)
    ]


@dataclass(frozen=True)
class Finetuning:
    """Called, it learns from the training photos of `learn` [photos], and gives logits of those `held`."""

    photos: PhotoSet
    backbone: Backbone
    tasks: Sequence[Task]
    weight: NDArray[np.float64]
    plan: Plan
    learn: NDArray[np.bool_]
    held: NDArray[np.int64]

    def __call__(self) -> tuple[Finetuned, dict[str, NDArray[np.float64]]]:
        paths = [self.photos.folder / path for path in self.photos.paths]
        rows = np.flatnonzero(self.learn & (self.photos.split == "train"))
        plan = self.plan
        lessons = Lessons(paths, self.photos.sha256, self.tasks, rows, self.weight[rows])
        learnt = averaged(
            [
                finetune(self.backbone, lessons, plan.recipe, seed, plan.cache, plan.device)
                for seed in range(plan.seed, plan.seed + plan.runs)
            ]
        )
        return learnt, predict(self.backbone, learnt, paths, self.held) if self.held.size else {}


Result = tuple[Finetuned, dict[str, NDArray[np.float64]]]


def held_out(
    work: Sequence[Finetuning], predicted: Sequence[Mapping[str, NDArray[np.float64]]]
) -> dict[str, NDArray[np.float64]]:
    """Head -> logits [photos, outputs] of what each of these finetunings held out; NaN elsewhere."""
    logits = {task.name: np.full((len(work[0].photos), task.outputs), np.nan) for task in work[0].tasks}
    for one, by_head in zip(work, predicted, strict=True):
        for name, values in by_head.items():
            logits[name][one.held] = values
    return logits


@contextmanager
def _workers(jobs: int) -> Iterator[Any]:
    """A `map` over jobs in processes of one thread each: small convolutions gain little from more threads."""
    count = min(FOLDS + 1, jobs or usable_cores())
    if count == 1:
        yield lambda work: [job() for job in work]
        return
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(count, context, initializer=_alone) as pool:
        yield lambda work: list(pool.map(_call, work))


def _alone() -> None:
    torch.set_num_threads(1)
    keep_memory()


def _call(job: Finetuning) -> Result:
    return job()


def _weights(
    photos: PhotoSet, tasks: Sequence[Task], rows: NDArray[np.int64], shares: Mapping[str, float]
) -> NDArray[np.float64]:
    share = np.array([shares.get(str(name), 1.0) for name in photos.collection])
    total = np.zeros(len(photos))
    for task in tasks:
        known = rows[task.labels[rows] != UNLABELLED]
        total[known] += photo_weights(task.labels[known], photos.group[known])
    weight: NDArray[np.float64] = total * share
    return weight


def site_fold(photos: PhotoSet, names: Sequence[str], seed: int) -> NDArray[np.int64]:
    """[photos]: the fold of whole sites in which a training photo is held out; -1 for all others."""
    fold, rows = np.full(len(photos), -1, dtype=np.int64), np.flatnonzero(photos.split == "train")
    fold[rows] = site_folds(strata(photos, names)[rows], photos.site[rows], seed, FOLDS)
    return fold


def strata(photos: PhotoSet, names: Sequence[str]) -> NDArray[np.int64]:
    """Folds hold equal shares of these: photos by the first of the binary attributes that they show."""
    strata = np.zeros(len(photos), dtype=np.int64)
    binary = [name for name in names if name not in photos.classes]
    for number, name in reversed(list(enumerate(binary, start=1))):
        strata[photos.labels[name] == 1] = len(binary) + 1 - number
    return strata


def _fitted(
    task: Task,
    final: Finetuned,
    by_fold: Sequence[Finetuned],
    logits: NDArray[np.float64],
    fold: NDArray[np.int64],
) -> FittedHead:
    known = (task.labels != UNLABELLED) & (fold >= 0)
    return FittedHead(
        name=task.name,
        head=final.heads[task.name],
        strength=None,
        by_fold={number: one.heads[task.name] for number, one in enumerate(by_fold)},
        held_out=np.where(known[:, None], logits, np.nan),
        fold=np.where(known, fold, -1),
        scores={},
    )
