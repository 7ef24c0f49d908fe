"""Calibration and thresholds, all from logits of photos and homes that the head had not seen.

Counts are of whole homes, of classes also of photos. Precision and negative predictive value are stated
twice: as observed, and at the prevalence expected where the bundle is used, which weighs the error rates of
the two kinds of home.
"""

from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize_scalar
from scipy.special import expit
from scipy.stats import binomtest
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import log_loss

from enrich.model.binary import listing_probability
from enrich.model.head import Aggregation

Floats = NDArray[np.float64]
Truth = NDArray[np.bool_]

AGGREGATORS = {
    "max": Aggregation("max"),
    "mean of top 2": Aggregation("topk_mean", k=2),
    "mean of top 3": Aggregation("topk_mean", k=3),
    "noisy_or": Aggregation("noisy_or"),
}
LEAST_SLOPE = 0.05
"""Of Platt scaling: a higher score never means less."""


@dataclass(frozen=True)
class Share:
    """`hits` of `total`, with the exact (Clopper-Pearson) 95 % interval."""

    hits: int
    total: int

    @classmethod
    def of(cls, right: Truth) -> "Share":
        return cls(int(right.sum()), len(right))

    @property
    def value(self) -> float:
        return self.hits / self.total if self.total else float("nan")

    @property
    def interval(self) -> tuple[float, float]:
        """(0, 1) where nothing was counted."""
        if not self.total:
            return 0.0, 1.0
        bounds = binomtest(self.hits, self.total).proportion_ci(0.95, method="exact")
        return float(bounds.low), float(bounds.high)

    def as_json(self) -> dict[str, Any]:
        value, low, high = map(rounded, (self.value, *self.interval))
        return {"hits": self.hits, "of": self.total, "value": value, "low": low, "high": high}


@dataclass(frozen=True)
class Counts:
    """Homes, or photos, at a threshold: `tp`, `fp` at or above it, `fn`, `tn` below."""

    tp: int
    fp: int
    fn: int
    tn: int

    @classmethod
    def at(cls, scores: Floats, truth: Truth, threshold: float | Floats) -> "Counts":
        over = scores >= threshold
        kinds = over & truth, over & ~truth, ~over & truth, ~over & ~truth
        return cls(*(int(kind.sum()) for kind in kinds))

    @property
    def precision(self) -> Share:
        return Share(self.tp, self.tp + self.fp)

    @property
    def recall(self) -> Share:
        return Share(self.tp, self.tp + self.fn)

    @property
    def negative_precision(self) -> Share:
        """Of the homes below the threshold, those that really lack it."""
        return Share(self.tn, self.tn + self.fn)

    def precision_at(self, prevalence: float) -> float:
        """Precision where `prevalence` of the homes have it; NaN where nothing is predicted."""
        return _mixed(self.tp, self.tp + self.fn, self.fp, self.fp + self.tn, prevalence)

    def negative_precision_at(self, prevalence: float) -> float:
        return _mixed(self.tn, self.fp + self.tn, self.fn, self.tp + self.fn, 1 - prevalence)

    def shares(self) -> dict[str, Any]:
        """Precision and recall, with exact intervals."""
        return {"precision": self.precision.as_json(), "recall": self.recall.as_json()}

    def as_json(self, prevalence: float) -> dict[str, Any]:
        """With exact intervals, and what the counts mean at `prevalence`."""
        return {
            **asdict(self),
            "precision": self.precision.as_json(),
            "precision_at_prevalence": rounded(self.precision_at(prevalence)),
            "recall": self.recall.as_json(),
            "negative_precision": self.negative_precision.as_json(),
            "negative_precision_at_prevalence": rounded(self.negative_precision_at(prevalence)),
        }


def rounded(value: float) -> float | None:
    """Four digits; None for NaN."""
    return None if np.isnan(value) else round(float(value), 4)


def _mixed(right: int, of_right: int, wrong: int, of_wrong: int, share: float) -> float:
    if not (right + wrong and of_right and of_wrong):
        return float("nan")
    right_rate, wrong_rate = right / of_right * share, wrong / of_wrong * (1 - share)
    return right_rate / (right_rate + wrong_rate)


def calibrate_binary(logits: Floats, labels: NDArray[np.int64], weight: Floats) -> tuple[float, float]:
    """Platt scaling of held-out photos: shift and temperature of `sigmoid((logit + shift) / temperature)`."""
    slope, intercept = _platt(logits[:, 0], labels == 1, weight)
    return intercept / slope, 1 / slope


def calibrate_classes(logits: Floats, labels: NDArray[np.int64], weight: Floats) -> float:
    """The temperature, 0.1 to 10, that makes weighted log loss least; `logits` [photos, classes]."""

    def losses(scaled: Floats) -> Floats:
        return np.asarray(np.logaddexp.reduce(scaled, axis=1) - scaled[np.arange(len(labels)), labels])

    return _least_loss(losses, logits, weight)


def fit_temperature(logits: Floats, having: Truth, weight: Floats) -> float:
    """The temperature, 0.1 to 10, of a binary head with the least weighted log loss; `logits` [photos].

    Towards targets a little short of 0 and 1 (Platt 1999), so that few, cleanly told photos do not make the
    model sure of everything. No shift as in `calibrate_binary`: that would be another bias, hence another
    model.
    """
    target = np.where(having, (having.sum() + 1) / (having.sum() + 2), 1 / ((~having).sum() + 2))

    def losses(scaled: Floats) -> Floats:
        return np.asarray(target * np.logaddexp(0.0, -scaled) + (1 - target) * np.logaddexp(0.0, scaled))

    return _least_loss(losses, logits, weight)


