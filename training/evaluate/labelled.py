"""Photos labelled for the heads of a bundle: which columns and files of labels answer which head."""

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from enrich.errors import UsageError
from enrich.model.bundle import Bundle
from training.data.labels import BINARY_LABELS, MERGED_ROOMS, ROOM, labels_of, numbered, with_files
from training.data.photos import PhotoSet, chosen_rows, photo_set, read_manifest


def load_labelled(
    folder: Path,
    bundle: Bundle,
    split: str | None = None,
    exclude: Sequence[str] = (),
    files: Mapping[str, Path] = MappingProxyType({}),
) -> tuple[PhotoSet, list[str]]:
    """The photos of `folder/manifest.csv` with labels for the heads that have a column there, or a file; and
    remarks on what of the bundle or the manifest was left out.

    A binary head X reads the column X (1, 0 or nothing), a multiclass head its class names. Names in the
    manifest that are no class of the bundle are masked, with a remark; a file is for this bundle, and may
    hold none. The columns `split`, `source` and `licence` may be missing.

    `split`, `exclude`: which rows, as of `chosen_rows`. `files`: heads with labels in a file of their own, in
    place of a column.

    Raises:
        UsageError: no manifest, no rows, labels for no head, or for one that the bundle does not have,
            unusable labels, or missing photo files.
    """
    manifest, names = folder / "manifest.csv", ", ".join(head.name for head in bundle.heads)
    for name in files:
        if name not in {head.name for head in bundle.heads}:
            raise UsageError(f"--head {name}: the bundle has no such head; it has {names}")
    table = with_files(read_manifest(folder, ("path", "group")), files)
    table = chosen_rows(table, manifest, exclude, split)
    heads = [head for head in bundle.heads if head.name in table.columns]
    if not heads:
        raise UsageError(f"{manifest} has a column for none of the bundle's heads; name one of {names}")
    remarks = [
        f"head {head.name} is not evaluated: the manifest has no column {head.name}"
        for head in bundle.heads
        if head not in heads
    ]
    remarks += [f"head {name}: its labels are from {file.name}" for name, file in files.items()]
    labels: dict[str, NDArray[np.int64]] = {}
    for head in heads:
        file = files.get(head.name)
        where = f"{file}: label" if file else f"{manifest}: {head.name}"
        merged = MERGED_ROOMS if head.name == ROOM else {}
        index = numbered([kind.name for kind in head.classes], merged) if head.classes else BINARY_LABELS
        if head.classes and not file:
            table[head.name] = _masked(table[head.name], index, where, remarks)
        labels[head.name] = labels_of(table, head.name, where, index)
    classes = {head.name: tuple(kind.name for kind in head.classes) for head in heads if head.classes}
    return photo_set(folder, table, labels, classes), remarks


def _masked(values: pd.Series, index: Mapping[str, int], where: str, remarks: list[str]) -> pd.Series:
    """The column without names that are no class of the bundle."""
    known = values.isin(["", *index])
    unknown = Counter(values[~known])
    if unknown and not values.isin(list(index)).any():
        raise UsageError(
            f"{where} holds {', '.join(sorted(unknown))}, none of which the bundle knows; "
            f"its classes are {', '.join(index)}"
        )
    if unknown:
        counted = ", ".join(f"{value} ({count})" for value, count in unknown.most_common())
        remarks.append(
            f"{values.name}: {unknown.total()} photos left out, as no class of the bundle is theirs: "
            f"{counted}"
        )
    return values.where(known, "")
