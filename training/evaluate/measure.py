"""Figures of a head's answers: of photos, and of the listings that homes would be.

Shares carry exact (Clopper-Pearson) 95 % intervals. They count photos or homes as they are in the manifest,
unweighted; only `at_prevalence` looks at another mix of homes.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from sklearn.metrics import average_precision_score, precision_recall_curve, roc_auc_score

from enrich.model.head import Head
from training.data.homes import find_homes
from training.data.labels import UNLABELLED
from training.data.photos import PhotoSet
from training.evaluate.scored import Rows, Scored
from training.thresholds.calibrate import Counts, Floats, Share, Truth, rounded
from training.thresholds.rules import PREVALENCES, of_three_rooms

BINS = 10
MAX_COLLECTIONS = 20
"""With more first folders than this (a folder a home), they are no collections to tell apart."""


@dataclass(frozen=True)
class Answers:
    """Scores beside the truth, of photos or of homes; `score` is what thresholds act on."""

    truth: Truth
    score: Floats
    confidence: Floats


@dataclass(frozen=True)
class Measured:
    """A head: its figures for metrics.json, and what the pictures are drawn from."""

    head: Head
    figures: dict[str, Any]
    rows: Rows
    """Photo `i` of the answers of photos is row `rows[i]` of the photo set."""
    answers: dict[str, Answers]
    """Of `photos`, and of the `listings` of a binary head; truth of a multiclass one: whether the most
    probable class is right."""


def measure(scored: Scored, head: Head, prefixes: Sequence[str]) -> Measured:
    """Photo and listing figures of a head; photos without its label take no part in its homes. `prefixes`:
    how paths of whole homes start; none: every group with photos enough is a home."""
    labels = scored.photos.labels[head.name]
    rows = np.flatnonzero((labels != UNLABELLED) & scored.readable)
    homes = find_homes(scored.photos, labels != UNLABELLED, prefixes)
    by_kind = _binary if head.kind == "binary" else _classes
    figures, answers = by_kind(scored, head, rows, homes)
    return Measured(head, {"kind": head.kind, **figures}, rows, answers)


def _binary(
    scored: Scored, head: Head, rows: Rows, homes: list[Rows]
) -> tuple[dict[str, Any], dict[str, Answers]]:
    chance, truth = scored.chances(head)[:, 0], scored.photos.labels[head.name] == 1
    listings, of_homes = _listing_figures(scored, head, homes, truth, chance)
    figures = {
        "photos": _photo_figures(head, truth[rows], chance[rows]),
        "collections": {
            name: _photo_figures(head, truth[part], chance[part])
            for name, part in by_collection(scored.photos, rows)
        },
        "listings": listings,
    }
    return figures, {"photos": Answers(truth[rows], chance[rows], chance[rows]), "listings": of_homes}


def share_of(right: Truth) -> dict[str, Any]:
    """How many are right, with the exact interval."""
    return Share.of(right).as_json()


def _photo_figures(head: Head, truth: Truth, score: Floats) -> dict[str, Any]:
    over, below = score >= head.true_threshold, score < head.false_threshold
    return {
        "photos": len(truth),
        "with": int(truth.sum()),
        "accuracy": share_of(over == truth),
        "accuracy_at_half": share_of((score >= 0.5) == truth),
        **_ranking(truth, score),
        "true_threshold": head.true_threshold,
        "precision": share_of(truth[over]),
        "recall": share_of(over[truth]),
        "false_threshold": head.false_threshold,
        "negative_precision": share_of(~truth[below]),
        "calibration_error": rounded(calibration_error(score, truth)),
    }


def _listing_figures(
    scored: Scored, head: Head, homes: list[Rows], truth: Truth, chance: Floats
) -> tuple[dict[str, Any], Answers]:
    homes = [rows for rows in homes if scored.readable[rows].any()]
    listings = [scored.listing(rows).fields for rows in homes]
    having = np.array([truth[rows].any() for rows in homes], dtype=bool)
    highest = np.array([np.nanmax(chance[rows]) for rows in homes], dtype=np.float64)
    confidence = np.array([one[f"{head.name}_confidence"] for one in listings], dtype=np.float64)
    answers = Answers(having, highest, confidence)
    if not homes:
        return {"homes": 0}, answers
    has = [one[f"has_{head.name}"] for one in listings]
    found = Counts.at(np.array([float(answer is True) for answer in has]), having, 0.5)
    not_ruled_out = Counts.at(np.array([float(answer is not False) for answer in has]), having, 0.5)
    figures: dict[str, Any] = {
        "homes": len(homes),
        "with": int(having.sum()),
        "photos": int(sum(len(rows) for rows in homes)),
        "median_photos": float(np.median([len(rows) for rows in homes])),
        "prevalence": round(float(having.mean()), 3),
        **_ranking(having, highest),
        "confidence": _ranking(having, confidence),
        "outcomes": outcomes(having, has),
        **found.shares(),
        "negative_precision": not_ruled_out.negative_precision.as_json(),
        "at_prevalence": {
            str(prevalence): {
                "precision": rounded(found.precision_at(prevalence)),
                "negative_precision": rounded(not_ruled_out.negative_precision_at(prevalence)),
            }
            for prevalence in PREVALENCES
        },
        "calibration_error": rounded(calibration_error(confidence, having)),
    }
    return figures, answers


def outcomes(having: Truth, answers: Sequence[object]) -> dict[str, dict[str, int]]:
    """Homes by truth and answer; `answers`: the field `has_X` of each home's document."""
    return {
        words: {
            said: sum(answer is value for answer, counts in zip(answers, kind, strict=True) if counts)
            for said, value in (("true", True), ("unknown", None), ("false", False))
        }
        for words, kind in (("with", having), ("without", ~having))
    }


