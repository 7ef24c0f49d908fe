"""The one way to thresholds, from held-out logits of photos of homes to what a head's entry holds.

`fit`, re-thresholding and the faster arithmetics call it; they differ in their homes only.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit
from sklearn.metrics import average_precision_score, confusion_matrix, roc_auc_score

from enrich.model.head import least_backing
from enrich.model.multiclass import Multiclass
from training import thesis
from training.data.homes import MIN_PHOTOS_FALSE, Homes, find_homes, whole_homes
from training.data.photos import PhotoSet
from training.models.heads import FittedHead
from training.thresholds.calibrate import (
    Counts,
    Floats,
    Share,
    calibrate_binary,
    calibrate_classes,
    choose_aggregation,
    choose_classes,
    choose_false,
    choose_true,
    cross_fitted,
    rounded,
)

Entry = dict[str, Any]
Numbers = NDArray[np.int64]
PREVALENCES = (0.1, 0.2, 0.3, 0.5)
"""Where the precision of `true` is stated, too: the rarer an attribute, the more of the finds are wrong."""
PRECISIONS = (0.8, 0.9, 0.95, 0.98, 0.99)
"""What `ENRICH_PRECISION_TARGET` may ask for, beside the precision that was asked for."""
FEWEST_HOMES = 10
"""With it and without it, each: fewer homes cannot carry a threshold of `false`."""
THREE_ROOMS = tuple(thesis.SIZES["rooms"])
CURVE = 24
"""Points at which the figures of `true` are kept for drawing, at most."""


@dataclass(frozen=True)
class Targets:
    """What thresholds must reach on homes that nobody learnt from."""

    precision: float = 0.95
    prevalence: float | None = None
    """Share of homes with an attribute; None: as among the homes here."""
    false_precision: float = 0.9
    class_precision: float = 0.9


def in_words(true: float, false: float) -> str:
    """A binary head's thresholds for people; a `false` threshold of 0 is never undercut."""
    no = f"no below {false:.3f}" if false else "never says *no*"
    return f"yes from {true:.3f}, {no}"


def binary_fields(homes: Homes, chances: Floats, views: list[Floats], targets: Targets) -> Entry:
    """Thresholds, pooling and the figures behind them for a binary head's entry.

    `chances`: each photo's probability, in the order of the photo set; `views`: each home's logits after
    temperature, one a view.
    """
    expected = float(homes.truth.mean()) if targets.prevalence is None else targets.prevalence
    highest = homes.highest(chances)
    true, true_at, true_figures = true_thresholds(homes, highest, targets, expected)
    false, false_figures = false_threshold(homes, chances, true, targets, expected)
    rule, losses = choose_aggregation(views, homes.truth, homes.fold, expected)
    return {
        "thresholds": {"true": true, "false": false, "true_at": true_at},
        "aggregation": asdict(rule),
        "metrics": {
            "homes": {
                "homes": len(homes.rows),
                "with": int(homes.truth.sum()),
                "sites": len(np.unique(homes.site)),
                "photos": int(homes.sizes.sum()),
                "median_photos": float(np.median(homes.sizes)),
                "prevalence": round(float(homes.truth.mean()), 3),
                "average_precision": rounded(average_precision_score(homes.truth, highest)),
            },
            "true": true_figures,
            "false": false_figures,
            "aggregation_log_loss": {name: round(loss, 4) for name, loss in losses.items()},
        },
    }


def true_thresholds(
    homes: Homes, highest: Floats, targets: Targets, expected: float
) -> tuple[float, dict[str, float], Entry]:
    """The threshold `true` for the precision asked for, those for other precisions by their names, and
    figures for the manifest. `highest` [homes]: each home's highest probability."""
    at: dict[str, float] = {}
    by_target: dict[str, Entry] = {}
    for target in sorted({*PRECISIONS, targets.precision}):
        choose = partial(choose_true, prevalence=expected, target=target)
        at[f"{target:g}"] = threshold = choose(highest, homes.truth)
        fair = cross_fitted(choose, highest, homes.truth, homes.fold)
        by_target[f"{target:g}"] = {
            "basis": "homes" if fair.precision.total >= least_backing(target) else "estimate",
            "at_threshold": Counts.at(highest, homes.truth, threshold).as_json(expected),
            "cross_fitted": fair.as_json(expected),
            "precision_elsewhere": {str(share): rounded(fair.precision_at(share)) for share in PREVALENCES},
        }
    asked = f"{targets.precision:g}"
    figures = {
        "target": targets.precision,
        "prevalence": round(expected, 3),
        **by_target[asked],
        "by_target": by_target,
        "curve": _curve(homes, highest),
    }
    return at[asked], at, figures


def _curve(homes: Homes, highest: Floats) -> list[list[float]]:
    """Threshold, homes with it and homes without it that reach it: from the highest threshold down."""
    having = np.sort(highest[homes.truth])[::-1]
    places = np.unique(np.linspace(0, len(having) - 1, min(CURVE, len(having))).astype(int))
    counts = [(float(at), Counts.at(highest, homes.truth, at)) for at in having[places]]
    return [[at, one.tp, one.fp] for at, one in counts]


