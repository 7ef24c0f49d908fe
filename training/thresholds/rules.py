"""The one way to thresholds, from held-out logits of photos of homes to what a head's entry holds.

`fit`, re-thresholding and the faster arithmetics call it; they differ in their homes and in what `choose`
asks.
"""

from collections.abc import Callable, Mapping
from dataclasses import asdict
from typing import Any

import numpy as np
from numpy.typing import NDArray

from enrich.model.head import MIN_BACKING
from training.data.homes import MIN_PHOTOS_FALSE, Homes
from training.thresholds.calibrate import (
    Counts,
    Floats,
    Truth,
    calibrate_classes,
    choose_aggregation,
    choose_classes,
    class_chances,
    cross_fitted,
    rounded,
)

Entry = dict[str, Any]
Choose = Callable[[Floats, Truth], float]
"""A threshold from homes: their highest photos' probabilities, and whether they have the attribute."""
PREVALENCES = (0.1, 0.2, 0.3, 0.5)
"""Where the precision of `true` is stated, too: the rarer an attribute, the more of the finds are wrong."""


def in_words(true: float, false: float) -> str:
    """A binary head's thresholds for people; a `false` threshold of 0 is never undercut."""
    no = f"no below {false:.3f}" if false else "never says *no*"
    return f"yes from {true:.3f}, {no}"


def true_threshold(
    homes: Homes, chances: Floats, choose: Choose, least: float, target: float, expected: float
) -> tuple[float, Counts, Entry]:
    """The threshold `true` that `choose` takes on these homes, but `least` or more (what simulated listings
    ask for; 0: nobody asked them); its cross-fitted counts, and the figures for the manifest."""
    highest = homes.highest(chances)

    def careful(scores: Floats, truth: Truth) -> float:
        return max(choose(scores, truth), least)

    alone = choose(highest, homes.truth)
    threshold = max(alone, least)
    fair = cross_fitted(careful, highest, homes.truth, homes.fold)
    return (
        threshold,
        fair,
        {
            "target": target,
            "prevalence": round(expected, 3),
            "basis": "homes" if fair.precision.total >= MIN_BACKING else "simulated",
            "on_homes_alone": alone,
            "on_simulated_alone": least or None,
            "at_threshold": Counts.at(highest, homes.truth, threshold).as_json(expected),
            "cross_fitted": fair.as_json(expected),
            "precision_elsewhere": {str(share): rounded(fair.precision_at(share)) for share in PREVALENCES},
        },
    )


def false_threshold(
    homes: Homes,
    chances: Floats,
    choose: Choose,
    most: float,
    target: float,
    expected: float,
    fewest: int = 0,
) -> tuple[float, Entry]:
    """The threshold `false` that `choose` takes on homes with photos enough, but `most` or less; 0 where
    fewer than `fewest` of these have the attribute, or lack it. With the figures for the manifest."""
    homes = homes.with_photos(MIN_PHOTOS_FALSE)
    figures: Entry = {"target": target, "homes": len(homes.rows), "photos": MIN_PHOTOS_FALSE}
    if not homes.rows or min(homes.truth.sum(), (~homes.truth).sum()) < fewest:
        return 0.0, figures
    highest = homes.highest(chances)
    threshold = min(choose(highest, homes.truth), most)
    figures["at_threshold"] = Counts.at(highest, homes.truth, threshold).as_json(expected)
    figures["cross_fitted"] = cross_fitted(choose, highest, homes.truth, homes.fold).as_json(expected)
    return threshold, figures


def aggregation(homes: Homes, scaled: list[Floats], expected: float) -> tuple[Entry, dict[str, float]]:
    """The pooling for the manifest, and the log loss of what was tried. `scaled`: each home's logits."""
    rule, losses = choose_aggregation(scaled, homes.truth, homes.fold, expected)
    return asdict(rule), {name: round(loss, 4) for name, loss in losses.items()}


def class_fields(
    logits: Floats, truth: NDArray[np.int64], weight: Floats, publish: Mapping[str, bool], target: float
) -> Entry:
    """Temperature, classes and their figures for a multiclass head's entry; a class that does not reach the
    precision asked for is not published. `logits` [photos, classes], `truth` and `weight` [photos]."""
    temperature = calibrate_classes(logits, truth, weight)
    chosen = choose_classes(class_chances(logits, temperature), truth, target)
    return {
        "temperature": temperature,
        "classes": [
            {
                "name": name,
                "publish": shown and one.precision.total > 0 and one.precision.value >= target,
                "threshold": one.threshold,
            }
            for (name, shown), one in zip(publish.items(), chosen, strict=True)
        ],
        "metrics": {
            "classes": {name: one.as_json() for name, one in zip(publish, chosen, strict=True)},
        },
    }
