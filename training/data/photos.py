"""The labelled photos: a manifest.csv read, checked, and split by site.

A *group* is one home (or, for data sets of single photos, one photo); a *site* is where several homes may
come from, with one photographer and one style. Everything held out is held out by site, never by photo.
"""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import MappingProxyType

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from enrich.errors import UsageError
from training.data.labels import (
    BINARY,
    BINARY_LABELS,
    MERGED_ROOMS,
    REQUIRED,
    ROOM,
    ROOMS,
    UNLABELLED,
    classes_named,
    labels_of,
    numbered,
    read_table,
    refuse_repeated,
    with_files,
    with_fixes,
)

MAX_PIXELS = 100_000_000
"""Of a photo; larger ones are not decoded."""
NO_FOLDER = "(no folder)"
"""The collection of photos that lie beside the manifest."""
DATASET_GROUPS = 100
"""A source with as many groups is a data set gathered from many places: there the group is the site."""
SHARED_GROUPS = 5
"""A file that more groups have is no photo of a home that was listed again, but a logo, say."""


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
    """First folder of the path: which collection of photos it comes from, or `NO_FOLDER`."""
    licence: NDArray[np.str_]
    labels: dict[str, NDArray[np.int64]]
    classes: dict[str, tuple[str, ...]]
    """Class names of each multiclass head."""

    def __len__(self) -> int:
        return len(self.paths)

    @property
    def digest(self) -> str:
        """Names these photos, in any order."""
        return hashlib.sha256("\n".join(sorted(set(self.sha256))).encode()).hexdigest()

    def of(self, rows: NDArray[np.int64]) -> "PhotoSet":
        """These photos only, in this order."""
        arrays = ("group", "site", "split", "collection", "licence")
        return replace(
            self,
            paths=tuple(self.paths[row] for row in rows),
            sha256=tuple(self.sha256[row] for row in rows),
            labels={name: labels[rows] for name, labels in self.labels.items()},
            **{name: getattr(self, name)[rows] for name in arrays},
        )

    def learnable(self, head: str) -> NDArray[np.int64]:
        """Rows of the photos that may train and are labelled for the head."""
        return np.flatnonzero((self.split == "train") & (self.labels[head] != UNLABELLED))

    def sites(self, head: str) -> list[int]:
        """From how many sites the training photos of each class are, or those without and with it."""
        rows = self.learnable(head)
        labels, site = self.labels[head][rows], self.site[rows]
        return [len(np.unique(site[labels == n])) for n in range(len(self.classes.get(head, "01")))]

    def within(self, collection: str) -> NDArray[np.bool_]:
        """Which photos are of `collection`; of all collections, where it is empty."""
        return self.collection == collection if collection else np.ones(len(self), dtype=bool)


