"""What a comparison consists of: runs, photos, options, versions and commands; and what is missing in it."""

import shlex
from collections.abc import Sequence
from itertools import chain
from pathlib import PurePath
from typing import Any

import numpy as np
import pandas as pd

from training import thesis
from training.markdown import table
from training.report.confusion import Confusion
from training.report.gathered import Gathered, of
from training.report.tables import NONE
from training.terminal import typed
from training.thesis import in_order

CURVES = "Curves of loss and accuracy (no epochs.csv, or not in it)"
MATRICES = "Confusion matrices (no predictions.csv)"


def option_table(gathered: Gathered) -> str:
    """Options and versions of the results folders beside each other; "" where none says any."""
    options = {name: _flat(settings) for name, settings in gathered.settings.items() if settings}
    keys = dict.fromkeys(chain(*options.values()))
    rows = [[key, *(own.get(key, NONE) for own in options.values())] for key in keys]
    return table(["option", *options], rows) if options else ""


def run_table(runs: pd.DataFrame) -> str:
    """What the runs are of, a row for each that differ in nothing but the seed."""
    header = ["architecture", "tables", "seeds", "epochs", "weights", "input, px", "parameters"]
    header += ["learning in feature extraction", "precision", "device"]
    rows = []
    for label, own in runs.groupby("label", sort=False):
        tables, seeds = len(own.drop_duplicates(["task", "mode"])), own["seed"].nunique()
        frozen = own.loc[own["mode"] == "feature_extraction", "trainable_parameters"]
        told = [own[name] for name in ("epochs", "weights", "input_size", "parameters")]
        told += [frozen, own["precision"], own["device"]]
        rows.append([label, tables, seeds, *map(_distinct, told)])
    return table(header, rows)


def photo_table(gathered: Gathered, found: Sequence[Confusion]) -> str:
    """Photos of each task, for validation by class where predictions tell; "" where no run says them."""
    rows = []
    key = ["task", "digest", "split", "train_photos", "val_photos"]
    for (task, digest, split, train, val), _ in gathered.runs.groupby(key, sort=False):
        one = next((one for one in found if (one.task, one.digest) == (task, digest)), None)
        classes = zip(one.classes, one.counts.sum(axis=1), strict=True) if one else ()
        checked = f" ({', '.join(f'{name} {count}' for name, count in classes)})" if one else ""
        groups = one.groups if one else NONE
        rows.append([task, split or NONE, train, f"{val}{checked}", groups, digest[:8] or NONE])
    if not rows:
        return ""
    header = ["task", "split", "training photos", "validation photos", "validation groups", "data set"]
    return table(header, dict.fromkeys(map(tuple, rows)))


def missing(gathered: Gathered, found: Sequence[Confusion]) -> list[str]:
    """Runs, figures and predictions that a whole comparison would have, a line each."""
    lines = []
    for task in gathered.tasks():
        for mode, name in thesis.MODES.items():
            own = of(gathered.runs, task, mode)
            where = f"{task}, {name}"
            if own.empty:
                lines.append(f"Runs of {where}.")
                continue
            drawn = set(of(gathered.epochs, task, mode)["label"])
            predicted = {one.label for one in found if (one.task, one.mode) == (task, mode)}
            labels = list(dict.fromkeys(own["label"]))
            for there, what in ((drawn, CURVES), (predicted, MATRICES)):
                names = [label for label in labels if label not in there]
                if names:
                    lines.append(f"{what} of {where}: {'all' if names == labels else '; '.join(names)}.")
    lines += [f"Runs of {task}." for task in thesis.TASKS if task not in gathered.tasks()]
    lines += _gaps(gathered.epochs)
    if gathered.timings.empty:
        lines.append("Timings by steps (`compare --timing-steps`): the ratios are of whole runs.")
    return lines


def _gaps(epochs: pd.DataFrame) -> list[str]:
    """Curves with epochs whose figures are missing or not finite."""
    figures = epochs[["train_loss", "train_accuracy", "val_loss", "val_accuracy"]]
    broken = epochs[~np.isfinite(figures.astype(float)).all(axis=1)]
    return [
        f"Figures of {len(own)} epochs of {task}, {thesis.MODES[mode]}, {label}: gaps in its curves."
        for (task, mode, label), own in broken.groupby(["task", "mode", "label"], sort=False)
    ]


def _flat(value: object, name: str = "") -> dict[str, str]:
    """Nested settings under dotted names, without empty ones; of a path on the machine only its last part."""
    if isinstance(value, dict):
        inner = [_flat(below, f"{name}.{key}" if name else str(key)) for key, below in value.items()]
        return {key: text for part in inner for key, text in part.items()}
    text = ", ".join(map(str, value)) if isinstance(value, list) else str(value)
    if value is None or not text:
        return {}
    return {name: PurePath(text).name if text.startswith("/") else text}


def _distinct(values: pd.Series) -> str:
    there = [value for value in values.dropna().unique() if value != ""]
    return " / ".join(str(value) if isinstance(value, str) else f"{value:,}" for value in there) or NONE


def commands(gathered: Gathered) -> str:
    """`prepare` and `compare` of every results folder, a line each; "" where no folder tells enough."""
    lines = []
    for name, settings in gathered.settings.items():
        own = gathered.runs[(gathered.runs["folder"] == name) & gathered.runs["place"].notna()]
        timings = gathered.timings[gathered.timings["folder"] == name]
        if settings:
            prepared = settings.get("dataset", {}).get("options", {})
            prepared = {"task" if name == "tasks" else name: value for name, value in prepared.items()}
            lines.append(typed("prepare PHOTOS --out PREPARED", prepared))
        alike = own.groupby(["weights", "epochs", "precision", "options"], sort=False)
        for (weights, epochs, precision, learnt_by), runs in alike:
            options = _chosen(runs) | settings.get("recipe", {})
            options |= {"epochs": epochs, "precision": precision, "weights": weights}
            options["cache_features"] = sorted(set(runs["cache_features"].dropna()))
            options |= dict(learnt_by)
            lines.append(typed(f"compare PREPARED --out {shlex.quote(name)} --resume", options))
        for (steps, batch), rounds in timings.groupby(["steps", "batch"], sort=False):
            options = {"timing_steps": steps, "rounds": rounds["round"].nunique(), "batch": batch}
            options |= _chosen(rounds)
            lines.append(typed(f"compare PREPARED --out {shlex.quote(name)} --resume", options))
    return "\n".join(dict.fromkeys(lines))


def _chosen(rows: pd.DataFrame) -> dict[str, Any]:
    """Architectures, tasks, modes and seeds of runs or timings."""
    return {
        "architecture": in_order(rows["architecture"], thesis.ARCHITECTURES),
        "task": in_order(rows["task"], thesis.TASKS),
        "mode": in_order(rows["mode"], thesis.MODES),
        "seed": sorted(set(rows["seed"])) if "seed" in rows else [],
    }
