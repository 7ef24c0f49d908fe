"""Linear heads on a frozen backbone, held out by site: what finetuning is measured against."""

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit
from sklearn.metrics import average_precision_score

from training.data.homes import whole_homes
from training.data.labels import UNLABELLED
from training.data.photos import PhotoSet
from training.models.heads import Views, fold_heads, held_out_logits, photo_weights
from training.thresholds.calibrate import Counts, choose_true

STRENGTH = 1e-3
"""Inverse L2 penalty: the one that `fit` mostly chooses for frozen features."""


def frozen_logits(
    photos: PhotoSet, name: str, views: Views, fold: NDArray[np.int64], learn: NDArray[np.bool_] | None = None
) -> NDArray[np.float64]:
    """Held-out logits [photos, 1] of a binary head; NaN where a photo is not labelled or in no fold. `learn`
    [photos]: which photos may be learnt from, beside not being held out; None: all."""
    usable = (photos.labels[name] != UNLABELLED) & (fold >= 0)
    used = np.flatnonzero(usable if learn is None else usable & learn)
    labels = photos.labels[name][used]
    weight = photo_weights(labels, photos.group[used])
    heads = fold_heads(views, used, labels, weight, fold[used], STRENGTH, 1)
    return held_out_logits(heads, np.where(usable, fold, -1), views["whole"])


def figures(
    photos: PhotoSet,
    name: str,
    logits: NDArray[np.float64],
    fold: NDArray[np.int64],
    homes_in: str,
    precision: float,
) -> dict[str, Any]:
    """Average precision of the held-out photos of whole homes, and of the homes by their highest photo; the
    homes found at the precision asked for, with the threshold chosen on these homes. `homes_in`: the
    collection of whole homes; empty: every group is one."""
    known = (photos.labels[name] != UNLABELLED) & (fold >= 0)
    in_homes = known & photos.within(homes_in)
    homes = whole_homes(photos, name, np.where(known, fold, -1), homes_in)
    highest = expit(homes.highest(logits[:, 0]))
    threshold = choose_true(highest, homes.truth, float(homes.truth.mean()), precision)
    counts = Counts.at(highest, homes.truth, threshold)
    by_photo = average_precision_score(photos.labels[name][in_homes], logits[in_homes, 0])
    return {
        "photos": round(float(by_photo), 3),
        "homes": round(float(average_precision_score(homes.truth, highest)), 3),
        "found": counts.tp,
        "of": counts.tp + counts.fn,
    }
