"""Linear heads on a frozen backbone, held out by site.

What finetuning is measured against, and the cheap way to see what a collection of photos, a backbone or a way
to cut photos is worth.
"""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.metrics import average_precision_score, roc_auc_score

from training.data.homes import whole_homes
from training.data.photos import UNLABELLED, PhotoSet
from training.models.backbones import PACKAGED, Backbone, load_backbone
from training.models.features import extract
from training.models.heads import Views, fold_heads, held_out_logits, photo_weights
from training.thresholds.calibrate import Counts, choose_true
from training.thresholds.choose import Targets

STRENGTH = 1e-3
"""Inverse L2 penalty: the one that `fit` mostly chooses for frozen features."""
CROPS = ("whole", "crop0", "crop1", "crop2", "crop3")
CENTRE = 0.875
"""Part of the shorter side that a centre crop keeps, as usual in validation on ImageNet."""


def frozen_logits(
    photos: PhotoSet, name: str, views: Views, fold: NDArray[np.int64], without: str | None = None
) -> NDArray[np.float64]:
    """Held-out logits [photos, 1] of a binary head; NaN where a photo is not labelled or in no fold.

    `without`: a collection that is neither learnt from nor evaluated.
    """
    usable = (photos.labels[name] != UNLABELLED) & (fold >= 0)
    if without is not None:
        usable &= photos.collection != without
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


def ablations(
    photos: PhotoSet, heads: Sequence[str], fold: NDArray[np.int64], cache: Path, targets: Targets
) -> dict[str, dict[str, Any]]:
    """What a choice is worth, with linear heads on frozen EfficientNet-Lites: choice -> head -> `figures`."""
    lite0, *others = (load_backbone(name) for name in PACKAGED)
    whole = extract(lite0, photos, ("whole",), cache)
    collections = [str(name) for name in np.unique(photos.collection) if str(name) != targets.homes]
    made: dict[str, tuple[Views, str | None]] = {"Lite0, whole photo": (whole, None)}
    made |= {f"without {name}": (whole, name) for name in collections}
    made["learning from 4 crops, too"] = (extract(lite0, photos, CROPS, cache), None)
    made["centre crop, not the whole photo"] = (
        extract(_cropped(lite0), photos, ("whole",), cache),
        None,
    )
    for backbone in others:
        label = f"{backbone.name.rpartition('_')[2].capitalize()} at {backbone.preprocessing.size[0]} px"
        made[label] = (extract(backbone, photos, ("whole",), cache), None)
    return {
        label: {
            head: figures(photos, head, frozen_logits(photos, head, views, fold, without), fold, targets)
            for head in heads
        }
        for label, (views, without) in made.items()
    }


def _cropped(backbone: Backbone) -> Backbone:
    cut = replace(backbone.preprocessing, resize="crop", crop_ratio=CENTRE)
    return replace(backbone, preprocessing=cut, key=f"{backbone.key}-crop")


def cross_source(
    photos: PhotoSet, heads: Sequence[str], fold: NDArray[np.int64], backbone: Backbone, cache: Path
) -> dict[str, dict[str, Any]]:
    """Learnt without a collection, evaluated on it: collection -> head -> ROC area and average precision
    there, beside those of folds that saw other sites of it. Only where the
    collection has photos of both kinds."""
    views = extract(backbone, photos, ("whole",), cache)
    found: dict[str, dict[str, Any]] = {}
    for collection in map(str, np.unique(photos.collection)):
        mine = (photos.collection == collection) & (fold >= 0)
        apart = np.where(fold >= 0, mine.astype(np.int64), -1)
        for head in heads:
            truth = photos.labels[head]
            rows = mine & (truth != UNLABELLED)
            if len(np.unique(truth[rows])) < 2:
                continue
            unseen, seen = (frozen_logits(photos, head, views, by)[rows, 0] for by in (apart, fold))
            found.setdefault(collection, {})[head] = {
                "photos": int(rows.sum()),
                "with": int((truth[rows] == 1).sum()),
                "unseen": _ranking(truth[rows], unseen),
                "other_sites": _ranking(truth[rows], seen),
            }
    return found


def _ranking(truth: NDArray[np.int64], logits: NDArray[np.float64]) -> dict[str, float]:
    return {
        "roc_auc": round(float(roc_auc_score(truth == 1, logits)), 3),
        "average_precision": round(float(average_precision_score(truth == 1, logits)), 3),
    }
