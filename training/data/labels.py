"""What photos show: from columns of a manifest.csv, and from files of labels beside it."""

import re
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from types import MappingProxyType
from unicodedata import normalize

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from enrich.errors import UsageError
from enrich.model.head import NAME

UNLABELLED = -1
REQUIRED = ("path", "group", "split")
BINARY = ("balcony", "fireplace")
ROOM = "room"
INDOOR = ("bathroom", "bedroom", "kitchen", "living_room", "dining_room", "hallway")
ROOMS = (*INDOOR, "exterior", "balcony", "floor_plan", "other")
MERGED_ROOMS = {"map": "floor_plan", **dict.fromkeys(("stairs", "office", "pool", "empty_room"), "other")}
"""Value in the manifest -> room that it counts as."""
TAKEN = (*REQUIRED, *BINARY, ROOM, "source", "licence")
"""Columns with a meaning of their own: no name for a head."""
BINARY_LABELS = {"0": 0, "1": 1, "0.0": 0, "1.0": 1}


def read_table(path: Path, needed: Sequence[str]) -> pd.DataFrame:
    """A CSV file, every cell as text; a UsageError where it is none, or lacks a column that is `needed`."""
    try:
        table = pd.read_csv(path, dtype=str, keep_default_na=False)
    except (pd.errors.ParserError, pd.errors.EmptyDataError, UnicodeDecodeError) as error:
        raise UsageError(f"{path} is not a readable CSV file: {str(error).strip()}") from None
    missing = [column for column in needed if column not in table.columns]
    if missing and len(table.columns) == 1 and ";" in table.columns[0]:
        raise UsageError(f"{path} has semicolons between its columns; write commas")
    if missing:
        raise UsageError(f"{path} lacks the column {', '.join(missing)}; it needs {', '.join(needed)}")
    return table


def refuse_repeated(table: pd.DataFrame, file: Path) -> None:
    """Refuse, with a UsageError, a photo with two rows."""
    repeated = table.loc[table["path"].duplicated(), "path"]
    if not repeated.empty:
        raise UsageError(f"{file} names {repeated.iloc[0]} more than once; keep one row a photo")


def numbered(classes: Sequence[str], merged: Mapping[str, str] = MappingProxyType({})) -> dict[str, int]:
    """The number of each class, and of each value that counts as one of them, where it is not a class
    itself."""
    index = {name: number for number, name in enumerate(classes)}
    more = {value: index[name] for value, name in merged.items() if name in index and value not in index}
    return index | more


def labels_of(
    table: pd.DataFrame, column: str, where: str, index: Mapping[str, int] = BINARY_LABELS
) -> NDArray[np.int64]:
    """Labels [rows] of a column: the number that `index` has for a value, `UNLABELLED` where there is none.
    `where`: the file and the column, for the error. Raises UsageError: it holds a value that is not in
    `index`."""
    wrong = table.loc[~table[column].isin(["", *index]), ["path", column]]
    if not wrong.empty:
        path, value = wrong.iloc[0]
        raise UsageError(
            f"{where} of {path} is {value!r}; write {_known(index)}, or nothing for not labelled"
        )
    return np.asarray(table[column].map({**index, "": UNLABELLED}), dtype=np.int64)


def _known(index: Mapping[str, int]) -> str:
    return "1, 0" if index is BINARY_LABELS else ", ".join(index)


def as_in_manifest(paths: pd.Series, known: pd.Series) -> pd.Series:
    """Paths as the manifest writes them: tools of macOS write `ü` as two signs. A path that stands for none,
    or for several, of the manifest's stays as it is."""
    signs = known.map(partial(normalize, "NFC"))
    alone = ~signs.duplicated(keep=False)
    written = dict(zip(signs[alone], known[alone], strict=True))
    return paths.map(lambda path: written.get(normalize("NFC", path), path))


