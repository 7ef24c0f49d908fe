"""The prepared folder: cleaned photos of every task with class and split, as `compare` reads them.

::

    prepared.csv    one row a photo of a task (`COLUMNS`); `path` is relative to the folder
    photos/         the photos, cleaned and resized: photos/<task>/<class>/<name>.jpg
    dropped.csv     what was left out, and why (`DROPPED_COLUMNS`)
    doubtful.png    contact sheet of near-duplicates
    prepared.json   options, classes in order, counts, and the digest of prepared.csv
"""

import csv
import hashlib
import io
import json
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import astuple, dataclass
from pathlib import Path
from typing import Any, Literal

from enrich.errors import UsageError

Split = Literal["train", "val"]
SPLITS: tuple[Split, ...] = ("train", "val")
COLUMNS = ("task", "class", "split", "path", "group", "source", "sha256", "width", "height")
DROPPED_COLUMNS = ("task", "class", "source", "reason", "detail")
TABLE, DROPPED, SUMMARY, SHEET, PHOTOS = (
    "prepared.csv",
    "dropped.csv",
    "prepared.json",
    "doubtful.png",
    "photos",
)

THESIS_CLASSES = {
    "balcony": ("balcony", "indoor"),
    "fireplace": ("fireplace", "no_fireplace"),
    "rooms": ("kitchen", "bathroom", "bedroom"),
}
"""Task -> its classes, in the order of the class indices."""


@dataclass(frozen=True)
class PreparedPhoto:
    """One photo of one task."""

    task: str
    label: str
    """Name of its class (column `class`)."""
    split: Split
    path: str
    """Relative to the prepared folder, with `/`."""
    group: str
    """The home it comes from."""
    source: str
    """Path of the original, relative to the folder that was prepared."""
    sha256: str
    """Of the prepared file."""
    width: int
    height: int


@dataclass(frozen=True)
class Dropped:
    """One photo of one task that was left out."""

    task: str
    label: str
    source: str
    reason: str
    detail: str


@dataclass(frozen=True)
class Prepared:
    """A prepared folder."""

    folder: Path
    photos: tuple[PreparedPhoto, ...]
    classes: dict[str, tuple[str, ...]]
    """Task -> class names in the order of the class indices; tasks in the order they are trained in."""
    digest: str
    """sha256 of prepared.csv, and so of every prepared photo."""
    options: dict[str, Any]
    """What `enrich-train prepare` was asked for."""

    def of(self, task: str, split: Split) -> tuple[PreparedPhoto, ...]:
        """The photos of one side of one task."""
        return tuple(photo for photo in self.photos if photo.task == task and photo.split == split)


def class_order(task: str, names: Iterable[str]) -> tuple[str, ...]:
    """Classes in the order of their indices: the thesis's for its own tasks, else alphabetical."""
    found = sorted(set(names))
    known = THESIS_CLASSES.get(task, ())
    return known if sorted(known) == found else tuple(found)


def task_order(names: Iterable[str]) -> tuple[str, ...]:
    """Tasks in the thesis's order, then others alphabetically."""
    order = list(THESIS_CLASSES)
    return tuple(sorted(set(names), key=lambda name: (order.index(name) if name in order else 99, name)))


def write_tables(
    folder: Path,
    photos: Sequence[PreparedPhoto],
    dropped: Sequence[Dropped],
    options: dict[str, Any],
    remarks: dict[str, Any],
) -> None:
    """Write prepared.csv, dropped.csv and prepared.json beside the photos that are in `folder` already.

    `remarks`: more entries of prepared.json, for people.
    """
    table = _csv(COLUMNS, map(astuple, photos))
    (folder / TABLE).write_bytes(table)
    (folder / DROPPED).write_bytes(_csv(DROPPED_COLUMNS, map(astuple, dropped)))
    classes = _classes(photos)
    counted = Counter((p.task, p.label, p.split) for p in photos)
    reasons = Counter((d.task, d.label, d.reason) for d in dropped)
    summary = {
        "options": options,
        "classes": {task: list(names) for task, names in classes.items()},
        "counts": {
            task: {name: {split: counted[task, name, split] for split in SPLITS} for name in names}
            for task, names in classes.items()
        },
        "dropped": {
            task: {
                name: {r: n for (t, c, r), n in sorted(reasons.items()) if (t, c) == (task, name)}
                for name in names
            }
            for task, names in classes.items()
        },
        "digest": hashlib.sha256(table).hexdigest(),
        **remarks,
    }
    (folder / SUMMARY).write_text(json.dumps(summary, indent=1) + "\n")


def read_prepared(folder: Path) -> Prepared:
    """Read a prepared folder.

    Raises:
        UsageError: it is none, it was changed since, or photos are missing.
    """
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
    rows: Any = csv.DictReader(io.StringIO(table.decode()))
    photos = tuple(
        PreparedPhoto(
            row["task"],
            row["class"],
            row["split"],
            row["path"],
            row["group"],
            row["source"],
            row["sha256"],
            int(row["width"]),
            int(row["height"]),
        )
        for row in rows
    )
    missing = [photo.path for photo in photos if not (folder / photo.path).is_file()]
    if missing:
        raise UsageError(f"{len(missing)} photos of {folder} are missing, the first is {missing[0]}; {again}")
    return Prepared(folder, photos, _classes(photos), digest, options)


def _classes(photos: Sequence[PreparedPhoto]) -> dict[str, tuple[str, ...]]:
    return {
        task: class_order(task, (photo.label for photo in photos if photo.task == task))
        for task in task_order(photo.task for photo in photos)
    }


def _csv(columns: Sequence[str], rows: Iterable[Sequence[object]]) -> bytes:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(columns)
    writer.writerows(rows)
    return text.getvalue().encode()
