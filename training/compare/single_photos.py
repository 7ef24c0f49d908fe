"""From predictions of single validation photos to a head: its temperature, and careful thresholds."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from enrich.errors import UsageError
from training.evaluate.adjust import fit_temperature
from training.thresholds.calibrate import (
    Counts,
    Share,
    calibrate_classes,
    choose_class_threshold,
    choose_true,
)

Entry = dict[str, Any]
PRECISION, PREVALENCE = 0.95, 0.1
"""Of validation photos at the `true` threshold, were a tenth of the photos to show it: a listing has many."""
CLASS_PRECISION = 0.9
LEAST_CERTAIN = 0.9
"""No threshold is lower: a task without a class for the rest calls every photo something, and one validation
photo that happens to come first proves nothing."""
NOTE = (
    "thresholds from single validation photos of the comparison, which also chose the epoch: no claim about "
    "listings; choose them on whole homes with enrich-train evaluate --rethreshold"
)


def pair_of(task: str, classes: Sequence[str]) -> tuple[str, str] | None:
    """The class of a binary head that has it, and the one that lacks it; None: the head is multiclass."""
    if len(classes) != 2 or task not in classes:
        return None
    return task, classes[1 - classes.index(task)]


def fields_of(task: str, classes: Sequence[str], predictions: pd.DataFrame) -> Entry:
    """A head's manifest entry but for its name. `predictions`: truth, and the probabilities `p_<class>`.

    Raises:
        UsageError: a column is missing.
    """
    pair = pair_of(task, classes)
    return _multiclass(classes, predictions) if pair is None else _binary(*pair, predictions)


def _binary(having: str, lacking: str, predictions: pd.DataFrame) -> Entry:
    truth = (predictions["truth"] == having).to_numpy(dtype=bool)
    logits = _log(predictions, having) - _log(predictions, lacking)
    # A network that has learnt its few photos by heart is never too unsure of itself.
    temperature = max(1.0, fit_temperature(logits, truth, np.ones(len(truth))))
    chance = np.exp(-np.logaddexp(0.0, -logits / temperature))
    threshold = max(LEAST_CERTAIN, choose_true(chance, truth, PREVALENCE, PRECISION))
    counts = Counts.at(chance, truth, threshold)
    photos = {
        "photos": len(truth),
        "with": int(truth.sum()),
        "target": PRECISION,
        "prevalence": PREVALENCE,
        "precision": counts.precision.as_json(),
        "recall": counts.recall.as_json(),
    }
    return {
        "kind": "binary",
        "temperature": temperature,
        "thresholds": {"true": threshold, "false": 0.0},
        "aggregation": {"method": "max", "k": 1, "slope": 1.0, "intercept": 0.0},
        "metrics": {"note": NOTE, "photos": photos},
    }


def _multiclass(classes: Sequence[str], predictions: pd.DataFrame) -> Entry:
    logits = np.stack([_log(predictions, kind) for kind in classes], axis=1)
    truth = predictions["truth"].map({kind: number for number, kind in enumerate(classes)}).to_numpy(np.int64)
    temperature = max(1.0, calibrate_classes(logits, truth, np.ones(len(truth))))
    scaled = logits / temperature
    chances = np.exp(scaled - np.logaddexp.reduce(scaled, axis=1, keepdims=True))
    answer = chances.argmax(axis=1)
    entries, figures = [], {}
    for number, kind in enumerate(classes):
        mine = answer == number
        right = truth[mine] == number
        chosen, _ = choose_class_threshold(chances[mine, number], right, CLASS_PRECISION)
        threshold = max(chosen, LEAST_CERTAIN)
        over = right[chances[mine, number] >= threshold]
        entries.append({"name": kind, "publish": bool(over.any()), "threshold": threshold})
        figures[kind] = {
            "precision": Share(int(over.sum()), len(over)).as_json(),
            "recall": Share(int(over.sum()), int((truth == number).sum())).as_json(),
        }
    return {
        "kind": "multiclass",
        "temperature": temperature,
        "classes": entries,
        "metrics": {
            "note": NOTE,
            "photos": {"photos": len(truth), "target": CLASS_PRECISION},
            "classes": figures,
        },
    }


def _log(predictions: pd.DataFrame, kind: str) -> NDArray[np.float64]:
    """Log of the probabilities of a class, which are written with six digits."""
    column = f"p_{kind}"
    if column not in predictions.columns:
        raise UsageError(f"predictions.csv lacks the column {column}; make the run again")
    shares: NDArray[np.float64] = predictions[column].to_numpy(dtype=np.float64)
    return np.log(np.clip(shares, 1e-7, 1.0))
