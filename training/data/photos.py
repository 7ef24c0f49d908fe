"""The labelled photos: a manifest.csv read, checked, and split by site.

A *group* is one home (or, for data sets of single photos, one photo); a *site* is where several homes may
come from, with one photographer and one style. Everything held out is held out by site, never by photo.
"""

import hashlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import MappingProxyType

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from enrich.errors import UsageError

UNLABELLED = -1
MAX_PIXELS = 100_000_000
"""Of a photo; larger ones are not decoded."""
REQUIRED = ("path", "group", "split")
TAKEN = (*REQUIRED, "balcony", "fireplace", "room", "source", "licence")
"""Columns with a meaning of their own: no name for a head."""
HEAD_NAME = r"[a-z][a-z0-9_]{0,30}"
BINARY_LABELS = {"0": 0, "1": 1, "": UNLABELLED, "0.0": 0, "1.0": 1}
DATASET_GROUPS = 100
"""A source with as many groups is a data set gathered from many places: there the group is the site."""


@dataclass(frozen=True)
class PhotoSet:
    """Labelled photos, one entry a photo in every array.

    `labels` maps a head's name to int labels of shape [n]: 0/1 for a binary head, the class index for a
    multiclass head, `UNLABELLED` where nobody looked.
    """

    folder: Path
    paths: tuple[str, ...]
    sha256: tuple[str, ...]
    group: NDArray[np.str_]
    site: NDArray[np.str_]
    split: NDArray[np.str_]
    collection: NDArray[np.str_]
    """First folder of the path: which collection of photos it comes from."""
    licence: NDArray[np.str_]
    labels: dict[str, NDArray[np.int64]]
    classes: dict[str, tuple[str, ...]]
    """Class names of each multiclass head."""

    def __len__(self) -> int:
        return len(self.paths)

    def of(self, rows: NDArray[np.int64]) -> "PhotoSet":
        """These photos only, in this order."""
        return replace(
            self,
            paths=tuple(self.paths[row] for row in rows),
            sha256=tuple(self.sha256[row] for row in rows),
            group=self.group[rows],
            site=self.site[rows],
            split=self.split[rows],
            collection=self.collection[rows],
            licence=self.licence[rows],
            labels={name: labels[rows] for name, labels in self.labels.items()},
        )

    def within(self, collection: str) -> NDArray[np.bool_]:
        """Which photos are of `collection`; of all collections, where it is empty."""
        return self.collection == collection if collection else np.ones(len(self), dtype=bool)


@dataclass(frozen=True)
class MulticlassColumn:
    """A manifest column that holds class names, and how its values become classes."""

    column: str
    classes: tuple[str, ...]
    merged: dict[str, str]
    """Value in the manifest -> class it counts as."""


ROOM = MulticlassColumn(
    column="room",
    classes=(
        "bathroom",
        "bedroom",
        "kitchen",
        "living_room",
        "dining_room",
        "hallway",
        "exterior",
        "balcony",
        "floor_plan",
        "other",
    ),
    merged={"map": "floor_plan", **dict.fromkeys(("stairs", "office", "pool", "empty_room"), "other")},
)


