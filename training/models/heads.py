"""Linear heads on frozen features: weights per photo, folds by site, held-out logits, the final fit."""

import warnings
from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import average_precision_score
from sklearn.model_selection import StratifiedGroupKFold

from enrich.errors import UsageError
from training.data.photos import PhotoSet

FOLDS = 5
GROUP_CAP = 8
"""A group counts as at most this many photos of a class: one villa must not be the class."""
STRENGTHS = (3e-4, 1e-3, 3e-3, 1e-2, 1e-1)
"""Inverse L2 penalties (scikit-learn's C) tried, on standardised features."""

Views = Mapping[str, NDArray[np.float32]]
"""View -> features [photos, features]; `whole` is what serving sees, the others only train."""


@dataclass(frozen=True)
class LinearHead:
    """weight float32 [outputs, features], bias float32 [outputs]; one output for a binary head."""

    weight: NDArray[np.float32]
    bias: NDArray[np.float32]

    def logits(self, features: NDArray[np.float32]) -> NDArray[np.float64]:
        """Logits [photos, outputs]."""
        return np.asarray(features @ self.weight.T + self.bias, dtype=np.float64)


@dataclass(frozen=True)
class FittedHead:
    """A head fitted on all training photos, and the logits its likes gave to photos they had not seen."""

    name: str
    head: LinearHead
    strength: float | None
    """Inverse L2 penalty; None: the head was learnt jointly with the backbone."""
    by_fold: Mapping[int, LinearHead]
    """Fold -> the head that did not learn from it."""
    held_out: NDArray[np.float64]
    """[photos, outputs]; NaN where a photo is not labelled or not for training."""
    fold: NDArray[np.int64]
    """Fold in which a photo was held out; -1 where it was not."""

    def shifted(self, shift: float) -> "FittedHead":
        """The same with `shift` added to all its logits."""

        def moved(head: LinearHead) -> LinearHead:
            return replace(head, bias=(head.bias + shift).astype(np.float32))

        by_fold = {number: moved(head) for number, head in self.by_fold.items()}
        return replace(self, head=moved(self.head), by_fold=by_fold, held_out=self.held_out + shift)


def fit_head(photos: PhotoSet, name: str, views: Views, seed: int) -> FittedHead:
    """Choose the penalty by folds of whole sites, then fit on all labelled photos that may train. Raises
    UsageError: a class has too few sites to be learnt and held out."""
    used = photos.learnable(name)
    check_classes(photos, name)
    labels, outputs = photos.labels[name][used], len(photos.classes.get(name, "1"))
    weight = photo_weights(labels, photos.group[used])
    fold = np.full(len(photos), -1, dtype=np.int64)
    fold[used] = folds = site_folds(labels, photos.site[used], seed)
    check_folds(photos, name, fold)
    tried = {one: fold_heads(views, used, labels, weight, folds, one, outputs) for one in STRENGTHS}
    held_out = {one: held_out_logits(heads, fold, views["whole"]) for one, heads in tried.items()}
    scores = {one: macro_average_precision(labels, logits[used], weight) for one, logits in held_out.items()}
    best = max(scores, key=lambda one: scores[one])
    head = _train(views, used, labels, weight, best, outputs)
    return FittedHead(name, head, best, tried[best], held_out[best], fold)


def photo_weights(labels: NDArray[np.int64], group: NDArray[np.str_]) -> NDArray[np.float64]:
    """Weight per photo: a group's photos of one class weigh `GROUP_CAP` in sum at most, and the classes are
    brought half way (by the square root) towards equal weight. The mean is 1."""
    count = pd.Series(labels).groupby([group, labels]).transform("size")
    weight = np.minimum(1.0, GROUP_CAP / count.to_numpy(dtype=np.float64))
    for label in np.unique(labels):
        weight[labels == label] /= np.sqrt(weight[labels == label].sum())
    return np.asarray(weight / weight.mean())


def site_folds(
    labels: NDArray[np.int64], site: NDArray[np.str_], seed: int, folds_wanted: int = FOLDS
) -> NDArray[np.int64]:
    """Fold number per photo, from 0 on; all photos of a site are in one fold, the classes spread evenly."""
    largest = np.unique(labels, return_counts=True)[1].max()
    count = int(min(folds_wanted, len(np.unique(site)), largest))
    folds = np.empty(len(labels), dtype=np.int64)
    splitter = StratifiedGroupKFold(count, shuffle=True, random_state=seed)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "The least populated class", UserWarning)
        for number, (_, held) in enumerate(splitter.split(labels, labels, site)):
            folds[held] = number
    return np.unique(folds, return_inverse=True)[1]  # a fold may get no site


