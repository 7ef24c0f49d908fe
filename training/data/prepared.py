"""The prepared folder: cleaned photos of every task with class and split, as `compare` reads them.

::

    prepared.csv    one row a photo of a task (`COLUMNS`)
    photos/         the photos, cleaned and resized: photos/<task>/<class>/<name>.jpg
    dropped.csv     what was left out, and why (`DROPPED_COLUMNS`)
    doubtful.png    contact sheet of near-duplicates
    prepared.json   options, classes in order, counts, and the digest of prepared.csv
"""

import hashlib
import io
import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import pandas as pd

from enrich.errors import UsageError
from training import thesis
from training.thesis import in_order

Split = Literal["train", "val"]
SPLITS: tuple[Split, ...] = ("train", "val")
COLUMNS = ("task", "class", "split", "path", "group", "source", "sha256", "width", "height")
"""`path`: relative to the prepared folder, with `/`; `group`: the home; `source`: path of the original,
relative to the folder that was prepared; `sha256`: of the prepared file."""
DROPPED_COLUMNS = ("task", "class", "source", "reason", "detail")
TABLE, DROPPED, SUMMARY = "prepared.csv", "dropped.csv", "prepared.json"
SHEET, PHOTOS = "doubtful.png", "photos"


@dataclass(frozen=True)
class Prepared:
    """A prepared folder."""

    folder: Path
    photos: pd.DataFrame
    """A row a photo of a task: `COLUMNS`, of which `class` is called `label`."""
    classes: dict[str, tuple[str, ...]]
    """Task -> class names in the order of the class indices; tasks in the order they are trained in."""
    digest: str
    """sha256 of prepared.csv, and so of every prepared photo."""
    options: dict[str, Any]
    """What `enrich-train prepare` was asked for."""

    def of(self, task: str, split: Split) -> pd.DataFrame:
        """The photos of one side of one task."""
        return self.photos[(self.photos["task"] == task) & (self.photos["split"] == split)]


def class_order(task: str, names: Iterable[str]) -> tuple[str, ...]:
    """Classes in the order of their indices: the thesis's for its own tasks, else alphabetical."""
    found = sorted(set(names))
    known = tuple(thesis.SIZES.get(task, ()))
    return known if sorted(known) == found else tuple(found)


def counted(table: pd.DataFrame) -> pd.DataFrame:
    """Photos of each task and class (rows, in order) by what became of them (columns): the split, or the
    reason why they were left out."""
    verdict = table["split"].where(table["reason"] == "", table["reason"])
    counts = pd.crosstab([table["task"], table["label"]], verdict)
    reasons = [name for name in counts.columns if name not in SPLITS]
    order = pd.MultiIndex.from_frame(table[["task", "label"]].drop_duplicates())
    return counts.reindex(index=order, columns=[*SPLITS, *reasons], fill_value=0)


def write_tables(folder: Path, table: pd.DataFrame, options: dict[str, Any], remarks: dict[str, Any]) -> None:
    """Write prepared.csv, dropped.csv and prepared.json beside the photos that are in `folder` already.

    `table`: a row a photo of a task, with the columns of `Prepared.photos`, and `reason` and `detail` why it
    was left out, empty where it was not. `remarks`: more entries of prepared.json, for people.
    """
    named = table.rename(columns={"label": "class"})
    kept = table["reason"] == ""
    prepared = _csv(named.loc[kept, list(COLUMNS)])
    (folder / TABLE).write_bytes(prepared)
    (folder / DROPPED).write_bytes(_csv(named.loc[~kept, list(DROPPED_COLUMNS)]))
    summary: dict[str, Any] = {"options": options, "classes": {}, "counts": {}, "dropped": {}}
    counts = counted(table)
    for task in in_order(table["task"], thesis.TASKS):
        names = list(class_order(task, counts.loc[task].index))
        of_task = counts.loc[task].loc[names]
        summary["classes"][task] = names
        summary["counts"][task] = of_task[list(SPLITS)].to_dict("index")
        summary["dropped"][task] = {
            name: {why: n for why, n in reasons.items() if n}
            for name, reasons in of_task.drop(columns=list(SPLITS)).to_dict("index").items()
        }
    summary["digest"] = hashlib.sha256(prepared).hexdigest()
    (folder / SUMMARY).write_text(json.dumps(summary | remarks, indent=1) + "\n")


def read_prepared(folder: Path) -> Prepared:
    """Read a prepared folder; a UsageError where it is none, was changed since, or lacks photos."""
    again = "make it again with enrich-train prepare"
    if not (folder / TABLE).is_file() or not (folder / SUMMARY).is_file():
        raise UsageError(f"{folder} is not a prepared folder: make one with enrich-train prepare")
    table = (folder / TABLE).read_bytes()
    digest = hashlib.sha256(table).hexdigest()
    try:
        summary = json.loads((folder / SUMMARY).read_text())
        stated, options = summary["digest"], summary["options"]
    except (ValueError, KeyError, TypeError):
        raise UsageError(f"{folder / SUMMARY} is damaged; {again}") from None
    if stated != digest:
        raise UsageError(f"{folder / TABLE} was changed after it was made; {again}")
    types = dict.fromkeys(COLUMNS, str) | {"width": "int64", "height": "int64"}
    rows = pd.read_csv(io.BytesIO(table), dtype=types, keep_default_na=False, lineterminator="\n")
    photos = rows[list(COLUMNS)].rename(columns={"class": "label"})
    missing = [path for path in photos["path"] if not (folder / path).is_file()]
    if missing:
        raise UsageError(f"{len(missing)} photos of {folder} are missing, the first is {missing[0]}; {again}")
    tasks = in_order(photos["task"], thesis.TASKS)
    classes = {task: class_order(task, photos.loc[photos["task"] == task, "label"]) for task in tasks}
    return Prepared(folder, photos, classes, digest, options)


def _csv(table: pd.DataFrame) -> bytes:
    return str(table.to_csv(index=False, lineterminator="\n")).encode()
