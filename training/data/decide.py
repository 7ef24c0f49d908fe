"""What becomes of each photo of a task: dropped, and why, or on which side it stands.

In this order: unusable files, duplicates, the cap per home, the draw, the split, and last what would validate
while what may be another copy of it trains.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import pandas as pd

from enrich.errors import UsageError
from training.data.duplicates import DOUBT, NEAR, copies, find_pairs
from training.data.split import cap, draw, group_split, thesis_split

DOUBTFUL, STRADDLES = "doubtful", "straddles"


@dataclass(frozen=True)
class Rules:
    """How a task's photos are chosen and split."""

    split: Literal["thesis", "group"] = "thesis"
    sizes: Literal["all", "thesis"] = "all"
    cap: int = 0
    """Photos per home and class; 0: all."""
    near: int = NEAR
    """Photos that differ in at most as many of 128 bits are the same."""
    seed: int = 0


def decide(table: pd.DataFrame, rules: Rules) -> pd.DataFrame:
    """Decide over the photos of one task. `table` has the columns of `find_candidates` and of `Looked`, and
    `split`; what is dropped gets a `reason` and `detail` there, what is kept the `split` that it is on.

    Returns the pairs of like photos, as `find_pairs`, with their `task` and `photos` (the two sources).
    `decision` is what came of it: the reason of the drop, or `DOUBTFUL` where both stay. `straddling` are
    near-duplicates that one split of all usable photos, duplicates and all, has on both its sides.

    Raises:
        UsageError: a class has too few usable photos, or too few homes to split by.
    """
    usable = _left(table)
    pairs = find_pairs(usable, rules.near + DOUBT)
    near, ends = pairs["distance"] <= rules.near, (pairs["first"], pairs["second"])
    pairs["task"] = table["task"].iloc[0]
    pairs["photos"] = list(zip(*(end.map(table["source"]) for end in ends), strict=True))
    sides = [end.map(thesis_split(usable)) for end in ends]
    pairs["straddling"] = near & (sides[0] != sides[1])
    for row, (reason, detail) in copies(usable, pairs[near]).items():
        _drop(table, [row], reason, detail)
    pairs["decision"] = pairs["second"].map(table["reason"]).where(near, "").replace("", DOUBTFUL)
    if rules.cap:
        _drop(table, cap(_left(table), rules.cap), "over_cap", f"--cap {rules.cap}")
    if rules.sizes == "thesis":
        _drop(table, draw(_left(table), rules.seed), "not_drawn", "--sizes thesis")
    _check_classes(table)
    left = _left(table)
    split = thesis_split(left) if rules.split == "thesis" else group_split(left, rules.seed)
    table.loc[left.index, "split"] = split
    pairs = _drop_straddling(table, pairs)
    _check_validation(table)
    return pairs


def _left(table: pd.DataFrame) -> pd.DataFrame:
    return table[table["reason"] == ""]


def _drop(table: pd.DataFrame, rows: Sequence[int], reason: str, detail: str) -> None:
    table.loc[list(rows), ["reason", "detail", "split"]] = [reason, detail, ""]


def _drop_straddling(table: pd.DataFrame, pairs: pd.DataFrame) -> pd.DataFrame:
    """Of a doubtful pair on both sides the validation photo goes; one without both photos is left out."""
    for pair in pairs[pairs["decision"] == DOUBTFUL].itertuples():
        sides = {table.at[row, "split"]: row for row in (pair.first, pair.second)}
        if "" in sides:
            pairs = pairs.drop(index=pair.Index)
        elif len(sides) == 2:
            other = table.at[sides["train"], "source"]
            _drop(table, [sides["val"]], STRADDLES, f"{pair.how} {other}, which trains")
            pairs.at[pair.Index, "decision"] = STRADDLES
    return pairs


def _check_classes(table: pd.DataFrame) -> None:
    for (task, label), reasons in table.groupby(["task", "label"], sort=False)["reason"]:
        dropped = reasons[reasons != ""].value_counts(sort=False)
        usable = len(reasons) - dropped.sum()
        if usable >= 2:
            continue
        why = ", ".join(f"{count} {reason}" for reason, count in dropped.items())
        advice = "add photos, or lower --min-width" if "too_small" in dropped else "add photos"
        raise UsageError(
            f"class {label} of task {task} has {usable} usable photos, two are the least "
            f"(dropped: {why or 'none'}); {advice}"
        )


def _check_validation(table: pd.DataFrame) -> None:
    for (task, label), split in table.groupby(["task", "label"], sort=False)["split"]:
        if not (split == "val").any():
            raise UsageError(
                f"class {label} of task {task} has no photo left to validate with: those it had are "
                "perhaps copies of others that train; add photos, or lower --near"
            )
