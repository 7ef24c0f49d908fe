"""From a fitted head to its entry in the manifest: calibration, thresholds, and the figures behind them."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit
from sklearn.metrics import average_precision_score, confusion_matrix, roc_auc_score

from training.data.homes import MIN_PHOTOS, MIN_PHOTOS_FALSE, Homes, whole_homes
from training.data.photos import PhotoSet
from training.models.heads import FittedHead
from training.thresholds import simulate
from training.thresholds.calibrate import (
    Counts,
    Floats,
    Share,
    Truth,
    calibrate_binary,
    choose_false,
    choose_true,
    rounded,
)
from training.thresholds.rules import (
    Entry,
    aggregation,
    class_fields,
    false_threshold,
    true_threshold,
)


@dataclass(frozen=True)
class Targets:
    """What the thresholds must reach, and where."""

    homes: str = ""
    """Collection (first folder of the paths) of whole homes; empty: every group is one."""
    prevalence: float = 0.3
    """Share of listings expected to have an attribute."""
    photos: int = 25
    """Photos per listing, for simulated listings that thresholds must hold on."""
    true_precision: float = 0.95
    false_precision: float = 0.9
    class_precision: float = 0.9


@dataclass(frozen=True)
class CalibratedHead:
    """A head as the bundle ships it, and the manifest's entry."""

    fitted: FittedHead
    entry: dict[str, Any]


def calibrated_binary(photos: PhotoSet, fitted: FittedHead, targets: Targets) -> CalibratedHead:
    """Calibrate a binary head on held-out photos of whole homes and choose its thresholds.

    Raises:
        UsageError: too few homes with or without the attribute.
    """
    labels = photos.labels[fitted.name]
    homes = whole_homes(photos, fitted.name, fitted.fold, targets.homes)
    in_homes = np.concatenate(homes.rows)
    weight = np.concatenate([np.full(len(rows), 1 / len(rows)) for rows in homes.rows])
    shift, temperature = calibrate_binary(fitted.held_out[in_homes], labels[in_homes], weight)
    scaled = (fitted.held_out[:, 0] + shift) / temperature
    chances = expit(scaled)
    thresholds, decided = _thresholds(photos, fitted, homes, chances, targets)
    pooling, losses = aggregation(homes, [scaled[rows] for rows in homes.rows], targets.prevalence)
    highest = homes.highest(chances)
    metrics = {
        "strength": fitted.strength,
        "photos": _photo_figures(photos, fitted, chances, thresholds["true"]),
        "homes": {
            "homes": len(homes.rows),
            "with": int(homes.truth.sum()),
            "sites": len(np.unique(homes.site)),
            "median_photos": float(np.median(homes.sizes)),
            "prevalence": round(float(homes.truth.mean()), 3),
            "average_precision": round(float(average_precision_score(homes.truth, highest)), 3),
        },
        **decided,
        "aggregation_log_loss": losses,
    }
    entry = {
        "name": fitted.name,
        "kind": "binary",
        "temperature": temperature,
        "thresholds": thresholds,
        "aggregation": pooling,
        "metrics": metrics,
    }
    return CalibratedHead(fitted.shifted(shift), entry)


def _thresholds(
    photos: PhotoSet, fitted: FittedHead, homes: Homes, chances: Floats, targets: Targets
) -> tuple[dict[str, float], Entry]:
    """The thresholds that hold both on whole homes and on simulated listings, and their figures."""
    expected = targets.prevalence
    drawn = simulate.pool(photos, fitted.name, fitted.fold)
    listings = {
        size: simulate.simulate(drawn, chances, size, expected, seed=0)
        for size in sorted({*simulate.SIZES, targets.photos})
    }
    of_size = listings[targets.photos]
    least = choose_true(of_size.highest, of_size.truth, expected, targets.true_precision)

    def on_homes(scores: Floats, truth: Truth) -> float:
        # As the homes come: weighed to a lower prevalence, one odd home among the few without the attribute
        # would decide alone. That is what simulated listings are for.
        return choose_true(scores, truth, float(truth.mean()), targets.true_precision)

    true, _, true_figures = true_threshold(homes, chances, on_homes, least, targets.true_precision, expected)
    most = min(
        [true]
        + [
            choose_false(one.highest, one.truth, expected, targets.false_precision)
            for size, one in listings.items()
            if size >= MIN_PHOTOS_FALSE
        ]
    )

    def ruled_out(scores: Floats, truth: Truth) -> float:
        return min(choose_false(scores, truth, expected, targets.false_precision), most)

    false, false_figures = false_threshold(homes, chances, ruled_out, most, targets.false_precision, expected)
    return {"true": true, "false": false}, {
        "true": true_figures,
        "false": false_figures,
        "simulated": _simulated(drawn, chances, listings, true, false, targets),
    }


