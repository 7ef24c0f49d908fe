"""The thesis's six tables, with its figures beside ours, and the Markdown that all tables are written in."""

import pandas as pd

from training import thesis
from training.markdown import table
from training.report.gathered import SCRATCH, Gathered, of
from training.thesis import in_order

NONE = "–"


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


def result_tables(ours: Gathered, reference: Gathered | None) -> dict[str, str]:
    """Heading -> table of each task and mode: training time and highest validation accuracy.

    `reference`: the thesis's runs, for the columns beside; None leaves these columns out.
    """
    tables = {}
    for task in ours.tasks():
        for mode, name in thesis.MODES.items():
            runs = of(ours.runs, task, mode)
            theirs = None if reference is None else of(reference.runs, task, mode)
            tables[f"{task.capitalize()}, {name}"] = "Not run." if runs.empty else _table(runs, theirs)
    return tables


def _table(runs: pd.DataFrame, theirs: pd.DataFrame | None) -> str:
    if theirs is None:
        rows = [[_title(own), *_figures(own)] for _, own in runs.groupby("label", sort=False)]
        return table(["architecture", "training time", "max. validation accuracy, %"], rows, figures=True)
    header = ["architecture", "time, thesis", "time, ours", "difference"]
    header += ["accuracy %, thesis", "accuracy %, ours", "difference"]
    lines: list[list[str]] = []
    found = [*runs["architecture"], *theirs["architecture"]]
    for architecture in in_order(found, thesis.ARCHITECTURES):
        reference = theirs[theirs["architecture"] == architecture]
        own = runs[runs["architecture"] == architecture]
        for _, row in own.groupby("label", sort=False):
            lines.append(_beside(row, reference))
        if not reference.empty and not _comparable(own).any():
            time, accuracy = _figures(reference)
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
