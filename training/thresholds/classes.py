"""Classes of photos: their probabilities, and a threshold for each by counting photos."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from training import thesis
from training.thresholds.calibrate import Counts, Floats, Share, Truth

THREE_ROOMS = tuple(thesis.SIZES["rooms"])


def choose_class_threshold(chances: Floats, right: Truth, target: float) -> tuple[float, Share]:
    """Lowest probability at which photos given a class belong to it in `target` or more of the cases.

    `chances` and `right`: of the photos whose most probable class it is. Where the target is out of
    reach: the threshold of the best precision that keeps a tenth of them. Returned with the precision at it.
    """

    def precision(threshold: float) -> Share:
        return Share.of(right[chances >= threshold])

    if not chances.size:
        return 1.0, Share(0, 0)
    tried = [0.0, *np.sort(chances)[: max(1, int(len(chances) * 0.9))].tolist()]
    for chance in tried:
        if precision(chance).value >= target:
            return chance, precision(chance)
    best = max(tried, key=lambda chance: precision(chance).value)
    return best, precision(best)


def choose_classes(
    chances: Floats, truth: NDArray[np.int64], target: float, least: float = 0.0
) -> list[tuple[float, Counts]]:
    """As `choose_class_threshold` for every class, but no threshold below `least`; and photos there: of those
    whose most probable class it is, those at or above the threshold are given the class.

    `chances`: calibrated probabilities [photos, classes]; `truth` [photos]: numbers of classes.
    """
    top, chosen = chances.argmax(axis=1), []
    for number in range(chances.shape[1]):
        mine, having = top == number, truth == number
        threshold = max(choose_class_threshold(chances[mine, number], having[mine], target)[0], least)
        chosen.append((threshold, Counts.at(np.where(mine, chances[:, number], -1.0), having, threshold)))
    return chosen


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
