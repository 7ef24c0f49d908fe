"""Training times in relation to each other: between architectures, and between the two modes."""

from dataclasses import dataclass

import pandas as pd

from training import thesis
from training.markdown import table
from training.report.gathered import Gathered, in_order
from training.report.tables import NONE

BASE = "resnet18"
Cell = tuple[str, str, str]
"""Task, architecture, mode."""


@dataclass(frozen=True)
class Ratio:
    """Median of the rounds, with the lowest and the highest."""

    median: float
    low: float
    high: float

    def __str__(self) -> str:
        spread = f" ({self.low:.2f}–{self.high:.2f})" if self.low < self.high else ""
        return f"{self.median:.2f}{spread}"


@dataclass(frozen=True)
class Times:
    """Times that may be compared: measured in one way on one device.

    `table`: task, architecture, mode, round, seconds; ratios are taken within a round.
    """

    source: str
    table: pd.DataFrame
    of_epochs: bool
    """Seconds of one epoch, measured in steps; else of a whole run."""

    def ratio(self, cell: Cell, base: Cell) -> Ratio | None:
        """How many times as long `cell` takes as `base`; None where they share no round."""
        rounds = (self._rounds(cell) / self._rounds(base)).dropna()
        if rounds.empty:
            return None
        return Ratio(float(rounds.median()), float(rounds.min()), float(rounds.max()))

    def tasks(self) -> list[str]:
        return in_order(self.table["task"], thesis.TASKS)

    def architectures(self) -> list[str]:
        return in_order(self.table["architecture"], thesis.ARCHITECTURES)

    def costs(self) -> dict[tuple[str, str], Ratio]:
        """(task, architecture) -> finetuning's time by that of feature extraction, where both are there."""
        found = {}
        for task in self.tasks():
            for architecture in self.architectures():
                tuned, frozen = (task, architecture, "finetuning"), (task, architecture, "feature_extraction")
                ratio = self.ratio(tuned, frozen)
                if ratio is not None:
                    found[task, architecture] = ratio
        return found

    def medians(self) -> dict[Cell, float]:
        """Median seconds of each cell."""
        cells = self.table.groupby(["task", "architecture", "mode"])["seconds"].median()
        return {(str(t), str(a), str(m)): float(seconds) for (t, a, m), seconds in cells.items()}

    def _rounds(self, cell: Cell) -> pd.Series:
        task, architecture, mode = cell
        own = self.table[
            (self.table["task"] == task)
            & (self.table["architecture"] == architecture)
            & (self.table["mode"] == mode)
        ]
        return own.set_index("round")["seconds"]


def times_of(gathered: Gathered) -> list[Times]:
    """The times by `compare --timing-steps` where there are any, else those of the runs themselves."""
    if not gathered.timings.empty:
        measured = gathered.timings.assign(seconds=gathered.timings["epoch_seconds"])
        return [
            Times(f"measured by timing steps on {_with(device, threads)}, batch {batch}", table, True)
            for (device, threads, batch), table in measured.groupby(
                ["device", "threads", "batch"], sort=False
            )
        ]
    runs = gathered.runs.assign(round=gathered.runs["seed"], device=gathered.runs["device"].map(_named))
    return [
        Times(f"whole runs ({peers}) on {device}{f', {precision}' if precision else ''}", table, False)
        for (peers, device, precision), table in runs.groupby(["peers", "device", "precision"], sort=False)
    ]


def epoch_table(times: Times) -> str:
    """Seconds of an epoch of every task and mode: the median of the rounds."""
    medians, modes = times.medians(), {"feature_extraction": "FE", "finetuning": "FT"}
    rows = []
    for architecture in times.architectures():
        cells = [medians.get((task, architecture, mode)) for task in times.tasks() for mode in modes]
        rows.append([thesis.title(architecture), *(NONE if s is None else f"{s:.1f}" for s in cells)])
    header = [f"{task} {short}" for task in times.tasks() for short in modes.values()]
    return table(["architecture", *header], rows, figures=True)


def ratio_tables(times: Times, reference: Times | None) -> str:
    """A table between architectures for each mode, and one between the modes; `reference`: the thesis's."""
    parts = []
    for mode, name in thesis.MODES.items():
        parts.append(f"Relative to ResNet-18, {name}:")
        pairs = {
            (task, architecture): ((task, architecture, mode), (task, BASE, mode))
            for task in times.tasks()
            for architecture in times.architectures()
        }
        parts.append(_table(times, reference, pairs))
    parts.append("Finetuning relative to feature extraction:")
    pairs = {
        (task, architecture): ((task, architecture, "finetuning"), (task, architecture, "feature_extraction"))
        for task in times.tasks()
        for architecture in times.architectures()
    }
    parts.append(_table(times, reference, pairs))
    return "\n\n".join(parts)


def _table(times: Times, reference: Times | None, pairs: dict[tuple[str, str], tuple[Cell, Cell]]) -> str:
    rows = []
    for architecture in times.architectures():
        own = {task: times.ratio(*pairs[task, architecture]) for task in times.tasks()}
        if not any(own.values()):
            continue
        row = [thesis.title(architecture)]
        for task, ratio in own.items():
            if reference is not None:
                row.append(_or_none(reference.ratio(*pairs[task, architecture])))
            row.append(_or_none(ratio))
        rows.append(row)
    if not rows:
        return "Cannot be given: one side of every pair was not run."
    header = ["architecture"]
    for task in times.tasks():
        header += [task] if reference is None else [f"{task}, thesis", f"{task}, ours"]
    return table(header, rows, figures=True)


def _or_none(ratio: Ratio | None) -> str:
    return NONE if ratio is None else str(ratio)


def _with(device: str, threads: int) -> str:
    """A device with the threads it was fed by; the name of a CPU says them itself."""
    return _named(device) if "threads" in device else f"{_named(device)}, {threads} threads"


def _named(device: object) -> str:
    return str(device) if isinstance(device, str) and device else "a device not stated"