def load_photos(
    folder: Path,
    binary: Sequence[str] = ("balcony", "fireplace"),
    multiclass: MulticlassColumn = ROOM,
    exclude: Sequence[str] = (),
    more: Mapping[str, Path] = MappingProxyType({}),
    fixes: Path | None = None,
) -> PhotoSet:
    """Read `folder/manifest.csv` and check that every row can be used.

    `exclude` holds path prefixes (`web_catalog`) whose rows are left out. `more`: heads beside those of the
    manifest, by name, each with a CSV file of `path,label`: binary where labels are 1 and 0, else of the
    classes that the labels name. What it does not name is not labelled. `fixes`: a CSV file of corrected
    labels, `path,label,why` with labels such as `balcony=1` (or `balcony=`: cannot be told).

    Raises:
        UsageError: no manifest, missing columns, unknown labels, missing photo files, nothing left.
    """
    manifest = folder / "manifest.csv"
    table = read_manifest(folder)
    needed = (*REQUIRED, *binary, multiclass.column)
    missing = [column for column in needed if column not in table.columns]
    if missing:
        raise UsageError(f"{manifest} lacks the column {', '.join(missing)}; it needs {', '.join(needed)}")
    if fixes:
        table = _fixed(table, fixes, (*binary, multiclass.column))
    if exclude:
        table = table[~table["path"].str.startswith(tuple(exclude))].reset_index(drop=True)
    if table.empty:
        raise UsageError(f"{manifest} holds no photo" + (" outside --exclude" if exclude else ""))
    repeated = table["path"][table["path"].duplicated()]
    if not repeated.empty:
        raise UsageError(f"{manifest} names {repeated.iloc[0]} more than once; keep one row a photo")
    labels = {column: binary_labels(table, column, manifest) for column in binary}
    labels[multiclass.column] = _class_labels(table, multiclass, manifest)
    classes = {multiclass.column: multiclass.classes}
    for name, path in more.items():
        labels[name], named = _labels_beside(table, name, path)
        if named:
            classes[name] = named
    empty = np.full(len(table), "", dtype=object)
    return PhotoSet(
        folder=folder,
        paths=tuple(table["path"]),
        sha256=hash_files(folder, tuple(table["path"])),
        group=table["group"].to_numpy(dtype=str),
        site=sites(table),
        split=table["split"].to_numpy(dtype=str),
        collection=table["path"].str.split("/").str[0].to_numpy(dtype=str),
        licence=np.asarray(table.get("licence", empty), dtype=str),
        labels=labels,
        classes=classes,
    )


def without_rare_classes(photos: PhotoSet, head: str, least: int = 2) -> tuple[PhotoSet, tuple[str, ...]]:
    """The photos without the classes of a multiclass head that training photos of too few sites show, and the
    names of these: they could not be both learnt and held out. Their photos count as not labelled.

    Raises:
        UsageError: fewer than two classes are left.
    """
    labels, names = photos.labels[head], photos.classes[head]
    train = photos.split == "train"
    kept = [
        number
        for number in range(len(names))
        if len(np.unique(photos.site[train & (labels == number)])) >= least
    ]
    if len(kept) < 2:
        raise UsageError(
            f"head {head}: fewer than 2 of its classes have training photos of {least} sites; label more "
            "photos in manifest.csv"
        )
    renumbered = np.full(len(names) + 1, UNLABELLED, dtype=np.int64)  # the last place is UNLABELLED's
    renumbered[kept] = np.arange(len(kept))
    left = replace(
        photos,
        labels={**photos.labels, head: renumbered[labels]},
        classes={**photos.classes, head: tuple(names[number] for number in kept)},
    )
    return left, tuple(name for number, name in enumerate(names) if number not in kept)


def read_manifest(folder: Path) -> pd.DataFrame:
    """The rows of `folder/manifest.csv`, every cell as text.

    Raises:
        UsageError: it is not there, or not readable.
    """
    manifest = folder / "manifest.csv"
    if not manifest.is_file():
        raise UsageError(f"{manifest} is missing: name the folder that holds manifest.csv and the photos")
    return read_table(manifest)


def read_table(path: Path) -> pd.DataFrame:
    """A CSV file, every cell as text.

    Raises:
        UsageError: it is none.
    """
    try:
        return pd.read_csv(path, dtype=str, keep_default_na=False)
    except (pd.errors.ParserError, pd.errors.EmptyDataError, UnicodeDecodeError) as error:
        raise UsageError(f"{path} is not a readable CSV file: {str(error).strip()}") from None


def _fixed(table: pd.DataFrame, fixes: Path, columns: Sequence[str]) -> pd.DataFrame:
    """The manifest with the labels that `fixes` corrects."""
    if not fixes.is_file():
        raise UsageError(f"--label-fixes {fixes}: is missing; it needs the columns path, label, why")
    stated = read_table(fixes)
    if not {"path", "label", "why"} <= set(stated.columns):
        raise UsageError(f"{fixes} needs the columns path, label, why; it has {', '.join(stated.columns)}")
    place = pd.Series(table.index, index=table["path"])
    fixed = table.copy()
    for path, label in zip(stated["path"], stated["label"], strict=True):
        column, equals, value = label.partition("=")
        if path not in place.index:
            raise UsageError(f"{fixes}: {path} is not in manifest.csv; take its row out")
        if not equals or column not in columns:
            raise UsageError(
                f"{fixes}: {path} has the label {label!r}; write COLUMN=LABEL, with one of "
                f"{', '.join(columns)}"
            )
        fixed.loc[place[path], column] = value
    return fixed