def load_photos(
    folder: Path,
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
    table = with_files(read_manifest(folder, (*REQUIRED, *BINARY, ROOM)), more)
    columns = {**dict.fromkeys(BINARY, BINARY_LABELS), ROOM: numbered(ROOMS, MERGED_ROOMS)}
    if fixes:
        table = with_fixes(table, fixes, columns)
    table = chosen_rows(table, manifest, exclude)
    labels = {
        column: labels_of(table, column, f"{manifest}: {column}", index) for column, index in columns.items()
    }
    classes: dict[str, tuple[str, ...]] = {ROOM: ROOMS}
    for name, file in more.items():
        if named := classes_named(table[name], file):
            classes[name] = named
        index = numbered(named) if named else BINARY_LABELS
        labels[name] = labels_of(table, name, f"{file}: label", index)
    return photo_set(folder, table, labels, classes)


def without_rare_classes(photos: PhotoSet, head: str) -> tuple[PhotoSet, tuple[str, ...]]:
    """The photos without the classes of a multiclass head that training photos of one site show, or none, and
    the names of these: they could not be both learnt and held out. Their photos count as not labelled. Raises
    UsageError: fewer than two classes are left."""
    labels, names = photos.labels[head], photos.classes[head]
    kept = [number for number, sites in enumerate(photos.sites(head)) if sites >= 2]
    if len(kept) < 2:
        raise UsageError(
            f"head {head}: fewer than 2 of its classes have training photos of 2 sites; label more photos in "
            "manifest.csv"
        )
    renumbered = np.full(len(names) + 1, UNLABELLED, dtype=np.int64)  # the last place is UNLABELLED's
    renumbered[kept] = np.arange(len(kept))
    left = replace(
        photos,
        labels={**photos.labels, head: renumbered[labels]},
        classes={**photos.classes, head: tuple(names[number] for number in kept)},
    )
    return left, tuple(name for number, name in enumerate(names) if number not in kept)


def read_manifest(folder: Path, needed: Sequence[str] = ("path",)) -> pd.DataFrame:
    """The rows of `folder/manifest.csv`, every cell as text; a UsageError where it is not there, or cannot be
    used (`read_table`)."""
    manifest = folder / "manifest.csv"
    if not manifest.is_file():
        raise UsageError(f"{manifest} is missing: name the folder that holds manifest.csv and the photos")
    return read_table(manifest, needed)


def chosen_rows(
    table: pd.DataFrame, manifest: Path, exclude: Sequence[str] = (), split: str | None = None
) -> pd.DataFrame:
    """The rows of this split (None: of all) whose path starts with no prefix of `exclude`; a UsageError where
    there is none, or a photo has two."""
    if split is not None:
        if "split" not in table.columns:
            raise UsageError(f"{manifest} has no column split; leave out --split")
        known = ", ".join(sorted(set(table["split"])))
        table = table[table["split"] == split]
        if table.empty:
            raise UsageError(f"{manifest} has no photo of split {split!r}; there are {known}")
    table = table[~table["path"].str.startswith(tuple(exclude))]
    if table.empty:
        raise UsageError(f"{manifest} holds no photo" + (" outside --exclude" if exclude else ""))
    refuse_repeated(table, manifest)
    return table.reset_index(drop=True)


def photo_set(
    folder: Path,
    table: pd.DataFrame,
    labels: dict[str, NDArray[np.int64]],
    classes: dict[str, tuple[str, ...]],
) -> PhotoSet:
    """The photos of these rows of a manifest, whose columns `split`, `source` and `licence` may be missing; a
    photo of no group is its own. Raises UsageError: files are missing."""
    paths, nothing = tuple(table["path"]), pd.Series("", table.index)
    table = table.assign(group=table["group"].where(table["group"] != "", table["path"]))
    sha256 = _hash_files(folder, paths)
    return PhotoSet(
        folder=folder,
        paths=paths,
        sha256=sha256,
        group=table["group"].to_numpy(dtype=str),
        site=_sites(table.assign(sha256=sha256)),
        split=table.get("split", nothing).to_numpy(dtype=str),
        collection=np.array(
            [path.partition("/")[0] if "/" in path else NO_FOLDER for path in paths], dtype=str
        ),
        licence=table.get("licence", nothing).to_numpy(dtype=str),
        labels=labels,
        classes=classes,
    )


def _sites(table: pd.DataFrame) -> NDArray[np.str_]:
    """The site of each row of a manifest. Those of a group's photos are one, and those of equal files."""
    site, rows = table["group"], pd.Series(range(len(table)), table.index)
    if "source" in table.columns:
        groups = table["source"].map(table.groupby("source")["group"].nunique())
        site = table["source"].where((table["source"] != "") & (groups < DATASET_GROUPS), site)
    shared = table.groupby("sha256")["group"].transform("nunique") <= SHARED_GROUPS
    file = table["sha256"].where(shared, table["path"])
    firsts = pd.concat([rows.groupby(column).transform("first") for column in (site, table["group"], file)])
    ties = coo_array((np.ones(len(firsts)), (np.tile(rows, 3), firsts)), (len(rows), len(rows)))
    return np.asarray(
        site.groupby(connected_components(ties, directed=False)[1]).transform("first"), dtype=str
    )


def _hash_files(folder: Path, paths: tuple[str, ...]) -> tuple[str, ...]:
    """sha256 of every photo file."""
    missing = [path for path in paths if not (folder / path).is_file()]
    if missing:
        raise UsageError(
            f"{len(missing)} photos of {folder / 'manifest.csv'} are not there, the first is {missing[0]}; "
            "take their rows out or put the files back"
        )
    return tuple(hashlib.sha256((folder / path).read_bytes()).hexdigest() for path in paths)