def _least_loss(losses: Callable[[Floats], Floats], logits: Floats, weight: Floats) -> float:
    found = minimize_scalar(
        lambda log_temperature: np.average(losses(logits / np.exp(log_temperature)), weights=weight),
        bounds=np.log([0.1, 10.0]),
        method="bounded",
    )
    return float(np.exp(found.x))


def choose_true(scores: Floats, truth: Truth, prevalence: float, target: float) -> float:
    """Lowest threshold at which the expected precision of homes is `target` or more; 1.0 if there is none.

    Expected: by `chance_of_homes`, where `prevalence` of the homes have the attribute. What is counted at a
    threshold hangs on one home more or less, and the threshold that just reaches the target by counting is
    too low elsewhere. No threshold is below the score of a home that rather lacks it. `scores` [homes]: each
    home's highest photo probability.
    """
    if truth.all() or not truth.any():
        return 1.0
    chance, weight = chance_of_homes(scores, truth, prevalence)
    order = np.argsort(-scores, kind="stable")
    expected = np.cumsum((weight * chance)[order]) / np.cumsum(weight[order])
    whole = np.append(np.diff(scores[order]) < 0, True)  # homes of equal scores come out alike
    reached = np.flatnonzero(whole & (expected >= target) & (chance[order] >= 0.5))
    return float(scores[order[reached[-1]]]) if reached.size else 1.0


def choose_false(scores: Floats, truth: Truth, prevalence: float, target: float) -> float:
    """Highest threshold below which `target` or more of the homes are expected to lack it; 0.0 if there is
    none. As `choose_true`."""
    if truth.all() or not truth.any():
        return 0.0
    chance, weight = chance_of_homes(scores, truth, prevalence)
    order = np.argsort(scores, kind="stable")
    below = np.cumsum((weight * (1 - chance))[order]) / np.cumsum(weight[order])
    reached = np.flatnonzero((below >= target)[:-1] & (chance[order] < 0.5)[:-1])
    return float(scores[order[reached[-1] + 1]]) if reached.size else 0.0


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


def chance_of_homes(scores: Floats, truth: Truth, prevalence: float) -> tuple[Floats, Floats]:
    """Each home's chance of having the attribute, by a logistic curve over the logit of its score, and the
    homes' weights, which make it so that `prevalence` of them have it.

    The curve's penalty flattens it where homes are few: few homes claim less. Its strength is one at which
    24 homes and 240 of the starter's photos both led to thresholds that held on the other homes.
    """
    share = truth.mean()
    weight = np.where(truth, prevalence / share, (1 - prevalence) / (1 - share))
    logits = np.array([[_logit(score)] for score in scores])
    logits /= max(float(logits.std()), 1e-6)
    curve = LogisticRegression(C=8.0).fit(logits, truth, sample_weight=weight)
    return np.asarray(curve.predict_proba(logits)[:, 1]), weight


def cross_fitted(
    choose: Callable[[Floats, Truth], float], scores: Floats, truth: Truth, folds: NDArray[np.int64]
) -> Counts:
    """Counts with each fold evaluated at a threshold chosen on the others: no home chooses its own."""
    thresholds = np.empty(len(scores))
    for fold in np.unique(folds):
        held = folds == fold
        thresholds[held] = choose(scores[~held], truth[~held])
    return Counts.at(scores, truth, thresholds)


def choose_aggregation(
    homes: list[Floats], truth: Truth, folds: NDArray[np.int64], prevalence: float
) -> tuple[Aggregation, dict[str, float]]:
    """Pooling with the least cross-fitted log loss, its slope and intercept fitted on all homes.

    `homes`: each home's photo logits after temperature. Also returns each pooling's log loss.
    """
    weight = np.where(truth, prevalence / truth.mean(), (1 - prevalence) / (1 - truth.mean()))
    losses: dict[str, float] = {}
    pools: dict[str, Floats] = {}
    for name, rule in AGGREGATORS.items():
        pools[name] = pooled = np.array([_logit(listing_probability(rule, home)) for home in homes])
        chance = np.empty(len(homes))
        for fold in np.unique(folds):
            held = folds == fold
            slope, intercept = _platt(pooled[~held], truth[~held], weight[~held])
            chance[held] = expit(slope * pooled[held] + intercept)
        losses[name] = float(log_loss(truth, chance, sample_weight=weight))
    best = min(losses, key=lambda name: losses[name])
    slope, intercept = _platt(pools[best], truth, weight)
    return replace(AGGREGATORS[best], slope=slope, intercept=intercept), losses


def _logit(chance: float) -> float:
    return float(np.log(max(chance, 1e-12)) - np.log(max(1 - chance, 1e-12)))


def _platt(pooled: Floats, truth: Truth, weight: Floats) -> tuple[float, float]:
    if truth.all() or not truth.any():  # nothing to learn a slope from, and few homes are never quite sure
        return LEAST_SLOPE, _logit((truth.sum() + 1) / (len(truth) + 2))
    # A slight penalty keeps the slope finite where the homes happen to be separable.
    model = LogisticRegression(C=100.0).fit(pooled[:, None], truth, sample_weight=weight)
    return max(float(model.coef_[0, 0]), LEAST_SLOPE), float(model.intercept_[0])
