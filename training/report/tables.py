"""The thesis's six tables, with its figures beside ours, and training times in relation to each other."""

from dataclasses import dataclass

import pandas as pd

from training import thesis
from training.markdown import table
from training.report.gathered import SCRATCH, Gathered, of
from training.thesis import in_order

NONE = "–"
BASE = "resnet18"
COST = "Finetuning relative to feature extraction:"


def clock(seconds: float) -> str:
    """Seconds as the thesis writes them: `3m37`."""
    whole = round(seconds)
    return f"{whole // 60}m{whole % 60:02d}"


def percent(share: float) -> str:
    """A share of 0 to 1 in percent, as the thesis writes it: `94.63`."""
    return f"{100 * share:.2f}"


def best_models(ours: Gathered) -> str:
    """A table with the most accurate run of each task; of equal ones that which took the least time."""
    rows = []
    for task in ours.tasks():
        runs = ours.runs[ours.runs["task"] == task]
        best = runs.sort_values(["best_val_accuracy", "seconds"], ascending=[False, True]).iloc[0]
        mode, accuracy = thesis.MODES[best["mode"]], percent(best["best_val_accuracy"])
        rows.append([task, best["label"], mode, clock(best["seconds"]), accuracy, len(runs)])
    header = ["task", "model", "mode", "training time", "max. validation accuracy, %", "of runs"]
    return table(header, rows)


def result_table(ours: Gathered, reference: Gathered | None, task: str, mode: str) -> str:
    """Training time and highest validation accuracy of a task in a mode.

    `reference`: the thesis's runs, for the columns beside; None leaves these columns out.
    """
    runs = of(ours.runs, task, mode)
    if runs.empty:
        return "Not run."
    if reference is None:
        rows = [[_title(own), *_figures(own)] for _, own in runs.groupby("label", sort=False)]
        return table(["architecture", "training time", "max. validation accuracy, %"], rows, figures=True)
    theirs = of(reference.runs, task, mode)
    header = ["architecture", "time, thesis", "time, ours", "difference"]
    header += ["accuracy %, thesis", "accuracy %, ours", "difference"]
    lines: list[list[str]] = []
    found = [*runs["architecture"], *theirs["architecture"]]
    for architecture in in_order(found, thesis.ARCHITECTURES):
        their = theirs[theirs["architecture"] == architecture]
        own = runs[runs["architecture"] == architecture]
        for _, row in own.groupby("label", sort=False):
            lines.append(_beside(row, their))
        if not their.empty and not _comparable(own).any():
            time, accuracy = _figures(their)
            lines.append([thesis.title(architecture), time, NONE, NONE, accuracy, NONE, NONE])
    return table(header, lines, figures=True)


def _beside(own: pd.DataFrame, reference: pd.DataFrame) -> list[str]:
    """A row with the differences that can be given.

    Times of another number of epochs, and what is not `_comparable`, are not set off against the thesis's.
    """
    time, accuracy = _figures(own)
    their_time, their_accuracy, time_off, accuracy_off = NONE, NONE, NONE, NONE
    run = own.iloc[0]
    if not reference.empty:
        their_time = _figures(reference)[0]
        same_steps = pd.isna(run["epochs"]) or run["epochs"] == thesis.EPOCHS
        if same_steps and pd.isna(run["cache_features"]):
            off = own["seconds"].mean() - reference["seconds"].mean()
            time_off = ("−" if round(off) < 0 else "+") + clock(abs(off))
        if _comparable(own).all():
            their_accuracy = _figures(reference)[1]
            off = own["best_val_accuracy"].mean() - reference["best_val_accuracy"].mean()
            accuracy_off = f"{round(100 * off, 2) + 0:+.2f}".replace("-", "−")
    return [_title(own), their_time, time, time_off, their_accuracy, accuracy, accuracy_off]


def _comparable(runs: pd.DataFrame) -> pd.Series:
    """Of each run: whether its accuracy can stand beside the thesis's."""
    return (runs["kind"] != SCRATCH) & runs["cache_features"].isna()


def _figures(runs: pd.DataFrame) -> tuple[str, str]:
    return clock(runs["seconds"].mean()), percent(runs["best_val_accuracy"].mean())


def _title(runs: pd.DataFrame) -> str:
    label = str(runs["label"].iloc[0])
    return label if len(runs) == 1 else f"{label}, mean of {len(runs)} seeds"


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


def ratio_table(times: Times, ours: pd.DataFrame, theirs: pd.DataFrame | None) -> str:
    """One of the ratios of `times`; `theirs`: the thesis's, for columns beside."""
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
