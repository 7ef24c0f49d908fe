"""Results folders of `compare`, checked and merged, as the report reads them.

Two runs stand in one row of a table only if they differ in nothing but the seed: `label` names the row. Runs
are compared with each other only if weights, split, photos and all that they learnt by are the same: `peers`
names those runs. Both name the photos only where runs of a task are of several sets of them.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from enrich.errors import UsageError
from training import thesis
from training.compare.plan import Recipe
from training.compare.results import RUN as RUN_FILE
from training.compare.results import SETTINGS, RunKey, read_json, read_results, read_run
from training.models.architectures import WeightSource, own_size
from training.thesis import in_order

RUN = ["task", "architecture", "mode", "seed"]
TIMED = ["device", "threads", "batch", "task", "architecture", "mode", "round"]
WEIGHTS = WeightSource().kind
PRETRAINED, UNSTATED, SCRATCH = KINDS = "pretrained", "weights not stated", "from scratch"


@dataclass(frozen=True)
class Gathered:
    """What several results folders hold in sum.

    `runs` and `epochs` have the columns of `RunRow` and `EpochRow`, with architectures by the thesis's names,
    and `kind` (of the weights), `digest` (of the prepared photos), `split`, `label`, `peers` ("" where
    nothing says it); `runs` has `place` (its folder within RESULTS/runs, or None) and `options` (names and
    values by which it learnt, where they are known), too.
    """

    runs: pd.DataFrame
    epochs: pd.DataFrame
    timings: pd.DataFrame
    settings: dict[str, dict[str, Any]]
    """Results folder, as it was named or the last parts of an absolute path -> its settings.json."""

    def tasks(self) -> list[str]:
        """The tasks that were run, the thesis's first."""
        return in_order(self.runs["task"], thesis.TASKS)


def gather(folders: Sequence[Path]) -> Gathered:
    """Read results folders and merge them. Raises UsageError: no runs or timings there, a column is missing,
    a figure is missing or impossible, or a run is there twice."""
    parts = [_read(folder, _named(folder, folders)) for folder in folders]
    runs = pd.concat([part.runs for part in parts], ignore_index=True)
    timings = pd.concat([part.timings for part in parts], ignore_index=True)
    epochs = pd.concat([part.epochs for part in parts], ignore_index=True)
    if (runs[runs["digest"] != ""].groupby("task")["digest"].nunique() > 1).any():
        for table in (runs, epochs):
            words = ", data set " + table["digest"].str[:8].replace("", "not stated")
            table["label"] += words
            table["peers"] += words
    _refuse_twice(runs, [*RUN, "weights", "epochs", "label"], "run")
    _refuse_twice(timings, TIMED, "timing")
    # Not of all runs: where weights come from is said only where it tells runs apart.
    several = [label for label, own in runs.groupby("label") if own["weights"].nunique() > 1]
    for table in (runs, epochs) if several else ():
        told = table["label"].isin(several) & (table["weights"] != WEIGHTS)
        words = ", weights " + table["weights"].replace("", "not stated")
        table["label"] += words.where(told, "")
        table["peers"] += words.where(told & (table["kind"] == PRETRAINED), "")
    settings = {name: found for part in parts for name, found in part.settings.items()}
    return Gathered(_sorted(runs), epochs, timings, settings)


def of(table: pd.DataFrame, task: str, mode: str) -> pd.DataFrame:
    """The rows of a task in a mode."""
    return table[(table["task"] == task) & (table["mode"] == mode)]


def _sorted(runs: pd.DataFrame) -> pd.DataFrame:
    """By architecture, the thesis's first; of one architecture pretrained ones and many epochs first."""
    order = in_order(runs["architecture"], thesis.ARCHITECTURES)
    ranks = runs.assign(order=runs["architecture"].map(order.index), rank=runs["kind"].map(KINDS.index))
    down = {"order": True, "rank": True, "epochs": False, "split": False, "seed": True}
    ranks = ranks.sort_values(list(down), ascending=list(down.values()), kind="stable", ignore_index=True)
    return ranks.drop(columns=["order", "rank"])


def _named(folder: Path, folders: Sequence[Path]) -> str:
    """As it was named; of an absolute path the last parts, as many as tell it from the others."""
    if not folder.is_absolute():
        return str(folder)
    for last in range(1, len(folder.parts)):
        if all(one.parts[-last:] != folder.parts[-last:] for one in folders if one != folder):
            return str(Path(*folder.parts[-last:]))
    return folder.name


