"""Linear heads on a frozen backbone, held out by site: what finetuning is measured against."""

from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.metrics import average_precision_score

from training.data.homes import whole_homes
from training.data.labels import UNLABELLED
from training.data.photos import PhotoSet
from training.models.heads import Views, fold_heads, held_out_logits, photo_weights
from training.thresholds.calibrate import Counts, choose_true
from training.thresholds.choose import Targets

STRENGTH = 1e-3
"""Inverse L2 penalty: the one that `fit` mostly chooses for frozen features."""


def frozen_logits(photos: PhotoSet, name: str, views: Views, fold: NDArray[np.int64]) -> NDArray[np.float64]:
    """Held-out logits [photos, 1] of a binary head; NaN where a photo is not labelled or in no fold."""
    usable = (photos.labels[name] != UNLABELLED) & (fold >= 0)
    used = np.flatnonzero(usable)
    labels = photos.labels[name][used]
    weight = photo_weights(labels, photos.group[used])
    heads = fold_heads(views, used, labels, weight, fold[used], STRENGTH, 1)
    return held_out_logits(heads, np.where(usable, fold, -1), views["whole"])


def figures(
    photos: PhotoSet, name: str, logits: NDArray[np.float64], fold: NDArray[np.int64], targets: Targets
) -> dict[str, Any]:
    """Average precision of the held-out photos of whole homes, and of the homes by their highest photo; the
    homes found at the precision asked for, with the threshold chosen on these homes."""
    known = (photos.labels[name] != UNLABELLED) & (fold >= 0)
    in_homes = known & photos.within(targets.homes)
    homes = whole_homes(photos, name, np.where(known, fold, -1), targets.homes)
    highest = homes.highest(logits[:, 0])
    threshold = choose_true(highest, homes.truth, float(homes.truth.mean()), targets.true_precision)
    # No threshold reaches the precision: choose_true's answer is a probability, these are logits.
    counts = Counts.at(highest, homes.truth, threshold if threshold in highest else np.inf)
    by_photo = average_precision_score(photos.labels[name][in_homes], logits[in_homes, 0])
    return {
        "photos": round(float(by_photo), 3),
        "homes": round(float(average_precision_score(homes.truth, highest)), 3),
        "found": counts.tp,
        "of": counts.tp + counts.fn,
    }
