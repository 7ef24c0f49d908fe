"""Photos labelled for the heads of a bundle: which columns of a manifest.csv answer which head."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from enrich.errors import UsageError
from enrich.model.bundle import Bundle
from enrich.model.head import Head
from training.data.photos import ROOM, UNLABELLED, PhotoSet, binary_labels, hash_files, read_manifest, sites

NEEDED = ("path", "group")


@dataclass(frozen=True)
class Chosen:
    """Which rows of a manifest to use."""

    split: str | None = None
    """Rows of this split only."""
    exclude: tuple[str, ...] = ()
    """Rows whose path starts so are left out."""


@dataclass(frozen=True)
class Labelled:
    """Photos with labels for `heads`; `remarks` say what of the bundle or the manifest was left out."""

    photos: PhotoSet
    heads: tuple[Head, ...]
    remarks: list[str] = field(default_factory=list)


def load_labelled(folder: Path, bundle: Bundle, chosen: Chosen) -> Labelled:
    """The photos of `folder/manifest.csv` with labels for the heads that it has a column for.

    A binary head X reads the column X (1, 0 or nothing), a multiclass head its class names. Names that are no
    class of the bundle are masked, with a remark. `split`, `source` and `licence` may be missing.

    Raises:
        UsageError: no manifest, no rows, no column for any head, unusable labels, or missing photo files.
    """
    manifest = folder / "manifest.csv"
    table = _chosen_rows(_read(folder), manifest, chosen)
    remarks: list[str] = []
    heads = tuple(head for head in bundle.heads if head.name in table.columns)
    if not heads:
        names = ", ".join(head.name for head in bundle.heads)
        raise UsageError(f"{manifest} has a column for none of the bundle's heads; name one of {names}")
    for head in bundle.heads:
        if head not in heads:
            remarks.append(f"head {head.name} is not evaluated: the manifest has no column {head.name}")
    labels = {
        head.name: binary_labels(table, head.name, manifest)
        if head.kind == "binary"
        else _classes(table, head, manifest, remarks)
        for head in heads
    }
    empty = np.full(len(table), "", dtype=object)
    paths = tuple(table["path"])
    photos = PhotoSet(
        folder=folder,
        paths=paths,
        sha256=hash_files(folder, paths),
        group=table["group"].to_numpy(dtype=str),
        site=sites(table),
        split=np.asarray(table.get("split", empty), dtype=str),
        collection=np.array([path.partition("/")[0] if "/" in path else "" for path in paths], dtype=str),
        licence=np.asarray(table.get("licence", empty), dtype=str),
        labels=labels,
        classes={head.name: tuple(kind.name for kind in head.classes) for head in heads if head.classes},
    )
    return Labelled(photos, heads, remarks)


def _read(folder: Path) -> pd.DataFrame:
    manifest, table = folder / "manifest.csv", read_manifest(folder)
    missing = [column for column in NEEDED if column not in table.columns]
    if missing:
        raise UsageError(
            f"{manifest} lacks the column {', '.join(missing)}; it needs {', '.join(NEEDED)} and the heads"
        )
    return table


def _chosen_rows(table: pd.DataFrame, manifest: Path, chosen: Chosen) -> pd.DataFrame:
    if chosen.split is not None:
        if "split" not in table.columns:
            raise UsageError(f"{manifest} has no column split; leave out --split")
        known = ", ".join(sorted(set(table["split"])))
        table = table[table["split"] == chosen.split]
        if table.empty:
            raise UsageError(f"{manifest} has no photo of split {chosen.split!r}; there are {known}")
    if chosen.exclude:
        table = table[~table["path"].str.startswith(chosen.exclude)]
    if table.empty:
        raise UsageError(f"{manifest} holds no photo" + (" outside --exclude" if chosen.exclude else ""))
    repeated = table["path"][table["path"].duplicated()]
    if not repeated.empty:
        raise UsageError(f"{manifest} names {repeated.iloc[0]} more than once; keep one row a photo")
    return table.reset_index(drop=True)


def _classes(table: pd.DataFrame, head: Head, manifest: Path, remarks: list[str]) -> NDArray[np.int64]:
    index = {kind.name: number for number, kind in enumerate(head.classes)}
    merged = ROOM.merged if head.name == ROOM.column else {}
    # A bundle that has a class of its own for a value keeps it; the rest joins the class that it counts as.
    known = {value: index[kind] for value, kind in merged.items() if kind in index} | index | {"": UNLABELLED}
    values: Sequence[str] = table[head.name].tolist()
    unknown = Counter(value for value in values if value not in known)
    if unknown and not any(value in index for value in values):
        raise UsageError(
            f"{manifest}: {head.name} holds {', '.join(sorted(unknown))}, none of which the bundle knows; "
            f"its classes are {', '.join(index)}"
        )
    if unknown:
        counted = ", ".join(f"{value} ({count})" for value, count in unknown.most_common())
        remarks.append(
            f"{head.name}: {unknown.total()} photos left out, as no class of the bundle is theirs: {counted}"
        )
    return np.array([known.get(value, UNLABELLED) for value in values], dtype=np.int64)
