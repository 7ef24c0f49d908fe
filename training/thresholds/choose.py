"""From a fitted head to its entry in the manifest: calibration, thresholds, and the figures behind them."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit
from sklearn.metrics import average_precision_score, confusion_matrix, roc_auc_score

from training.data.homes import find_homes, whole_homes
from training.data.photos import PhotoSet
from training.models.heads import FittedHead
from training.thresholds.calibrate import Floats, Share, calibrate_binary
from training.thresholds.classes import of_three_rooms
from training.thresholds.rules import Entry, Targets, binary_fields, class_fields


def calibrated_binary(
    photos: PhotoSet, fitted: FittedHead, homes_in: str, targets: Targets
) -> tuple[FittedHead, Entry]:
    """Calibrate a binary head on held-out photos of whole homes and choose its thresholds: the head as the
    bundle ships it, and the manifest's entry. `homes_in`: the collection of whole homes; empty: every group
    is one.

    Raises:
        UsageError: too few homes with or without the attribute.
    """
    labels = photos.labels[fitted.name]
    homes = whole_homes(photos, fitted.name, fitted.fold, homes_in)
    in_homes, weight = homes.photos
    shift, temperature = calibrate_binary(fitted.held_out[in_homes], labels[in_homes], weight)
    scaled = (fitted.held_out[:, 0] + shift) / temperature
    chances = expit(scaled)
    fields = binary_fields(homes, chances, [scaled[rows] for rows in homes.rows], targets)
    metrics = {
        "strength": fitted.strength,
        "photos": _photo_figures(photos, fitted, chances, fields["thresholds"]["true"]),
        **fields.pop("metrics"),
    }
    entry = {"name": fitted.name, "kind": "binary", "temperature": temperature, **fields, "metrics": metrics}
    return fitted.shifted(shift), entry


def _photo_figures(photos: PhotoSet, fitted: FittedHead, chances: Floats, threshold: float) -> dict[str, Any]:
    labels = photos.labels[fitted.name]
    figures: dict[str, Any] = {}
    for collection in [None, *np.unique(photos.collection[fitted.fold >= 0])]:
        rows = fitted.fold >= 0
        if collection is not None:
            rows &= photos.collection == collection
        truth, chance = labels[rows] == 1, chances[rows]
        figure: dict[str, Any] = {"photos": int(rows.sum()), "with": int(truth.sum())}
        if truth.any() and not truth.all():
            figure["average_precision"] = round(float(average_precision_score(truth, chance)), 3)
            figure["roc_auc"] = round(float(roc_auc_score(truth, chance)), 3)
        figure["over_threshold_with"] = int((chance[truth] >= threshold).sum())
        figure["over_threshold_without"] = int((chance[~truth] >= threshold).sum())
        figures[collection or "all"] = figure
    return figures


def calibrated_classes(
    photos: PhotoSet, fitted: FittedHead, publish: Mapping[str, bool], homes_in: str, targets: Targets
) -> tuple[FittedHead, Entry]:
    """Calibrate a multiclass head on held-out photos of homes and choose a threshold per class.

    Homes are groups of `MIN_PHOTOS` photos or more of the collection `homes_in` (empty: of any; where there
    are none: all photos).
    `publish` maps every class, in the order of the head's outputs, to whether it may be published; a class
    that cannot reach the precision asked for is not.
    """
    rows = _photos_of_homes(photos, fitted, homes_in)
    logits, truth = fitted.held_out[rows], photos.labels[fitted.name][rows]
    groups, home = np.unique(photos.group[rows], return_inverse=True)
    fields = class_fields(logits, truth, home, publish, targets.class_precision)
    three = of_three_rooms(logits, truth, list(publish))
    confusion = confusion_matrix(truth, logits.argmax(axis=1), labels=np.arange(len(publish)))
    metrics = {
        "strength": fitted.strength,
        "photos": {"photos": len(rows), "homes": len(groups), "target": targets.class_precision},
        "accuracy": _accuracy(photos, fitted),
        "three_rooms": three.as_json() if three else None,
        **fields.pop("metrics"),
        "confusion": confusion.tolist(),
    }
    return fitted, {"name": fitted.name, "kind": "multiclass", **fields, "metrics": metrics}


def _photos_of_homes(photos: PhotoSet, fitted: FittedHead, homes_in: str) -> NDArray[np.int64]:
    held = fitted.fold >= 0
    homes = find_homes(photos, held & photos.within(homes_in))
    return np.concatenate(homes) if homes else np.flatnonzero(held)


def _accuracy(photos: PhotoSet, fitted: FittedHead) -> dict[str, Any]:
    """Of the most probable class, by collection."""
    held = fitted.fold >= 0
    right = fitted.held_out[held].argmax(axis=1) == photos.labels[fitted.name][held]
    collection = photos.collection[held]
    return {str(name): Share.of(right[collection == name]).as_json() for name in np.unique(collection)}
