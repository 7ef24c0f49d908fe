"""From what single validation photos come out as to a head: its temperature, and careful thresholds."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from enrich.model.binary import Binary
from enrich.model.multiclass import Multiclass
from training.thresholds.calibrate import Counts, Floats, calibrate_classes, choose_classes, fit_temperature
from training.thresholds.rules import Entry

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


def fields_of(classes: Sequence[str], logits: Floats, truth: NDArray[np.int64]) -> Entry:
    """A head's manifest entry but for its name. `logits` [photos, outputs]: one output of a binary head, or
    one a class; `truth` [photos]: 1 where a photo shows it, or numbers of `classes`."""
    return _binary(logits[:, 0], truth == 1) if logits.shape[1] == 1 else _multiclass(classes, logits, truth)


def _binary(logits: Floats, truth: NDArray[np.bool_]) -> Entry:
    # A network that has learnt its few photos by heart is never too unsure of itself.
    temperature = max(1.0, fit_temperature(logits, truth, np.ones(len(truth))))
    chance = Binary().chances(logits / temperature)  # as serving has them
    threshold = max(LEAST_CERTAIN, _lowest(chance, truth))
    counts = Counts.at(chance, truth, threshold)
    photos = {
        "photos": len(truth),
        "with": int(truth.sum()),
        "target": PRECISION,
        "prevalence": PREVALENCE,
        **counts.shares(),
    }
    return {
        "kind": "binary",
        "temperature": temperature,
        "thresholds": {"true": threshold, "false": 0.0},
        "aggregation": {"method": "max", "k": 1, "slope": 1.0, "intercept": 0.0},
        "metrics": {"note": NOTE, "photos": photos},
    }


def _lowest(chance: Floats, truth: NDArray[np.bool_]) -> float:
    """Lowest threshold at which photos have the precision, both as counted and at `PREVALENCE`; 1.0 if there
    is none. Counted, not by a curve: these photos are told too well for one, since the epoch was chosen on
    them."""

    def reached(threshold: float) -> bool:
        counts = Counts.at(chance, truth, threshold)
        return counts.precision.value >= PRECISION and counts.precision_at(PREVALENCE) >= PRECISION

    return next((float(one) for one in np.unique(chance) if reached(one)), 1.0)


def _multiclass(classes: Sequence[str], logits: Floats, truth: NDArray[np.int64]) -> Entry:
    temperature = max(1.0, calibrate_classes(logits, truth, np.ones(len(truth))))
    chances = Multiclass().chances(logits / temperature)
    chosen = choose_classes(chances, truth, CLASS_PRECISION, LEAST_CERTAIN)
    return {
        "kind": "multiclass",
        "temperature": temperature,
        "classes": [
            {"name": kind, "publish": counts.tp > 0, "threshold": threshold}
            for kind, (threshold, counts) in zip(classes, chosen, strict=True)
        ],
        "metrics": {
            "note": NOTE,
            "photos": {"photos": len(truth), "target": CLASS_PRECISION},
            "classes": {kind: counts.shares() for kind, (_, counts) in zip(classes, chosen, strict=True)},
        },
    }
