"""Training times in relation to each other: between architectures, and between the two modes."""

from dataclasses import dataclass

import pandas as pd

from training import thesis
from training.markdown import table
from training.report.gathered import Gathered
from training.report.tables import NONE
from training.thesis import in_order

BASE = "resnet18"
COST = "Finetuning relative to feature extraction:"


@dataclass(frozen=True)
class Times:
    """Times that may be compared: measured in one way on one device.

    `table`: task, architecture, mode, round, seconds; ratios are taken within a round.
    """

    source: str
    table: pd.DataFrame
    of_epochs: bool
    """Seconds of one epoch, measured in steps; else of a whole run."""

    def tasks(self) -> list[str]:
        """The tasks that were timed, the thesis's first."""
        return in_order(self.table["task"], thesis.TASKS)

    def medians(self) -> pd.Series:
        """(task, mode, architecture) -> median seconds of the rounds."""
        return self.table.groupby(["task", "mode", "architecture"])["seconds"].median()

    def ratios(self) -> dict[str, pd.DataFrame]:
        """What is divided by what -> `median`, `min` and `max` of the rounds, by task and architecture."""
        seconds = self.table.groupby(["task", "round", "architecture", "mode"])["seconds"].mean()
        by_mode = seconds.unstack("mode").reindex(columns=list(thesis.MODES))
        relative = {}
        for mode, name in thesis.MODES.items():
            cells = by_mode[mode].unstack("architecture")
            base = cells.get(BASE, pd.Series(float("nan"), cells.index))
            relative[f"Relative to ResNet-18, {name}:"] = cells.div(base, axis="index").stack()
        relative[COST] = by_mode["finetuning"] / by_mode["feature_extraction"]
        return {
            title: rounds.dropna().groupby(["task", "architecture"]).agg(["median", "min", "max"])
            for title, rounds in relative.items()
        }


def times_of(gathered: Gathered) -> list[Times]:
    """The times by `compare --timing-steps` where there are any, else those of the runs themselves."""
    if not gathered.timings.empty:
        measured = gathered.timings.assign(seconds=gathered.timings["epoch_seconds"])
        groups = measured.groupby(["device", "threads", "batch"], sort=False)
        found = []
        for (device, threads, batch), table in groups:
            fed = "" if "threads" in device else f", {threads} threads"  # a CPU's name says them itself
            source = f"measured by timing steps on {_named(device)}{fed}, batch {batch}"
            found.append(Times(source, table, True))
        return found
    runs = gathered.runs.assign(round=gathered.runs["seed"], device=gathered.runs["device"].map(_named))
    return [
        Times(f"whole runs ({peers}) on {device}{f', {precision}' if precision else ''}", table, False)
        for (peers, device, precision), table in runs.groupby(["peers", "device", "precision"], sort=False)
    ]


def epoch_table(times: Times) -> str:
    """Seconds of an epoch of every task and mode: the median of the rounds."""
    medians, modes = times.medians().map("{:.1f}".format), {"feature_extraction": "FE", "finetuning": "FT"}
    cells = [(task, mode) for task in times.tasks() for mode in modes]
    rows = [
        [thesis.title(name), *(medians.get((*cell, name), NONE) for cell in cells)]
        for name in in_order(times.table["architecture"], thesis.ARCHITECTURES)
    ]
    return table(["architecture", *(f"{task} {modes[mode]}" for task, mode in cells)], rows, figures=True)


def ratio_tables(times: Times, reference: Times | None) -> dict[str, str]:
    """What is divided by what -> a table; `reference`: the thesis's times, for columns beside."""
    theirs = reference.ratios() if reference else {}
    return {title: _table(times, ours, theirs.get(title)) for title, ours in times.ratios().items()}


def _table(times: Times, ours: pd.DataFrame, theirs: pd.DataFrame | None) -> str:
    if ours.empty:
        return "Cannot be given: one side of every pair was not run."
    beside = {"ours": ours} if theirs is None else {"thesis": theirs, "ours": ours}
    header = [
        f"{task}, {whose}" if theirs is not None else task for task in times.tasks() for whose in beside
    ]
    rows = [
        [thesis.title(name), *(_ratio(own, task, name) for task in times.tasks() for own in beside.values())]
        for name in in_order(ours.index.get_level_values("architecture"), thesis.ARCHITECTURES)
    ]
    return table(["architecture", *header], rows, figures=True)


def _ratio(ratios: pd.DataFrame, task: str, architecture: str) -> str:
    if (task, architecture) not in ratios.index:
        return NONE
    median, low, high = ratios.loc[(task, architecture)]
    return f"{median:.2f}" + (f" ({low:.2f}–{high:.2f})" if low < high else "")


def _named(device: object) -> str:
    return str(device) if isinstance(device, str) and device else "a device not stated"
