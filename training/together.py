"""Finetuning as `fit` needs it: every head's held-out logits by folds of sites, then the fit on all photos.

The same folds are also judged with the backbone left frozen, so that the card says what finetuning is worth.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.metrics import average_precision_score

from training.activations import activations
from training.backbones import Backbone, rounded
from training.calibrate import Counts, choose_true
from training.data import UNLABELLED, PhotoSet
from training.finetune import Activations, Finetuned, Recipe, Task, features, finetune, predict
from training.heads import FittedHead, check_classes, held_out_logits, photo_weights, site_folds
from training.homes import whole_homes
from training.judge import Targets

FOLDS = 3
"""Fewer than for heads alone, since each costs a finetuning; held-out figures are the lower for it."""
FROZEN_STRENGTH = 1e-3


@dataclass(frozen=True)
class Together:
    """The finetuned backbone (half precision, as the bundle ships it), its heads, and what frozen ones reach
    in the same folds."""

    backbone: Backbone
    heads: tuple[FittedHead, ...]
    comparison: dict[str, Any]


def fit_together(
    photos: PhotoSet,
    names: Sequence[str],
    backbone: Backbone,
    recipe: Recipe,
    targets: Targets,
    drawn: int,
    cache: Path,
    seed: int,
) -> Together:
    """Finetune once per fold for held-out logits of the heads `names`, then once on all training photos.

    Raises:
        UsageError: the backbone cannot be finetuned, a photo cannot be decoded, too few homes or sites.
    """
    tasks = [Task(name, photos.labels[name], len(photos.classes.get(name, "1"))) for name in names]
    rows = np.flatnonzero(photos.split == "train")
    for task in tasks:
        known = rows[task.labels[rows] != UNLABELLED]
        classes = photos.classes.get(task.name, ("0", "1"))
        check_classes(task.name, task.labels[known], classes, photos.site[known])
    views = activations(backbone, photos, drawn, cache)
    weight = _weights(photos, tasks, rows)
    fold = np.full(len(photos), -1, dtype=np.int64)
    fold[rows] = site_folds(_strata(photos, names)[rows], photos.site[rows], seed, FOLDS)
    logits = {task.name: np.full((len(photos), task.outputs), np.nan) for task in tasks}
    for number in range(FOLDS):
        learn, held = rows[fold[rows] != number], rows[fold[rows] == number]
        learnt = finetune(backbone, views, tasks, learn, weight[learn], recipe, seed, cache)
        for name, values in predict(backbone, learnt, views["whole"], held).items():
            logits[name][held] = values
    final = finetune(backbone, views, tasks, rows, weight[rows], recipe, seed, cache)
    heads = tuple(_fitted(task, final, logits[task.name], fold) for task in tasks)
    binary = [head for head in heads if head.name not in photos.classes]
    frozen = _frozen(photos, binary, backbone, views, fold)
    comparison = {
        head.name: {
            "frozen": _figures(photos, head.name, frozen[head.name], fold, targets),
            "finetuned": _figures(photos, head.name, head.held_out, fold, targets),
        }
        for head in binary
    }
    return Together(rounded(backbone, final.tensors), heads, comparison)


def _weights(photos: PhotoSet, tasks: Sequence[Task], rows: NDArray[np.int64]) -> NDArray[np.float64]:
    weight = np.zeros(len(photos))
    for task in tasks:
        known = rows[task.labels[rows] != UNLABELLED]
        weight[known] += photo_weights(task.labels[known], photos.group[known])
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
    photos: PhotoSet,
    heads: Sequence[FittedHead],
    backbone: Backbone,
    views: Activations,
    fold: NDArray[np.int64],
) -> dict[str, NDArray[np.float64]]:
    """Held-out logits of linear heads on the backbone as pretrained, in the same folds."""
    rows = np.flatnonzero(fold >= 0)
    vectors = np.zeros((len(photos), int(backbone.module.num_features)), dtype=np.float32)  # type: ignore[arg-type]
    vectors[rows] = features(backbone.module, views["whole"], rows)
    logits = {}
    for head in heads:
        used = np.flatnonzero(head.fold >= 0)
        labels = photos.labels[head.name][used]
        weight = photo_weights(labels, photos.group[used])
        logits[head.name] = np.full((len(photos), 1), np.nan)
        logits[head.name][used] = held_out_logits(
            {"whole": vectors}, used, labels, weight, fold[used], FROZEN_STRENGTH, 1
        )
    return logits


def _figures(
    photos: PhotoSet, name: str, logits: NDArray[np.float64], fold: NDArray[np.int64], targets: Targets
) -> dict[str, Any]:
    known = (photos.labels[name] != UNLABELLED) & (fold >= 0)
    in_homes = known & (photos.collection == targets.homes)
    homes = whole_homes(photos, name, np.where(known, fold, -1), targets.homes)
    highest = homes.highest(logits[:, 0])
    threshold = choose_true(highest, homes.truth, targets.expected(homes), targets.true_precision)
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
