"""Finetuning as `fit` needs it: every head's held-out logits by folds of sites, then the fit on all photos.

The same folds are also judged with the backbone left frozen, so that the card says what finetuning is worth.
"""

import multiprocessing
import os
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.metrics import average_precision_score

from training import top
from training.backbones import Backbone, rounded
from training.calibrate import Counts, choose_true
from training.data import UNLABELLED, PhotoSet
from training.features import extract
from training.finetune import Finetuned, Recipe, Task, finetune, predict
from training.heads import FittedHead, check_classes, held_out_logits, photo_weights, site_folds
from training.homes import whole_homes
from training.judge import Targets

FOLDS = 3
"""Fewer than for heads alone, since each costs a finetuning; held-out figures are the lower for it."""
FROZEN_STRENGTH = 1e-3


@dataclass(frozen=True)
class Plan:
    """How to finetune, beside what. `shares`: collection -> how much a photo of it counts (1 where not
    named). `jobs`: finetunings side by side, one thread each; 0: as many as there are cores."""

    recipe: Recipe = field(default_factory=Recipe)
    shares: Mapping[str, float] = field(default_factory=dict)
    cache: Path = Path("runs/features")
    seed: int = 0
    jobs: int = 0


@dataclass(frozen=True)
class Together:
    """The finetuned backbone (half precision, as the bundle ships it), its heads, and what frozen ones reach
    in the same folds."""

    backbone: Backbone
    heads: tuple[FittedHead, ...]
    comparison: dict[str, Any]


def fit_together(
    photos: PhotoSet, names: Sequence[str], backbone: Backbone, plan: Plan, targets: Targets
) -> Together:
    """Finetune once per fold for held-out logits of the heads `names`, then once on all training photos.

    Raises:
        UsageError: the backbone cannot be finetuned, a photo cannot be decoded, too few homes or sites.
    """
    top.LEARNERS[plan.recipe.part](backbone.module, backbone.name)  # refused before hours are spent
    tasks = [Task(name, photos.labels[name], len(photos.classes.get(name, "1"))) for name in names]
    rows = np.flatnonzero(photos.split == "train")
    for task in tasks:
        known = rows[task.labels[rows] != UNLABELLED]
        classes = photos.classes.get(task.name, ("0", "1"))
        check_classes(task.name, task.labels[known], classes, photos.site[known])
    fold = np.full(len(photos), -1, dtype=np.int64)
    fold[rows] = site_folds(_strata(photos, names)[rows], photos.site[rows], plan.seed, FOLDS)
    weight = _weights(photos, tasks, rows, plan.shares)
    held = [rows[fold[rows] == number] for number in range(FOLDS)]
    work = [
        _Job(photos, backbone, tasks, weight, plan, fold != number, held[number]) for number in range(FOLDS)
    ]
    work.append(_Job(photos, backbone, tasks, weight, plan, fold >= 0, rows[:0]))
    with _workers(plan.jobs) as run:
        *by_fold, (final, _) = run(work)
    logits = {task.name: np.full((len(photos), task.outputs), np.nan) for task in tasks}
    for number, (_, predicted) in enumerate(by_fold):
        for name, values in predicted.items():
            logits[name][held[number]] = values
    heads = tuple(_fitted(task, final, logits[task.name], fold) for task in tasks)
    binary = [head for head in heads if head.name not in photos.classes]
    frozen = _frozen(photos, binary, backbone, plan.cache)
    comparison = {
        head.name: {
            "frozen": _figures(photos, head.name, frozen[head.name], fold, targets),
            "finetuned": _figures(photos, head.name, head.held_out, fold, targets),
        }
        for head in binary
    }
    return Together(rounded(backbone, final.tensors), heads, comparison)


@dataclass(frozen=True)
class _Job:
    """One finetuning: on the training photos of `learn` [photos], then logits of the photos `held`."""

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
        learnt = finetune(
            self.backbone, paths, self.tasks, rows, self.weight[rows], plan.recipe, plan.seed, plan.cache
        )
        return learnt, predict(self.backbone, learnt, paths, self.held) if self.held.size else {}


Result = tuple[Finetuned, dict[str, NDArray[np.float64]]]


@contextmanager
def _workers(jobs: int) -> Iterator[Any]:
    """A `map` over jobs in processes of one thread each: small convolutions gain little from more threads."""
    count = min(FOLDS + 1, jobs or len(os.sched_getaffinity(0)))
    if count == 1:
        yield lambda work: [job() for job in work]
        return
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(count, context, initializer=torch.set_num_threads, initargs=(1,)) as pool:
        yield lambda work: list(pool.map(_call, work))


def _call(job: _Job) -> Result:
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


def _strata(photos: PhotoSet, names: Sequence[str]) -> NDArray[np.int64]:
    """Folds hold equal shares of these: photos by the first of the binary attributes that they show."""
    strata = np.zeros(len(photos), dtype=np.int64)
    binary = [name for name in names if name not in photos.classes]
    for number, name in reversed(list(enumerate(binary, start=1))):
        strata[photos.labels[name] == 1] = len(binary) + 1 - number
    return strata


def _fitted(task: Task, final: Finetuned, logits: NDArray[np.float64], fold: NDArray[np.int64]) -> FittedHead:
    known = (task.labels != UNLABELLED) & (fold >= 0)
    return FittedHead(
        name=task.name,
        head=final.heads[task.name],
        strength=None,
        held_out=np.where(known[:, None], logits, np.nan),
        fold=np.where(known, fold, -1),
        scores={},
    )


def _frozen(
    photos: PhotoSet, heads: Sequence[FittedHead], backbone: Backbone, cache: Path
) -> dict[str, NDArray[np.float64]]:
    """Held-out logits of linear heads on the backbone as pretrained, in the same folds."""
    vectors = extract(backbone, photos, ("whole",), cache)
    logits = {}
    for head in heads:
        used = np.flatnonzero(head.fold >= 0)
        labels = photos.labels[head.name][used]
        weight = photo_weights(labels, photos.group[used])
        logits[head.name] = np.full((len(photos), 1), np.nan)
        logits[head.name][used] = held_out_logits(
            vectors, used, labels, weight, head.fold[used], FROZEN_STRENGTH, 1
        )
    return logits


def _figures(
    photos: PhotoSet, name: str, logits: NDArray[np.float64], fold: NDArray[np.int64], targets: Targets
) -> dict[str, Any]:
    known = (photos.labels[name] != UNLABELLED) & (fold >= 0)
    in_homes = known & photos.within(targets.homes)
    homes = whole_homes(photos, name, np.where(known, fold, -1), targets.homes)
    highest = homes.highest(logits[:, 0])
    threshold = choose_true(highest, homes.truth, targets.prevalence, targets.true_precision)
    # No threshold reaches the precision: choose_true's answer is a probability, these are logits.
    counts = Counts.at(highest, homes.truth, threshold if threshold in highest else np.inf)
    return {
        "photos": round(
            float(average_precision_score(photos.labels[name][in_homes], logits[in_homes, 0])), 3
        ),
        "homes": round(float(average_precision_score(homes.truth, highest)), 3),
        "found": counts.tp,
        "of": counts.tp + counts.fn,
    }
