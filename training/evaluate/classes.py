"""Figures of a multiclass head's answers: of photos, and of the listings that homes would be."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from enrich.model.head import Head
from training.data.homes import find_homes
from training.data.labels import UNLABELLED
from training.evaluate.measure import Answers, by_collection, calibration_error, share_of
from training.evaluate.scored import Rows, Scored
from training.thresholds.calibrate import Floats, rounded
from training.thresholds.classes import of_three_rooms


@dataclass(frozen=True)
class ClassesMeasured:
    """A multiclass head; `confusion[truth, answer]` counts photos."""

    head: Head
    figures: dict[str, Any]
    confusion: NDArray[np.int64]
    photos: Answers
    """Truth: whether the most probable class is right."""


def measure_classes(scored: Scored, head: Head, prefixes: Sequence[str]) -> ClassesMeasured:
    """Photo and listing figures of a multiclass head."""
    photos, labels = scored.photos, scored.photos.labels[head.name]
    rows = np.flatnonzero((labels != UNLABELLED) & scored.readable)
    truth, chance = labels[rows], scored.chances(head)[rows]
    answer, highest = chance.argmax(axis=1), chance.max(axis=1)
    right = answer == truth
    three = of_three_rooms(chance, truth, [kind.name for kind in head.classes])
    confusion = np.zeros((head.outputs, head.outputs), dtype=np.int64)
    np.add.at(confusion, (truth, answer), 1)
    homes = find_homes(photos, labels != UNLABELLED, prefixes)
    figures: dict[str, Any] = {
        "kind": "multiclass",
        "photos": len(rows),
        "accuracy": share_of(right),
        "three_rooms": three.as_json() if three else None,
        "calibration_error": rounded(calibration_error(highest, right)),
        "classes": _class_figures(head, truth, answer, highest),
        "confusion": confusion.tolist(),
        "collections": {
            name: {"photos": len(part), "accuracy": share_of(right[np.isin(rows, part)])}
            for name, part in by_collection(photos, rows)
        },
        "listings": {"homes": len(homes), **named_classes(scored, head, homes)},
    }
    return ClassesMeasured(head, figures, confusion, Answers(right, highest, highest))


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