def macro_average_precision(
    labels: NDArray[np.int64],
    logits: NDArray[np.float64],
    weight: NDArray[np.float64],
    only: Collection[int] | None = None,
) -> float:
    """Average precision, one class against the rest, averaged over the classes; over these `only`."""
    if logits.shape[1] == 1:
        return float(average_precision_score(labels, logits[:, 0], sample_weight=weight))
    scaled = logits - np.logaddexp.reduce(logits, axis=1, keepdims=True)
    each = [
        average_precision_score(labels == label, scaled[:, label], sample_weight=weight)
        for label in np.unique(labels)
        if only is None or label in only
    ]
    return float(np.mean(each))


def check_classes(photos: PhotoSet, name: str) -> None:
    """Refuse, with a UsageError, a head with a class that cannot be both learnt and held out."""
    for class_name, sites in zip(photos.classes.get(name, ("0", "1")), photos.sites(name), strict=True):
        if sites < 2:
            raise UsageError(
                f"head {name}: class {class_name} has training photos of {sites} sites, 2 are needed: "
                "one to learn from and one to check on; label more photos"
            )


def check_folds(photos: PhotoSet, name: str, fold: NDArray[np.int64]) -> None:
    """Refuse, with a UsageError, a head with a fold without which there is nothing to tell apart; `fold`
    [photos]."""
    used = photos.learnable(name)
    labels, folds = photos.labels[name][used], fold[used]
    if any(len(np.unique(labels[folds != number])) < 2 for number in np.unique(folds)):
        raise UsageError(
            f"head {name}: its classes come from too few sites to hold one out; label photos of more sites"
        )


def fold_heads(
    views: Views,
    used: NDArray[np.int64],
    labels: NDArray[np.int64],
    weight: NDArray[np.float64],
    folds: NDArray[np.int64],
    strength: float,
    outputs: int,
) -> dict[int, LinearHead]:
    """Fold -> a head fitted on the others; `labels`, `weight` and `folds` are [used], too."""
    heads = {}
    for number in map(int, np.unique(folds)):
        learn = folds != number
        heads[number] = _train(views, used[learn], labels[learn], weight[learn], strength, outputs)
    return heads


def held_out_logits(
    heads: Mapping[int, LinearHead], fold: NDArray[np.int64], features: NDArray[np.float32]
) -> NDArray[np.float64]:
    """Logits [photos, outputs] of `features` [photos, features], each photo's by the head of its fold; NaN
    where that is none."""
    logits = np.full((len(fold), len(next(iter(heads.values())).bias)), np.nan)
    for number, head in heads.items():
        held = fold == number
        logits[held] = head.logits(features[held])
    return logits


def _train(
    views: Views,
    rows: NDArray[np.int64],
    labels: NDArray[np.int64],
    weight: NDArray[np.float64],
    strength: float,
    outputs: int,
) -> LinearHead:
    mean = views["whole"][rows].mean(axis=0)
    scale = views["whole"][rows].std(axis=0) + 1e-3
    stacked = np.concatenate([(view[rows] - mean) / scale for view in views.values()])
    model = LogisticRegression(C=strength, max_iter=300, tol=1e-3)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        model.fit(
            stacked, np.tile(labels, len(views)), sample_weight=np.tile(weight / len(views), len(views))
        )
    coefficients, intercepts = model.coef_, model.intercept_
    if outputs > 1:
        if len(model.classes_) == 2:
            coefficients = np.concatenate([-coefficients, coefficients]) / 2
            intercepts = np.concatenate([-intercepts, intercepts]) / 2
        # A class that this learning part lacks keeps a logit far below the others.
        all_coefficients, all_intercepts = np.zeros((outputs, stacked.shape[1])), np.full(outputs, -30.0)
        all_coefficients[model.classes_], all_intercepts[model.classes_] = coefficients, intercepts
        coefficients, intercepts = all_coefficients, all_intercepts
    weight_out = coefficients / scale
    return LinearHead(weight_out.astype(np.float32), (intercepts - weight_out @ mean).astype(np.float32))