def _labels_beside(table: pd.DataFrame, name: str, path: Path) -> tuple[NDArray[np.int64], tuple[str, ...]]:
    """Labels from a file of its own, in the order of the manifest's rows, and the classes that they name, if
    any."""
    if not re.fullmatch(HEAD_NAME, name) or name in TAKEN:
        raise UsageError(
            f"--head {name}: a name is made of a to z, 0 to 9 and _, begins with a letter, and is none of "
            f"{', '.join(TAKEN)}"
        )
    if not path.is_file():
        raise UsageError(f"--head {name}: {path} is missing; it needs the columns path, label")
    stated = read_table(path)
    if not {"path", "label"} <= set(stated.columns):
        raise UsageError(f"{path} needs the columns path, label; it has {', '.join(stated.columns)}")
    unknown = stated.loc[~stated["path"].isin(table["path"]), "path"]
    if not unknown.empty:
        raise UsageError(
            f"{path}: {len(unknown)} photos are not in manifest.csv, the first is {unknown.iloc[0]}; add "
            "them there, or take their rows out"
        )
    repeated = stated["path"][stated["path"].duplicated()]
    if not repeated.empty:
        raise UsageError(f"{path} names {repeated.iloc[0]} more than once; keep one row a photo")
    by_path = stated.set_index("path")["label"]
    ordered = table[["path"]].assign(label=table["path"].map(by_path).fillna(""))
    classes = tuple(sorted(set(stated["label"]) - BINARY_LABELS.keys()))
    if len(classes) < 2 or len(classes) < len(set(stated["label"]) - {""}):
        return binary_labels(ordered, "label", path), ()
    if wrong := [one for one in classes if not re.fullmatch(HEAD_NAME, one)]:
        raise UsageError(
            f"{path}: a class cannot be called {wrong[0]!r}; its name is made of a to z, 0 to 9 and _, and "
            "begins with a letter"
        )
    return _class_labels(ordered, MulticlassColumn("label", classes, {}), path), classes


def binary_labels(table: pd.DataFrame, column: str, manifest: Path) -> NDArray[np.int64]:
    """Labels [rows] of a column of 1, 0 or nothing.

    Raises:
        UsageError: it holds anything else.
    """
    wrong = table.loc[~table[column].isin(list(BINARY_LABELS)), ["path", column]]
    if not wrong.empty:
        path, value = wrong.iloc[0]
        raise UsageError(
            f"{manifest}: {column} of {path} is {value!r}; write 1, 0, or nothing for not labelled"
        )
    return np.asarray(table[column].map(BINARY_LABELS), dtype=np.int64)


def _class_labels(table: pd.DataFrame, head: MulticlassColumn, manifest: Path) -> NDArray[np.int64]:
    values = table[head.column].replace(head.merged)
    wrong = table.loc[~values.isin(["", *head.classes]), ["path", head.column]]
    if not wrong.empty:
        path, value = wrong.iloc[0]
        known = ", ".join((*head.classes, *head.merged))
        raise UsageError(f"{manifest}: {head.column} of {path} is {value!r}; known are {known}, or nothing")
    index = {name: number for number, name in enumerate(head.classes)} | {"": UNLABELLED}
    return np.asarray(values.map(index), dtype=np.int64)


def sites(table: pd.DataFrame) -> NDArray[np.str_]:
    """The site of each row of a manifest."""
    if "source" not in table.columns:
        return np.asarray(table["group"], dtype=str)
    groups = table["source"].map(table.groupby("source")["group"].nunique())
    own_site = (table["source"] != "") & (groups < DATASET_GROUPS)
    return np.asarray(table["source"].where(own_site, table["group"]), dtype=str)


def hash_files(folder: Path, paths: tuple[str, ...]) -> tuple[str, ...]:
    """sha256 of every photo file.

    Raises:
        UsageError: files are missing.
    """
    missing = [path for path in paths if not (folder / path).is_file()]
    if missing:
        raise UsageError(
            f"{len(missing)} photos of {folder / 'manifest.csv'} are not there, the first is {missing[0]}; "
            "take their rows out or put the files back"
        )
    return tuple(hashlib.sha256((folder / path).read_bytes()).hexdigest() for path in paths)