def _simulated(
    drawn: simulate.Pool,
    chances: Floats,
    listings: Mapping[int, simulate.Simulated],
    true: float,
    false: float,
    targets: Targets,
) -> dict[str, Any]:
    """Figures of simulated listings, and of the independent homes behind them: thousands of listings drawn
    from a hundred homes know no more than the hundred."""
    by_size = {}
    for size, one in listings.items():
        found, ruled_out = (Counts.at(one.highest, one.truth, threshold) for threshold in (true, false))
        by_size[str(size)] = {
            "precision": rounded(found.precision.value),
            "recall": rounded(found.recall.value),
            "negative_precision": rounded(ruled_out.negative_precision.value),
        }
    found_homes = sum(bool((chances[rows] >= true).any()) for rows in drawn.positive)
    fooled = sum(bool((chances[rows] >= true).any()) for rows in drawn.negative)
    return {
        "prevalence": targets.prevalence,
        "listings": simulate.LISTINGS,
        "chosen_at": targets.photos,
        "by_photos": by_size,
        "positive_homes": Share(found_homes, len(drawn.positive)).as_json(),
        "negative_homes_over": Share(fooled, len(drawn.negative)).as_json(),
    }


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
    photos: PhotoSet, fitted: FittedHead, publish: Mapping[str, bool], targets: Targets
) -> CalibratedHead:
    """Calibrate a multiclass head on held-out photos of homes and choose a threshold per class.

    Homes are groups of `MIN_PHOTOS` photos or more, of any collection (where there are none: all photos).
    `publish` maps every class, in the order of the head's outputs, to whether it may be published; a class
    that cannot reach the precision asked for is not.
    """
    rows = _photos_of_homes(photos, fitted)
    logits, truth = fitted.held_out[rows], photos.labels[fitted.name][rows]
    groups, inverse, sizes = np.unique(photos.group[rows], return_inverse=True, return_counts=True)
    fields = class_fields(logits, truth, 1 / sizes[inverse], publish, targets.class_precision)
    confusion = confusion_matrix(truth, logits.argmax(axis=1), labels=np.arange(len(publish)))
    metrics = {
        "strength": fitted.strength,
        "photos": {"photos": len(rows), "homes": len(groups), "target": targets.class_precision},
        "accuracy": _accuracy(photos, fitted),
        **fields.pop("metrics"),
        "confusion": confusion.tolist(),
    }
    return CalibratedHead(fitted, {"name": fitted.name, "kind": "multiclass", **fields, "metrics": metrics})


def _photos_of_homes(photos: PhotoSet, fitted: FittedHead) -> NDArray[np.int64]:
    held = np.flatnonzero(fitted.fold >= 0)
    _, inverse, sizes = np.unique(photos.group[held], return_inverse=True, return_counts=True)
    of_homes = held[sizes[inverse] >= MIN_PHOTOS]
    return of_homes if of_homes.size else held


def _accuracy(photos: PhotoSet, fitted: FittedHead) -> dict[str, Any]:
    held = fitted.fold >= 0
    right = np.zeros(len(photos), dtype=bool)
    right[held] = fitted.held_out[held].argmax(axis=1) == photos.labels[fitted.name][held]
    return {
        str(name): Share(int(right[rows].sum()), int(rows.sum())).as_json()
        for name in np.unique(photos.collection[held])
        if (rows := held & (photos.collection == name)).any()
    }
