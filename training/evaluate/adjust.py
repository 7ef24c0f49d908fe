"""From whole homes that a bundle has not seen to the temperature, thresholds and aggregation of a head."""

from dataclasses import dataclass
from functools import partial

import numpy as np
from numpy.typing import NDArray
from sklearn.metrics import average_precision_score

from enrich.model.bundle import Bundle
from enrich.model.head import MIN_BACKING, Head
from enrich.model.seen import distinct_views
from training.data.homes import MIN_PHOTOS, Homes, find_homes
from training.data.labels import UNLABELLED
from training.data.photos import PhotoSet
from training.evaluate.scored import Rows, Scored
from training.models.heads import FOLDS, site_folds
from training.thresholds import simulate
from training.thresholds.calibrate import (
    Counts,
    Floats,
    Truth,
    choose_false,
    choose_true,
    fit_temperature,
    rounded,
)
from training.thresholds.rules import (
    Entry,
    aggregation,
    class_fields,
    false_threshold,
    in_words,
    true_threshold,
)

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


def adjust(bundle: Bundle, photos: PhotoSet, scored: Scored, head: Head, aim: Aim) -> tuple[Entry, str]:
    """As `adjust_binary` or `adjust_classes`, by the head's kind."""
    return (adjust_binary if head.kind == "binary" else adjust_classes)(bundle, photos, scored, head, aim)


def adjust_binary(
    bundle: Bundle, photos: PhotoSet, scored: Scored, head: Head, aim: Aim
) -> tuple[Entry, str]:
    """Fields of a binary head's manifest entry, none where there are too few homes, and a line for people."""
    labels = photos.labels[head.name]
    rows = find_homes(photos, (labels != UNLABELLED) & scored.readable, aim.homes)
    truth = np.array([(labels[home] == 1).any() for home in rows], dtype=bool)
    having, lacking = int(truth.sum()), int((~truth).sum())
    if min(having, lacking) < FEWEST_HOMES:
        return {}, (
            f"thresholds left as they were: {having} homes with it and {lacking} without "
            f"(of {MIN_PHOTOS} labelled photos or more), {FEWEST_HOMES} of each are needed; label more homes"
        )
    site = np.array([photos.site[home[0]] for home in rows], dtype=str)
    fold, folds_of = _folds(truth, site)
    homes = Homes(tuple(rows), truth, fold, site)
    logits, in_homes = scored.logits(bundle, head)[:, 0], np.concatenate(rows)
    temperature = fit_temperature(logits[in_homes], labels[in_homes] == 1, _each_home_alike(rows))
    scaled = logits / temperature
    with np.errstate(invalid="ignore"):  # NaN where a photo was not read, or not held out
        chances = head.rules.chances(scaled)  # to the last digit what serving compares with the thresholds
    expected = float(truth.mean()) if aim.prevalence is None else aim.prevalence
    choose = partial(choose_true, prevalence=expected, target=aim.precision)
    true, fair, true_figures = true_threshold(homes, chances, choose, 0.0, aim.precision, expected)
    if fair.precision.total < MIN_BACKING:
        least = _on_simulated(photos, head, homes, chances, expected, aim)
        true, fair, true_figures = true_threshold(homes, chances, choose, least, aim.precision, expected)
    rule_out = partial(choose_false, prevalence=expected, target=aim.false_precision)
    false, false_figures = false_threshold(
        homes, chances, rule_out, true, aim.false_precision, expected, FEWEST_HOMES
    )
    pooling, losses = aggregation(homes, [_views(scored, scaled, home) for home in rows], expected)
    fields = {
        "temperature": temperature,
        "thresholds": {"true": true, "false": false},
        "aggregation": pooling,
        "metrics": {
            "homes": _described(homes, folds_of, homes.highest(chances)),
            "true": true_figures,
            "false": false_figures,
            "aggregation_log_loss": losses,
        },
    }
    return fields, _line(head, true, false, fair)


def _on_simulated(
    photos: PhotoSet, head: Head, homes: Homes, chances: Floats, expected: float, aim: Aim
) -> float:
    """The `true` threshold of listings simulated from photos of these homes, as many a listing as
    the homes have in the median."""
    drawn_from = np.full(len(photos), -1, dtype=np.int64)
    drawn_from[np.concatenate(homes.rows)] = 0
    pool = simulate.pool(photos, head.name, drawn_from)
    size = int(np.median(homes.sizes))
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


def _folds(truth: Truth, site: NDArray[np.str_]) -> tuple[NDArray[np.int64], str]:
    """Folds of whole sites; of single homes where sites are too few or uneven to leave one out."""
    labels = truth.astype(np.int64)
    fold = site_folds(labels, site, seed=0)
    if len(np.unique(site)) >= FOLDS and all(np.ptp(labels[fold != one]) for one in np.unique(fold)):
        return fold, "site"
    return site_folds(labels, np.arange(len(truth)).astype(str), seed=0), "home"


def _views(scored: Scored, scaled: Floats, rows: Rows) -> Floats:
    """The highest logit of each view of a home, as `aggregate` pools them."""
    seen = [scored.results[row].score for row in rows]
    views = distinct_views([score.dhash for score in seen if score])
    highest = np.full(max(views) + 1, -np.inf)
    np.maximum.at(highest, views, scaled[rows])
    return np.asarray(highest[np.isfinite(highest)])


def _each_home_alike(homes: list[Rows]) -> Floats:
    """Weights of the homes' photos."""
    return np.concatenate([np.full(len(rows), 1 / len(rows)) for rows in homes])


def _described(homes: Homes, folds_of: str, highest: Floats) -> Entry:
    sizes = homes.sizes
    return {
        "homes": len(sizes),
        "with": int(homes.truth.sum()),
        "sites": len(np.unique(homes.site)),
        "folds_of": folds_of,
        "photos": int(sizes.sum()),
        "median_photos": float(np.median(sizes)),
        "fewest_photos": int(sizes.min()),
        "most_photos": int(sizes.max()),
        "prevalence": round(float(homes.truth.mean()), 3),
        "average_precision": rounded(average_precision_score(homes.truth, highest)),
    }


def adjust_classes(
    bundle: Bundle, photos: PhotoSet, scored: Scored, head: Head, aim: Aim
) -> tuple[Entry, str]:
    """As `adjust_binary`, for a multiclass head: its temperature, and thresholds of its classes."""
    labels = photos.labels[head.name]
    homes = find_homes(photos, (labels != UNLABELLED) & scored.readable, aim.homes)
    rows = np.concatenate(homes) if homes else np.empty(0, np.int64)
    for number, kind in enumerate(head.classes):
        count = int((labels[rows] == number).sum())
        if kind.publish and count < FEWEST_PHOTOS:
            return {}, f"left as it was: {count} photos of {kind.name} in homes, {FEWEST_PHOTOS} are needed"
    fields = class_fields(
        scored.logits(bundle, head)[rows],
        labels[rows],
        _each_home_alike(homes),
        {kind.name: kind.publish for kind in head.classes},
        aim.class_precision,
    )
    fields["metrics"]["photos"] = {"photos": len(rows), "homes": len(homes), "target": aim.class_precision}
    published = ", ".join(kind["name"] for kind in fields["classes"] if kind["publish"])
    return fields, f"{len(rows)} photos of {len(homes)} homes; published: {published or 'none'}"
