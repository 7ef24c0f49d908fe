"""From whole homes that a bundle has not seen to the temperature, thresholds and aggregation of a head."""

from dataclasses import asdict, dataclass
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize_scalar
from sklearn.metrics import average_precision_score

from enrich.model.bundle import Bundle
from enrich.model.head import MIN_BACKING, Head
from enrich.model.seen import distinct_views
from training.data.homes import MIN_PHOTOS, MIN_PHOTOS_FALSE
from training.data.photos import UNLABELLED, PhotoSet
from training.evaluate.measure import PREVALENCES, Floats, Truth, find_homes
from training.evaluate.scored import Rows, Scored
from training.models.heads import FOLDS, site_folds
from training.thresholds import simulate
from training.thresholds.calibrate import (
    Counts,
    calibrate_classes,
    choose_aggregation,
    choose_class_threshold,
    choose_false,
    choose_true,
    cross_fitted,
    rounded,
)
from training.thresholds.choose import in_words

FEWEST_HOMES = 10
"""With it and without it, each: fewer homes cannot carry a threshold."""
FEWEST_PHOTOS = 20
"""Of each published class of a multiclass head."""


@dataclass(frozen=True)
class Aim:
    """What the new thresholds must reach, on which homes."""

    precision: float = 0.95
    prevalence: float | None = None
    """Share of homes with an attribute; None: as among the homes here."""
    false_precision: float = 0.9
    class_precision: float = 0.9
    homes: tuple[str, ...] = ()
    """Path prefixes of whole homes; empty: every group with enough photos."""


@dataclass(frozen=True)
class _Homes:
    """Whole homes labelled for one head: arrays with one entry a home."""

    rows: list[Rows]
    truth: Truth
    fold: NDArray[np.int64]
    folds_of: str
    """`site`, or `home` where there are too few sites."""
    sites: int


def adjust(
    bundle: Bundle, photos: PhotoSet, scored: Scored, head: Head, aim: Aim
) -> tuple[dict[str, Any], str]:
    """As `adjust_binary` or `adjust_classes`, by the head's kind."""
    return (adjust_binary if head.kind == "binary" else adjust_classes)(bundle, photos, scored, head, aim)


def adjust_binary(
    bundle: Bundle, photos: PhotoSet, scored: Scored, head: Head, aim: Aim
) -> tuple[dict[str, Any], str]:
    """Fields of a binary head's manifest entry, none where there are too few homes, and a line for people."""
    homes = _whole_homes(photos, scored, head, aim)
    having, lacking = int(homes.truth.sum()), int((~homes.truth).sum())
    if min(having, lacking) < FEWEST_HOMES:
        return {}, (
            f"thresholds left as they were: {having} homes with it and {lacking} without "
            f"(of {MIN_PHOTOS} labelled photos or more), {FEWEST_HOMES} of each are needed; label more homes"
        )
    logits = scored.logits(bundle, head)[:, 0]
    temperature = _temperature(logits, photos.labels[head.name], homes)
    scaled = logits / temperature
    with np.errstate(invalid="ignore"):  # NaN where a photo was not read, or not held out
        chances = head.rules.chances(scaled)  # to the last digit what serving compares with the thresholds
    highest = np.array([chances[rows].max() for rows in homes.rows])
    expected = float(homes.truth.mean()) if aim.prevalence is None else aim.prevalence
    choose = partial(choose_true, prevalence=expected, target=aim.precision)
    alone = choose(highest, homes.truth)
    fair = cross_fitted(choose, highest, homes.truth, homes.fold)
    least = 0.0
    if fair.precision.total < MIN_BACKING:
        least = _on_simulated(photos, head, homes, chances, expected, aim)
        fair = cross_fitted(
            lambda score, truth: max(choose(score, truth), least), highest, homes.truth, homes.fold
        )
    true_threshold = max(alone, least)
    false_threshold, false_figures = _false(homes, highest, true_threshold, expected, aim)
    views = [_views(scored, scaled, rows) for rows in homes.rows]
    aggregation, losses = choose_aggregation(views, homes.truth, homes.fold, expected)
    metrics = {
        "homes": _described(homes, highest),
        "true": {
            "target": aim.precision,
            "prevalence": round(expected, 3),
            "basis": "simulated" if fair.precision.total < MIN_BACKING else "homes",
            "on_homes_alone": alone,
            "on_simulated_alone": least or None,
            "at_threshold": Counts.at(highest, homes.truth, true_threshold).as_json(expected),
            "cross_fitted": fair.as_json(expected),
            "precision_elsewhere": {str(one): rounded(fair.precision_at(one)) for one in PREVALENCES},
        },
        "false": false_figures,
        "aggregation_log_loss": {name: round(loss, 4) for name, loss in losses.items()},
    }
    fields = {
        "temperature": temperature,
        "thresholds": {"true": true_threshold, "false": false_threshold},
        "aggregation": asdict(aggregation),
        "metrics": metrics,
    }
    return fields, _line(head, true_threshold, false_threshold, fair)