def false_threshold(
    homes: Homes, chances: Floats, most: float, targets: Targets, expected: float
) -> tuple[float, Entry]:
    """The threshold `false` on homes with photos enough, but `most` or less; 0 where fewer than
    `FEWEST_HOMES` of these have the attribute, or lack it. With the figures for the manifest."""
    homes = homes.with_photos(MIN_PHOTOS_FALSE)
    target = targets.false_precision
    figures: Entry = {"target": target, "homes": len(homes.rows), "photos": MIN_PHOTOS_FALSE}
    if min(homes.truth.sum(), (~homes.truth).sum()) < FEWEST_HOMES:
        return 0.0, figures

    def choose(scores: Floats, truth: NDArray[np.bool_]) -> float:
        return min(choose_false(scores, truth, expected, target), most)

    highest = homes.highest(chances)
    threshold = choose(highest, homes.truth)
    figures["at_threshold"] = Counts.at(highest, homes.truth, threshold).as_json(expected)
    figures["cross_fitted"] = cross_fitted(choose, highest, homes.truth, homes.fold).as_json(expected)
    return threshold, figures


def class_fields(
    logits: Floats, truth: Numbers, home: Numbers, publish: Mapping[str, bool], target: float
) -> Entry:
    """Temperature, classes and their figures for a multiclass head's entry.

    A class is named for a home where one photo reaches its threshold: the lowest at which a precision of
    `target` is expected of the homes that it is named for, as for yes and no. Where too few homes could be
    named, it is the lowest with that precision of photos. A class that does not reach it is not published.
    `logits` [photos, classes], `truth` and `home` [photos], both numbered from 0 on.
    """
    temperature = calibrate_classes(logits, truth, 1 / np.bincount(home)[home])
    chances = Multiclass().chances(logits / temperature)  # as serving has them, to the last digit
    by_photos = choose_classes(chances, truth, target)
    classes, figures = [], {}
    for number, (name, shown) in enumerate(publish.items()):
        chance = np.where(chances.argmax(axis=1) == number, chances[:, number], -1.0)
        highest, having = np.zeros(home.max() + 1), np.zeros(home.max() + 1, dtype=bool)
        np.maximum.at(highest, home, chance)  # 0 where no photo is taken for it
        having[home[truth == number]] = True
        could = highest > 0
        threshold, of_photos = by_photos[number]
        reached = of_photos.precision.value >= target
        if could.sum() >= FEWEST_HOMES and not having[could].all():
            threshold = choose_true(highest[could], having[could], float(having[could].mean()), target)
            reached, of_photos = threshold < 1.0, Counts.at(chance, truth == number, threshold)
        homes = Counts.at(highest, having, max(threshold, 1e-12))
        classes.append({"name": name, "publish": bool(shown and reached), "threshold": threshold})
        figures[name] = {"homes": homes.shares(), **of_photos.shares()}
    return {"temperature": temperature, "classes": classes, "metrics": {"classes": figures}}


def calibrated_binary(
    photos: PhotoSet, fitted: FittedHead, homes_in: str, targets: Targets
) -> tuple[FittedHead, Entry]:
    """Calibrate a binary head on held-out photos of whole homes and choose its thresholds: the head as the
    bundle ships it, and the manifest's entry. `homes_in`: the collection of whole homes; empty: every group
    is one. Raises UsageError: too few homes with or without the attribute."""
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
    labels, held, collection = photos.labels[fitted.name], fitted.fold >= 0, photos.collection
    figures: dict[str, Any] = {}
    parts = {"all": held} | {name: held & (collection == name) for name in np.unique(collection[held])}
    for name, rows in parts.items():
        truth, chance = labels[rows] == 1, chances[rows]
        figure: dict[str, Any] = {"photos": int(rows.sum()), "with": int(truth.sum())}
        if truth.any() and not truth.all():
            figure["average_precision"] = round(float(average_precision_score(truth, chance)), 3)
            figure["roc_auc"] = round(float(roc_auc_score(truth, chance)), 3)
        figure["over_threshold_with"] = int((chance[truth] >= threshold).sum())
        figure["over_threshold_without"] = int((chance[~truth] >= threshold).sum())
        figures[name] = figure
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
    held = fitted.fold >= 0
    homes = find_homes(photos, held & photos.within(homes_in))
    rows = np.concatenate(homes) if homes else np.flatnonzero(held)
    logits, truth = fitted.held_out[rows], photos.labels[fitted.name][rows]
    groups, home = np.unique(photos.group[rows], return_inverse=True)
    fields = class_fields(logits, truth, home, publish, targets.class_precision)
    three = of_three_rooms(logits, truth, list(publish))
    right = fitted.held_out[held].argmax(axis=1) == photos.labels[fitted.name][held]
    parts = {name: right[photos.collection[held] == name] for name in np.unique(photos.collection[held])}
    confusion = confusion_matrix(truth, logits.argmax(axis=1), labels=np.arange(len(publish)))
    metrics = {
        "strength": fitted.strength,
        "photos": {"photos": len(rows), "homes": len(groups), "target": targets.class_precision},
        "accuracy": {str(name): Share.of(part).as_json() for name, part in parts.items()},
        "three_rooms": three.as_json() if three else None,
        **fields.pop("metrics"),
        "confusion": confusion.tolist(),
    }
    return fitted, {"name": fitted.name, "kind": "multiclass", **fields, "metrics": metrics}


def of_three_rooms(scores: Floats, truth: NDArray[np.int64], names: Sequence[str]) -> Share | None:
    """Of the kitchens, bathrooms and bedrooms those for which, among just these three, the right one is the
    most probable; None where a head has not all three.

    `scores` [photos, classes]: logits or probabilities; `truth` [photos]: numbers of classes; `names`: of all
    classes, in the order of the scores.
    """
    if not set(THREE_ROOMS) <= set(names):
        return None
    three = np.array([names.index(name) for name in THREE_ROOMS])
    rows = np.isin(truth, three)
    return Share.of(three[scores[rows][:, three].argmax(axis=1)] == truth[rows])
