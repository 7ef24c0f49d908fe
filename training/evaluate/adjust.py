"""From whole homes that a bundle has not seen to the temperature, thresholds and aggregation of a head."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from enrich.model.head import Head, least_backing
from enrich.model.seen import distinct_views
from training.data.homes import MIN_PHOTOS, Homes, find_homes
from training.data.labels import UNLABELLED
from training.evaluate.scored import Rows, Scored
from training.models.heads import FOLDS, site_folds
from training.thresholds.calibrate import Floats, Truth, fit_temperature
from training.thresholds.rules import (
    FEWEST_HOMES,
    Entry,
    Targets,
    binary_fields,
    class_fields,
    in_words,
)

FEWEST_PHOTOS = 20
"""Of each published class of a multiclass head."""


def adjust(scored: Scored, head: Head, targets: Targets, prefixes: Sequence[str]) -> tuple[Entry, str]:
    """Fields of a head's manifest entry, none where there is too little to choose them on, and a line for
    people. `prefixes`: how paths of whole homes start; none: every group with photos enough is a home."""
    by_kind = adjust_binary if head.kind == "binary" else adjust_classes
    return by_kind(scored, head, targets, prefixes)


def adjust_binary(scored: Scored, head: Head, targets: Targets, prefixes: Sequence[str]) -> tuple[Entry, str]:
    """As `adjust`, for a binary head."""
    photos = scored.photos
    labels = photos.labels[head.name]
    rows = find_homes(photos, (labels != UNLABELLED) & scored.readable, prefixes)
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
    logits, (in_homes, weight) = scored.logits(head)[:, 0], homes.photos
    temperature = fit_temperature(logits[in_homes], labels[in_homes] == 1, weight)
    scaled = logits / temperature
    with np.errstate(invalid="ignore"):  # NaN where a photo was not read, or not held out
        chances = head.rules.chances(scaled)  # to the last digit what serving compares with the thresholds
    fields = binary_fields(homes, chances, [_views(scored, scaled, home) for home in rows], targets)
    fields["temperature"] = temperature
    fields["metrics"]["homes"]["folds_of"] = folds_of
    return fields, _line(head, fields)


def _line(head: Head, fields: Entry) -> str:
    thresholds, fair = fields["thresholds"], fields["metrics"]["true"]["cross_fitted"]
    found, proof = fair["precision"]["of"], ""
    if found < (least := least_backing(fields["metrics"]["true"]["target"])):
        proof = f" (an estimate: fewer than {least} homes were found)"
    return (
        f"{in_words(thresholds['true'], thresholds['false'])} "
        f"(before: {in_words(head.true_threshold, head.false_threshold)}); "
        f"cross-fitted precision {fair['precision']['hits']} of {found}, "
        f"recall {fair['recall']['hits']} of {fair['recall']['of']}{proof}"
    )


def _folds(truth: Truth, site: NDArray[np.str_]) -> tuple[NDArray[np.int64], str]:
    """Folds of whole sites; of single homes where sites are too few or uneven to leave one out."""
    labels = truth.astype(np.int64)
    if len(np.unique(site)) >= FOLDS:
        fold = site_folds(labels, site, seed=0)
        if all(np.ptp(labels[fold != one]) for one in np.unique(fold)):
            return fold, "site"
    return site_folds(labels, np.arange(len(truth)).astype(str), seed=0), "home"


def _views(scored: Scored, scaled: Floats, rows: Rows) -> Floats:
    """The highest logit of each view of a home, as `aggregate` pools them."""
    seen = [scored.results[row].score for row in rows]
    views = distinct_views([score.dhash for score in seen if score])
    highest = np.full(max(views) + 1, -np.inf)
    np.maximum.at(highest, views, scaled[rows])
    return np.asarray(highest[np.isfinite(highest)])


def adjust_classes(
    scored: Scored, head: Head, targets: Targets, prefixes: Sequence[str]
) -> tuple[Entry, str]:
    """As `adjust`, for a multiclass head: its temperature, and thresholds of its classes."""
    labels = scored.photos.labels[head.name]
    homes = find_homes(scored.photos, (labels != UNLABELLED) & scored.readable, prefixes)
    if not homes:
        return {}, f"left as it was: no home has {MIN_PHOTOS} labelled photos"
    rows = np.concatenate(homes)
    for number, kind in enumerate(head.classes):
        count = int((labels[rows] == number).sum())
        if kind.publish and count < FEWEST_PHOTOS:
            return {}, f"left as it was: {count} photos of {kind.name} in homes, {FEWEST_PHOTOS} are needed"
    fields = class_fields(
        scored.logits(head)[rows],
        labels[rows],
        np.repeat(np.arange(len(homes)), [len(home) for home in homes]),
        {kind.name: kind.publish for kind in head.classes},
        targets.class_precision,
    )
    fields["metrics"]["photos"] = {
        "photos": len(rows),
        "homes": len(homes),
        "target": targets.class_precision,
    }
    published = ", ".join(kind["name"] for kind in fields["classes"] if kind["publish"])
    return fields, f"{len(rows)} photos of {len(homes)} homes; published: {published or 'none'}"
