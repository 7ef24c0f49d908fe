"""What the networks confuse: confusion matrices and per-class accuracy, from the runs' predictions."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.metrics import confusion_matrix

from enrich.errors import UsageError
from training import thesis
from training.compare.results import PREDICTIONS, read_predictions
from training.markdown import table
from training.report.gathered import Gathered
from training.report.tables import NONE
from training.thresholds.calibrate import Share


@dataclass(frozen=True)
class Confusion:
    """Validation photos of one run at its best epoch."""

    task: str
    mode: str
    label: str
    kind: str
    digest: str
    """Of the prepared photos."""
    classes: tuple[str, ...]
    counts: NDArray[np.int64]
    """[classes, classes]: rows are the truth, columns what was predicted."""
    groups: int
    """Homes that the photos come from."""

    @property
    def of_classes(self) -> list[Share]:
        """Of each class, the photos that were recognised."""
        return [Share(int(row[n]), int(row.sum())) for n, row in enumerate(self.counts)]

    @property
    def overall(self) -> Share:
        return Share(int(self.counts.trace()), int(self.counts.sum()))


def confusions(gathered: Gathered) -> list[Confusion]:
    """Of every run that left predictions; of runs that differ in nothing but the seed, the first. Raises
    UsageError: predictions of a class that is none."""
    first = gathered.runs.drop_duplicates(["task", "mode", "label"])
    return [_read(run) for run in first.itertuples() if run.place and (run.place / PREDICTIONS).is_file()]


def class_tables(found: Sequence[Confusion]) -> Iterator[tuple[str, str]]:
    """Headings and tables of each task and mode: the accuracy of each class and of all photos."""
    cells: dict[tuple[str, str, tuple[str, ...]], list[list[str]]] = {}
    tasks, modes = list(dict.fromkeys(one.task for one in found)), list(thesis.MODES)
    for one in sorted(found, key=lambda one: (tasks.index(one.task), modes.index(one.mode))):
        row = [one.label, *map(_cell, one.of_classes), _cell(one.overall)]
        cells.setdefault((one.task, one.mode, one.classes), []).append(row)
    for (task, mode, classes), rows in cells.items():
        heading = f"{task.capitalize()}, {thesis.MODES[mode]}:"
        yield heading, table(["architecture", *classes, "all"], rows, figures=True)


def _read(run: Any) -> Confusion:
    table = read_predictions(run.place)
    classes = tuple(name.removeprefix("p_") for name in table.columns if name.startswith("p_"))
    unknown = sorted((set(table["truth"]) | set(table["predicted"])) - set(classes))
    if unknown:
        raise UsageError(
            f"{run.place / PREDICTIONS} names {unknown[0]}, but its classes are {', '.join(classes)}: "
            "make the run again"
        )
    counts = confusion_matrix(table["truth"], table["predicted"], labels=list(classes))
    groups = table["group"].nunique()
    return Confusion(run.task, run.mode, run.label, run.kind, run.digest, classes, counts, groups)


def _cell(share: Share) -> str:
    if not share.total:
        return NONE
    low, high = share.interval
    return f"{100 * share.value:.1f} % ({share.hits} of {share.total}) [{100 * low:.1f}, {100 * high:.1f}]"