def _read(folder: Path, name: str) -> Gathered:
    if not folder.is_dir():
        raise UsageError(f"{folder} is not a folder: name one that `enrich-train compare` wrote")
    found = read_results(folder)
    if found.runs.empty and found.timings.empty:
        raise UsageError(f"{folder} holds no finished run: let `enrich-train compare` finish one")
    settings = read_json(folder / SETTINGS) if (folder / SETTINGS).is_file() else {}
    runs = _plain(found.runs)
    _check(folder, runs, np.isfinite(runs["seconds"]) & (runs["seconds"] > 0), "seconds", "above 0")
    share = runs["best_val_accuracy"].between(0, 1)
    _check(folder, runs, share, "best_val_accuracy", "a share from 0 to 1")
    _check(folder, runs, runs["mode"].isin(thesis.MODES), "mode", " or ".join(thesis.MODES))
    runs["folder"], dataset = name, settings.get("dataset", {})
    split = str(dataset.get("options", {}).get("split", ""))
    runs["place"] = [_place(folder, run) for run in found.runs.itertuples()]
    own = [read_run(place) if place else {} for place in runs["place"]]
    runs["digest"] = [str(run.get("dataset_digest", "")) for run in own]
    learnt_by = [run.get("hyperparameters", {}) for run in own]
    runs["options"] = [_options(*both) for both in zip(runs.itertuples(), learnt_by, strict=True)]
    runs["departures"] = [_departures(run) for run in runs.itertuples()]
    last = np.where(runs["digest"] == dataset.get("digest", ""), split, "")  # where a run does not say it
    runs["split"] = [str(run.get("split", usual)) for run, usual in zip(own, last, strict=True)]
    runs["kind"] = runs["weights"].map({"": UNSTATED, "none": SCRATCH}).fillna(PRETRAINED)
    runs["label"] = [_label(run) for run in runs.itertuples()]
    runs["peers"] = [_peers(run) for run in runs.itertuples()]
    timings = _plain(found.timings).assign(folder=name)
    seconds = timings["epoch_seconds"]
    _check(folder, timings, np.isfinite(seconds) & (seconds > 0), "epoch_seconds", "above 0")
    told = runs[[*RUN, "weights", "kind", "split", "digest", "label", "peers"]]
    epochs = _plain(found.epochs).merge(told, on=RUN)
    return Gathered(runs, epochs, timings, {name: settings})


def _plain(table: pd.DataFrame) -> pd.DataFrame:
    table = table.assign(architecture=table["architecture"].map(thesis.plain))
    return table.assign(seed=table["seed"].fillna(0)) if "seed" in table else table


def _check(folder: Path, table: pd.DataFrame, fits: pd.Series, column: str, rule: str) -> None:
    """Refuse the first row that does not fit; one without a number does not fit either."""
    wrong = table[~fits.fillna(False).astype(bool)]
    if len(wrong):
        row = wrong.iloc[0]
        value = "nothing" if pd.isna(row[column]) or row[column] == "" else row[column]
        raise UsageError(
            f"{folder}: {row['task']}, {row['architecture']}, {row['mode']} has {value} as {column}, "
            f"which must be {rule}: correct the row, or take it out and run it again"
        )


def _refuse_twice(table: pd.DataFrame, key: list[str], noun: str) -> None:
    again = table.duplicated(key)
    if again.any():
        row = table[again].iloc[0]
        folders = table.loc[(table[RUN[:3]] == row[RUN[:3]]).all(axis=1), "folder"]
        raise UsageError(
            f"the same {noun} twice ({row['task']}, {row['architecture']}, {row['mode']}, in "
            f"{' and '.join(dict.fromkeys(folders))}): give each results folder once, and no copy of it"
        )


def _place(folder: Path, run: Any) -> Path | None:
    """Where the run's own files are, if they are there."""
    seed = 0 if pd.isna(run.seed) else int(run.seed)
    own = folder / "runs" / RunKey(run.task, run.architecture, run.mode, seed).folder
    return own if (own / RUN_FILE).is_file() else None


def _label(run: Any) -> str:
    parts = [thesis.title(run.architecture)]
    if run.kind == SCRATCH:
        parts.append(SCRATCH)
    if not pd.isna(run.epochs) and run.epochs != thesis.EPOCHS:
        parts.append(f"{run.epochs} epochs")
    if run.split not in ("", "thesis"):
        parts.append(f"split by {run.split}")
    return ", ".join(parts + run.departures)


def _options(run: Any, learnt_by: Mapping[str, object]) -> tuple[tuple[str, object], ...]:
    """By which options of `compare` a run learnt, as far as it says so itself: settings.json is of the last
    start alone. Its size is one where it is not the architecture's own."""
    told = [(name, learnt_by[name]) for name in ("batch", "rate", "momentum") if name in learnt_by]
    own = own_size(run.architecture, run.weights)
    asked = own is not None and not pd.isna(run.input_size) and run.input_size != own
    return (*told, *([("input_size", int(run.input_size))] if asked else ()))


def _departures(run: Any) -> list[str]:
    """What of a run was not the protocol's."""
    protocol, options = Recipe(), dict(run.options)
    parts = [] if pd.isna(run.cache_features) else [f"{run.cache_features} fixed draws a photo"]
    for name in ("batch", "rate", "momentum"):
        if (value := options.get(name, usual := getattr(protocol, name))) != usual:
            parts.append(f"{name} {value}")
    if not pd.isna(run.precision) and run.precision not in ("", protocol.precision):
        parts.append(run.precision)
    if size := options.get("input_size"):
        parts.append(f"{size} px")
    return parts


def _peers(run: Any) -> str:
    parts = [run.kind, "epochs not stated" if pd.isna(run.epochs) else f"{run.epochs} epochs"]
    if run.split:
        parts.append("the thesis's split" if run.split == "thesis" else f"split by {run.split}")
    return ", ".join(parts + run.departures)