def _on_simulated(
    photos: PhotoSet, head: Head, homes: _Homes, chances: Floats, expected: float, aim: Aim
) -> float:
    """The `true` threshold of listings simulated from photos of these homes, as many a listing as
    the homes have in the median."""
    drawn_from = np.full(len(photos), -1, dtype=np.int64)
    drawn_from[np.concatenate(homes.rows)] = 0
    pool = simulate.pool(photos, head.name, drawn_from)
    size = int(np.median([len(rows) for rows in homes.rows]))
    listings = simulate.simulate(pool, chances, size, expected, seed=0)
    return choose_true(listings.highest, listings.truth, expected, aim.precision)


def _line(head: Head, true_threshold: float, false_threshold: float, fair: Counts) -> str:
    proof = (
        ""
        if fair.precision.total >= MIN_BACKING
        else f" (simulated: fewer than {MIN_BACKING} homes were found)"
    )
    return (
        f"{in_words(true_threshold, false_threshold)} "
        f"(before: {in_words(head.true_threshold, head.false_threshold)}); "
        f"cross-fitted precision {fair.precision.hits} of {fair.precision.total}, "
        f"recall {fair.recall.hits} of {fair.recall.total}{proof}"
    )


def _whole_homes(photos: PhotoSet, scored: Scored, head: Head, aim: Aim) -> _Homes:
    labels = photos.labels[head.name]
    rows = find_homes(photos, (labels != UNLABELLED) & scored.readable, aim.homes)
    truth = np.array([(labels[home] == 1).any() for home in rows], dtype=bool)
    site = np.array([photos.site[home[0]] for home in rows], dtype=str)
    fold, folds_of = np.zeros(len(rows), dtype=np.int64), "home"
    if min(truth.sum(), (~truth).sum()) >= FEWEST_HOMES:
        fold, folds_of = _folds(truth, site)
    return _Homes(rows, truth, fold, folds_of, len(np.unique(site)))


def _folds(truth: Truth, site: NDArray[np.str_]) -> tuple[NDArray[np.int64], str]:
    """Folds of whole sites; of single homes where sites are too few or uneven to leave one out."""
    labels = truth.astype(np.int64)
    fold = site_folds(labels, site, seed=0)
    if len(np.unique(site)) >= FOLDS and all(np.ptp(labels[fold != one]) for one in np.unique(fold)):
        return fold, "site"
    return site_folds(labels, np.arange(len(truth)).astype(str), seed=0), "home"


def _temperature(logits: Floats, labels: NDArray[np.int64], homes: _Homes) -> float:
    """Of the photos of these homes, each home weighing the same."""
    rows = np.concatenate(homes.rows)
    weight = np.concatenate([np.full(len(home), 1 / len(home)) for home in homes.rows])
    return fit_temperature(logits[rows], labels[rows] == 1, weight)


def fit_temperature(logits: Floats, having: Truth, weight: Floats) -> float:
    """The temperature, 0.1 to 10, of a binary head with the least weighted log loss.

    Towards targets a little short of 0 and 1 (Platt 1999), so that few, cleanly told photos do not make the
    model sure of everything. No shift as in `fit`: that would be another bias, hence another model.
    """
    target = np.where(having, (having.sum() + 1) / (having.sum() + 2), 1 / ((~having).sum() + 2))

    def loss(log_temperature: float) -> float:
        scaled = logits / np.exp(log_temperature)
        each = target * np.logaddexp(0.0, -scaled) + (1 - target) * np.logaddexp(0.0, scaled)
        return float(np.average(each, weights=weight))

    return float(np.exp(minimize_scalar(loss, bounds=np.log([0.1, 10.0]), method="bounded").x))


