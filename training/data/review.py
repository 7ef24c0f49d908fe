"""What `prepare` tells people: pairs of like photos, as a list and as pictures, and lines for the prompt."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from training.data.decide import DOUBTFUL, STRADDLES, Rules
from training.data.prepared import SHEET, SPLITS, counted
from training.data.sheet import contact_sheet
from training.thesis import BATCH, SIZES

SHEET_PAIRS = 120
"""Pairs on the contact sheet at most."""
SHOWN = ("contradicting", STRADDLES, DOUBTFUL, "near_duplicate")
"""What came of the pairs on the contact sheet, the most doubtful first."""


def remarks(tasks: Sequence[str], pairs: pd.DataFrame) -> dict[str, Any]:
    """Entries of prepared.json on the `pairs` of like photos that `decide` tells of."""
    straddling = {task: _straddling(pairs, task) for task in tasks}
    told = pairs[["task", "decision", "distance", "photos"]].to_dict("records")
    return {"pairs": told, "straddling_pairs_without_cleaning": straddling}


def draw_sheet(root: Path, path: Path, table: pd.DataFrame, pairs: pd.DataFrame) -> None:
    """The pairs that people should look at, side by side; of each kind the farthest apart first."""
    shown = pairs[pairs["decision"].isin(SHOWN)].drop_duplicates("photos")
    shown = shown.assign(rank=shown["decision"].map(SHOWN.index))
    shown = shown.sort_values(["rank", "distance"], ascending=[True, False])[:SHEET_PAIRS]
    cells = []
    for number, pair in enumerate(shown.itertuples(), start=1):
        for end in (table.loc[pair.first], table.loc[pair.second]):
            what = f"{number}: {pair.decision}, {pair.distance} bits"
            cells.append((root / end.source, f"{what}\n{end.task}/{end.label}\n{end.source[-40:]}"))
    contact_sheet(path, cells, columns=6, cell=(220, 165))


def notes(rules: Rules, table: pd.DataFrame, pairs: pd.DataFrame) -> Iterator[str]:
    """Lines for the person at the keyboard."""
    for (task,), own in counted(table).groupby(["task"], sort=False):
        for (_, label), sides in own[list(SPLITS)].iterrows():
            yield from _size_notes(rules, task, label, *sides)
        found = pairs.loc[pairs["task"] == task, "decision"].value_counts()
        doubtful, straddles = found.get(DOUBTFUL, 0), found.get(STRADDLES, 0)
        if rules.split == "thesis":
            yield (
                f"{task}: uncleaned, {_straddling(pairs, task)} pairs of near-duplicates would "
                "stand on both sides of the split; now none does"
            )
        if doubtful + straddles:
            yield (
                f"{task}: {doubtful} doubtful pairs kept, {straddles} others lost "
                f"their validation photo; look at {SHEET}"
            )


def _straddling(pairs: pd.DataFrame, task: str) -> int:
    return int(pairs.loc[pairs["task"] == task, "straddling"].sum())


def _size_notes(rules: Rules, task: str, label: str, training: int, validating: int) -> Iterator[str]:
    theirs, count = SIZES.get(task, {}).get(label), training + validating
    if rules.sizes == "thesis" and theirs is None:
        yield f"{task}/{label}: the thesis had no such class, all photos are kept"
    elif rules.sizes == "thesis" and theirs is not None and count < theirs:
        yield f"{task}/{label}: {count} photos, the thesis had {theirs}"
    if training < BATCH:  # `compare` refuses a class with fewer
        yield (
            f"warning: class {label} of task {task} has {training} training photos, "
            f"fewer than a batch of {BATCH}; add photos or use a smaller --batch in compare"
        )