def with_files(table: pd.DataFrame, files: Mapping[str, Path]) -> pd.DataFrame:
    """The manifest's rows with a column for each of `files`, by the head's name: what the column `label` of
    that CSV file says, or one of the head's name, as the manifest of `enrich labels export` has it; and
    nothing of photos that it does not name.

    Raises:
        UsageError: a head cannot be called so, or its file cannot be used.
    """
    for name, file in files.items():
        if not re.fullmatch(NAME, name) or name in TAKEN:
            raise UsageError(
                f"--head {name}: a name is made of a to z, 0 to 9 and _, begins with a letter, and is none "
                f"of {', '.join(TAKEN)}"
            )
        if not file.is_file():
            raise UsageError(f"--head {name}: {file} is missing; it needs the columns path, label")
        stated = read_table(file, ("path",))
        if "label" not in stated:
            stated = stated.rename(columns={name: "label"})
        if "label" not in stated:
            raise UsageError(f"{file} lacks the column label, or one called {name}; it needs path, label")
        stated["path"] = as_in_manifest(stated["path"], table["path"])
        refuse_repeated(stated, file)
        unknown = stated.loc[~stated["path"].isin(table["path"]), "path"]
        if not unknown.empty:
            raise UsageError(
                f"{file}: {len(unknown)} photos are not in manifest.csv, the first is {unknown.iloc[0]}; add "
                "them there, or take their rows out"
            )
        table = table.assign(**{name: table["path"].map(stated.set_index("path")["label"]).fillna("")})
    return table


def with_fixes(table: pd.DataFrame, fixes: Path, columns: Mapping[str, Mapping[str, int]]) -> pd.DataFrame:
    """The manifest's rows with the labels in `columns` that the CSV file `fixes` corrects: `path,label,why`.
    `columns`: each with the number of every value that it may have. Raises UsageError: it is missing or not
    readable, names a photo, a column or a value that is not there, or corrects one twice."""
    if not fixes.is_file():
        raise UsageError(f"--label-fixes {fixes}: is missing; it needs the columns path, label, why")
    stated = read_table(fixes, ("path", "label", "why"))
    stated["path"] = as_in_manifest(stated["path"], table["path"])
    fixed, known = table.copy(), set[tuple[str, str]]()
    for path, label in zip(stated["path"], stated["label"], strict=True):
        (column, equals, value), rows = label.partition("="), table["path"] == path
        if not rows.any():
            raise UsageError(f"{fixes}: {path} is not in manifest.csv; take its row out")
        if not equals or column not in columns:
            raise UsageError(
                f"{fixes}: {path} has the label {label!r}; write COLUMN=LABEL, with one of "
                f"{', '.join(columns)}"
            )
        if value not in ("", *columns[column]):
            raise UsageError(
                f"{fixes}: {path} has the label {label!r}; {column} is {_known(columns[column])}, or nothing "
                "where it cannot be told"
            )
        if (path, column) in known:
            raise UsageError(f"{fixes} corrects {column} of {path} more than once; keep one of its rows")
        known.add((path, column))
        fixed.loc[rows, column] = value
    return fixed


def classes_named(values: pd.Series, file: Path) -> tuple[str, ...]:
    """The classes of a head of one's own, which its labels name; none where they are meant for 1 and 0. A
    UsageError where they say yes and no in words, or a class cannot be called so."""
    found = set(values) - {""}
    classes = tuple(sorted(found - BINARY_LABELS.keys()))
    if len(classes) < 2 or len(classes) < len(found):
        return ()
    if {one.strip().lower() for one in classes} in ({"yes", "no"}, {"true", "false"}, {"0", "1"}):
        said = " and ".join(map(repr, classes))
        raise UsageError(f"{file}: the labels are {said}; write 1 and 0 for a yes-or-no attribute")
    if wrong := [one for one in classes if not re.fullmatch(NAME, one)]:
        raise UsageError(
            f"{file}: a class cannot be called {wrong[0]!r}; its name is made of a to z, 0 to 9 and _, and "
            "begins with a letter"
        )
    return classes


def pairs(option: str, given: Sequence[str]) -> list[tuple[str, str]]:
    """What an option of NAME=VALUE that may be repeated was given. Raises UsageError: it is written
    otherwise, or a name comes twice."""
    found: dict[str, str] = {}
    for one in given:
        name, equals, value = one.partition("=")
        if not (name and equals and value):
            raise UsageError(f"{option} {one}: write NAME=VALUE")
        if name in found:
            raise UsageError(f"{option} {name} is given twice; keep one")
        found[name] = value
    return list(found.items())