def _false(
    homes: _Homes, highest: Floats, ceiling: float, expected: float, aim: Aim
) -> tuple[float, dict[str, Any]]:
    large = np.array([len(rows) >= MIN_PHOTOS_FALSE for rows in homes.rows])
    score, truth, fold = highest[large], homes.truth[large], homes.fold[large]
    figures: dict[str, Any] = {
        "target": aim.false_precision,
        "homes": int(large.sum()),
        "photos": MIN_PHOTOS_FALSE,
    }
    if min(truth.sum(), (~truth).sum()) < FEWEST_HOMES:
        return 0.0, figures
    choose = partial(choose_false, prevalence=expected, target=aim.false_precision)
    threshold = min(choose(score, truth), ceiling)
    figures["at_threshold"] = Counts.at(score, truth, threshold).as_json(expected)
    figures["cross_fitted"] = cross_fitted(choose, score, truth, fold).as_json(expected)
    return threshold, figures


def _views(scored: Scored, scaled: Floats, rows: Rows) -> Floats:
    """The highest logit of each view of a home, as `aggregate` pools them."""
    seen = [scored.results[row].score for row in rows]
    views = distinct_views([score.dhash for score in seen if score])
    highest = np.full(max(views) + 1, -np.inf)
    np.maximum.at(highest, views, scaled[rows])
    return np.asarray(highest[np.isfinite(highest)])


def _described(homes: _Homes, highest: Floats) -> dict[str, Any]:
    sizes = [len(rows) for rows in homes.rows]
    return {
        "homes": len(sizes),
        "with": int(homes.truth.sum()),
        "sites": homes.sites,
        "folds_of": homes.folds_of,
        "photos": sum(sizes),
        "median_photos": float(np.median(sizes)),
        "fewest_photos": min(sizes),
        "most_photos": max(sizes),
        "prevalence": round(float(homes.truth.mean()), 3),
        "average_precision": rounded(average_precision_score(homes.truth, highest)),
    }


def adjust_classes(
    bundle: Bundle, photos: PhotoSet, scored: Scored, head: Head, aim: Aim
) -> tuple[dict[str, Any], str]:
    """As `adjust_binary`, for a multiclass head: its temperature, and thresholds of its classes."""
    labels = photos.labels[head.name]
    homes = find_homes(photos, (labels != UNLABELLED) & scored.readable, aim.homes)
    rows = np.concatenate(homes) if homes else np.empty(0, np.int64)
    for number, kind in enumerate(head.classes):
        count = int((labels[rows] == number).sum())
        if kind.publish and count < FEWEST_PHOTOS:
            return {}, f"left as it was: {count} photos of {kind.name} in homes, {FEWEST_PHOTOS} are needed"
    logits, truth = scored.logits(bundle, head)[rows], labels[rows]
    weight = np.concatenate([np.full(len(home), 1 / len(home)) for home in homes])
    temperature = calibrate_classes(logits, truth, weight)
    chances = np.exp(logits / temperature - np.logaddexp.reduce(logits / temperature, axis=1, keepdims=True))
    answer = chances.argmax(axis=1)
    classes: list[dict[str, Any]] = []
    by_class = {}
    for number, kind in enumerate(head.classes):
        mine = answer == number
        threshold, precision = choose_class_threshold(
            chances[mine, number], truth[mine] == number, aim.class_precision
        )
        reached = precision.total > 0 and precision.value >= aim.class_precision
        classes.append({"name": kind.name, "publish": kind.publish and reached, "threshold": threshold})
        by_class[kind.name] = {"precision": precision.as_json()}
    figures = {"photos": len(rows), "homes": len(homes), "target": aim.class_precision}
    fields = {
        "temperature": temperature,
        "classes": classes,
        "metrics": {"photos": figures, "classes": by_class},
    }
    published = [kind["name"] for kind in classes if kind["publish"]]
    return fields, f"{len(rows)} photos of {len(homes)} homes; published: {', '.join(published) or 'none'}"