def _ranking(truth: Truth, score: Floats) -> dict[str, Any]:
    """What does not depend on a threshold; None where only one kind is there."""
    if not truth.any() or truth.all():
        return {"roc_auc": None, "average_precision": None, "recall_at_precision_95": None}
    precision, recall, _ = precision_recall_curve(truth, score)
    return {
        "roc_auc": rounded(float(roc_auc_score(truth, score))),
        "average_precision": rounded(float(average_precision_score(truth, score))),
        "recall_at_precision_95": rounded(float(recall[precision >= 0.95].max())),
    }


def reliability(confidence: Floats, right: Truth) -> pd.DataFrame:
    """Bins of a reliability diagram that hold something, of `BINS` of equal width: mean `confidence`, the
    share that is `right`, and how many `answers`; `confidence` in 0..1."""
    place = np.clip((confidence * BINS).astype(np.int64), 0, BINS - 1)
    told = pd.DataFrame({"confidence": confidence, "right": right.astype(np.float64)}).groupby(place)
    return told.mean().assign(answers=told.size())


def calibration_error(confidence: Floats, right: Truth) -> float:
    """The expected one (Naeini et al. 2015): |confidence - share right| of the bins, weighted by answers."""
    bins = reliability(confidence, right)
    gaps = (bins["confidence"] - bins["right"]).abs()
    return float(np.average(gaps, weights=bins["answers"])) if len(bins) else float("nan")


def by_collection(photos: PhotoSet, rows: Rows) -> list[tuple[str, Rows]]:
    """Rows of each collection; none where there is but one, or where first folders are no collections."""
    names = np.unique(photos.collection[rows])
    if not 1 < len(names) <= MAX_COLLECTIONS:
        return []
    return [(str(name), rows[photos.collection[rows] == name]) for name in names]


def _classes(
    scored: Scored, head: Head, rows: Rows, homes: list[Rows]
) -> tuple[dict[str, Any], dict[str, Answers]]:
    truth, chance = scored.photos.labels[head.name][rows], scored.chances(head)[rows]
    answer, highest = chance.argmax(axis=1), chance.max(axis=1)
    right = answer == truth
    three = of_three_rooms(chance, truth, [kind.name for kind in head.classes])
    confusion = np.zeros((head.outputs, head.outputs), dtype=np.int64)
    np.add.at(confusion, (truth, answer), 1)
    figures: dict[str, Any] = {
        "photos": len(rows),
        "accuracy": share_of(right),
        "three_rooms": three.as_json() if three else None,
        "calibration_error": rounded(calibration_error(highest, right)),
        "classes": _class_figures(head, truth, answer, highest),
        "confusion": confusion.tolist(),
        "collections": {
            name: {"photos": len(part), "accuracy": share_of(right[np.isin(rows, part)])}
            for name, part in by_collection(scored.photos, rows)
        },
        "listings": {"homes": len(homes), **named_classes(scored, head, homes)},
    }
    return figures, {"photos": Answers(right, highest, highest)}


def _class_figures(
    head: Head, truth: NDArray[np.int64], answer: NDArray[np.int64], highest: Floats
) -> dict[str, Any]:
    """Each class: where it is the most probable at all, and where it reaches the threshold that it counts
    from."""
    figures = {}
    for number, kind in enumerate(head.classes):
        having, said = truth == number, answer == number
        sure = said & (highest >= kind.threshold)
        figures[kind.name] = {
            "photos": int(having.sum()),
            "recall": share_of(said[having]),
            "precision": share_of(having[said]),
            "publish": kind.publish,
            "threshold": kind.threshold,
            "precision_over_threshold": share_of(having[sure]),
            "recall_over_threshold": share_of(sure[having]),
        }
    return figures


def named_classes(scored: Scored, head: Head, homes: Sequence[Rows]) -> dict[str, Any]:
    """Per published class of a multiclass head: homes that have such a photo against those whose document
    would name it; nothing where there are no homes."""
    answers = [scored.listing(rows).fields[f"{head.name}_types"] or () for rows in homes]
    labels, figures = scored.photos.labels[head.name], {}
    for number, kind in enumerate(head.classes):
        if not kind.publish or not homes:
            continue
        having = np.array([(labels[rows] == number).any() for rows in homes])
        said = np.array([kind.name in answer for answer in answers])
        figures[kind.name] = {
            "homes": int(having.sum()),
            "recall": share_of(said[having]),
            "precision": share_of(having[said]),
        }
    return figures
