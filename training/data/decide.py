"""What becomes of each photo of a task: dropped, and why, or on which side it stands.

In this order: unusable files, duplicates, the cap per home, the draw, the split, and last what would validate
while what may be another copy of it trains.

Duplicates are told by 128 bits: the perceptual hash (Zauner 2010: low frequencies of the cosine transform)
and the difference hash of `imagehash`, 64 bits each. Either alone takes rooms of a like layout for the same
photo long before it has found all copies. The limit of 24 bits was chosen by eye on 6,600 photos of homes: up
to 25 bits all 15 pairs were the same view, at 26 to 28 four of 18.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import pandas as pd
from sklearn.model_selection import StratifiedGroupKFold

from enrich.errors import UsageError
from training import thesis

DOUBTFUL, STRADDLES = "doubtful", "straddles"
NEAR = 24
"""Up to this distance two photos count as the same."""
DOUBT = 4
"""Pairs up to this much farther apart are shown to people."""
MOST_SEED = 2**32 - 1
"""Folds of scikit-learn take no larger one."""
FOLDS = 5
"""One of five folds validates: 20 %."""


@dataclass(frozen=True)
class Rules:
    """Which photos are prepared, in which size, and how they are split; `prepare_command` says it of each."""

    split: Literal["thesis", "group"] = "thesis"
    sizes: Literal["all", "thesis"] = "all"
    cap: int = 0
    near: int = NEAR
    seed: int = 0
    tasks: tuple[str, ...] = ()
    """None: all."""
    exclude: tuple[str, ...] = ()
    width: int = 500
    min_width: int = 500


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


def find_pairs(photos: pd.DataFrame, limit: int) -> pd.DataFrame:
    """All pairs of photos that differ in at most `limit` of 128 bits, in order; `photos` has the columns
    `fingerprint` and `sha256` of `Looked`.

    Columns: `first` and `second` (rows of `photos`), `distance` (differing bits of 128), `exact` (the files
    are equal byte by byte), `how` (the likeness in words).
    """
    rows, sha256 = photos.index.tolist(), photos["sha256"].tolist()
    bits = np.array(photos["fingerprint"].tolist(), dtype=np.uint64).reshape(-1, 2).T.copy()
    pairs = []
    for i in range(len(rows)):
        distance = np.bitwise_count(bits[:, i + 1 :] ^ bits[:, [i]]).sum(axis=0, dtype=int)
        for j in np.flatnonzero(distance <= limit) + i + 1:
            far, exact = int(distance[j - i - 1]), sha256[i] == sha256[j]
            how = "equal to" if exact else f"{far} of 128 bits from"
            pairs.append((rows[i], rows[j], far, exact, how))
    return pd.DataFrame(pairs, columns=["first", "second", "distance", "exact", "how"])


def copies(photos: pd.DataFrame, near: pd.DataFrame) -> dict[int, tuple[str, str]]:
    """Row -> (reason, detail) of the photos of one task that near-duplicate pairs lead to drop; `photos` has
    the columns `label` and `source`.

    The same photo in two classes has contradicting labels: both go. Within a class the first stays.
    """
    label, source = photos["label"], photos["source"]
    dropped: dict[int, tuple[str, str]] = {}
    for pair in near.itertuples():
        if label[pair.first] != label[pair.second]:
            for mine, other in ((pair.first, pair.second), (pair.second, pair.first)):
                words = f"{pair.how} {source[other]} of class {label[other]}"
                dropped.setdefault(mine, ("contradicting", words))
    for pair in near.itertuples():  # in the order of `first`: what stays is settled before its copies are
        if pair.first not in dropped and pair.second not in dropped:
            reason = "duplicate" if pair.exact else "near_duplicate"
            dropped[pair.second] = (reason, f"{pair.how} {source[pair.first]}")
    return dropped


def cap(photos: pd.DataFrame, most: int) -> list[int]:
    """Rows beyond the first `most` photos of a group and class."""
    number = photos.groupby(["label", "group"]).cumcount()
    return list(photos.index[number >= most])


def draw(photos: pd.DataFrame, seed: int) -> list[int]:
    """Rows left over when each class is drawn down to the size that the thesis had."""
    rng = np.random.default_rng(seed)
    over: list[int] = []
    for (task, label), own in photos.groupby(["task", "label"], sort=False):
        size = thesis.SIZES.get(task, {}).get(label, len(own))
        over += rng.permutation(own.index)[size:].tolist()
    return over


def thesis_split(photos: pd.DataFrame) -> pd.Series:
    """Side of each row: the first 80 % of each class train, the rest validates."""
    classes = photos.groupby("label")["label"]
    trains = classes.cumcount() < classes.transform("size") * 8 // 10
    return trains.map({True: "train", False: "val"})


def group_split(photos: pd.DataFrame, seed: int) -> pd.Series:
    """Side of each row: whole homes on one, about 20 % of each class for validation. Raises UsageError: a
    class has photos of too few homes to have some on both sides."""
    task, labels = photos["task"].iloc[0], photos["label"].to_numpy()
    for label, homes in photos.groupby("label", sort=False)["group"].nunique().items():
        if homes < FOLDS:
            raise UsageError(
                f"class {label} of task {task} has photos of {homes} homes only: "
                f"--split group needs {FOLDS}; add photos, or use --split thesis"
            )
    splitter = StratifiedGroupKFold(FOLDS, shuffle=True, random_state=seed)
    folds = [validates for _, validates in splitter.split(labels, labels, photos["group"].to_numpy())]
    best = min(folds, key=lambda fold: _imbalance(labels, fold))
    missing = set(labels) - set(labels[best])
    if missing:
        raise UsageError(
            f"class {sorted(missing)[0]} of task {task} cannot be split by home: most of its "
            "photos are of one home; try --cap, another --seed, or --split thesis"
        )
    sides = pd.Series("train", photos.index)
    sides.iloc[best] = "val"
    return sides


def _imbalance(labels: np.ndarray, fold: np.ndarray) -> float:
    """How far the worst class is from its 20 %."""
    shares = [(labels[fold] == label).sum() / (labels == label).sum() for label in np.unique(labels)]
    return float(max(abs(share - 1 / FOLDS) for share in shares))


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
