"""What becomes of each photo of a task: dropped, and why, or on which side it stands.

In this order: unusable files, duplicates, the cap per home, the draw, the split, and last what would validate
while what may be another copy of it trains.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Literal

import pandas as pd

from enrich.errors import UsageError
from training.data.clean import Inspected, Refused
from training.data.duplicates import DOUBT, NEAR, Pair, classify_pairs, find_pairs
from training.data.sources import Candidate
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


@dataclass(frozen=True)
class Decision:
    """What becomes of the photos of one task."""

    task: str
    table: pd.DataFrame
    """A row a candidate, with `photo` (`Inspected` or `Refused`), `reason` and `detail` of what is dropped,
    and `side` of what is kept; "" where there is none."""
    pairs: list[tuple[str, Pair]]
    """Pairs of like photos with what came of it: the reason of the drop, or `DOUBTFUL` where both stay."""
    straddling_uncleaned: int
    """Near-duplicate pairs that one split of all usable photos, duplicates and all, has on both its sides."""

    @property
    def kept(self) -> pd.DataFrame:
        """The rows of `table` that are on a side."""
        return _left(self.table)

    @property
    def dropped(self) -> pd.DataFrame:
        """The other rows."""
        return self.table[self.table["reason"] != ""]


def decide(
    candidates: Sequence[Candidate], photos: Mapping[str, Inspected | Refused], rules: Rules
) -> Decision:
    """Decide over the candidates of one task; `photos` holds what each source file is.

    Raises:
        UsageError: a class has too few usable photos, or too few homes to split by.
    """
    looked = [photos[candidate.source] for candidate in candidates]
    table = pd.DataFrame(map(asdict, candidates)).assign(photo=looked, side="")
    table[["reason", "detail"]] = [
        (photo.reason, photo.detail) if isinstance(photo, Refused) else ("", "") for photo in looked
    ]
    usable = _left(table)
    pairs = find_pairs(usable["photo"].to_dict(), rules.near + DOUBT)
    near = [pair for pair in pairs if pair.distance <= rules.near]
    sides = thesis_split(usable)
    straddling = sum(sides[pair.first] != sides[pair.second] for pair in near)
    for i, (reason, detail) in classify_pairs(candidates, near).items():
        _drop(table, [i], reason, detail)
    came = [(table.at[p.second, "reason"] if p.distance <= rules.near else "") or DOUBTFUL for p in pairs]
    if rules.cap:
        _drop(table, cap(_left(table), rules.cap), "over_cap", f"--cap {rules.cap}")
    if rules.sizes == "thesis":
        _drop(table, draw(_left(table), rules.seed), "not_drawn", "--sizes thesis")
    _check_classes(table)
    left = _left(table)
    table.loc[left.index, "side"] = (
        thesis_split(left) if rules.split == "thesis" else group_split(left, rules.seed)
    )
    shown = _drop_straddling(table, list(zip(came, pairs, strict=True)))
    _check_validation(table)
    return Decision(candidates[0].task, table, shown, straddling)


def _left(table: pd.DataFrame) -> pd.DataFrame:
    return table[table["reason"] == ""]


def _drop(table: pd.DataFrame, rows: Sequence[int], reason: str, detail: str) -> None:
    table.loc[list(rows), ["reason", "detail", "side"]] = [reason, detail, ""]


def _drop_straddling(table: pd.DataFrame, pairs: Sequence[tuple[str, Pair]]) -> list[tuple[str, Pair]]:
    """Of a doubtful pair on both sides the validation photo goes; one without both photos is left out."""
    shown = []
    for reason, pair in pairs:
        if reason == DOUBTFUL:
            sides = {table.at[pair.first, "side"]: pair.first, table.at[pair.second, "side"]: pair.second}
            if "" in sides:
                continue
            if len(sides) == 2:
                other = table.at[sides["train"], "source"]
                _drop(table, [sides["val"]], STRADDLES, f"{pair.how} {other}, which trains")
                reason = STRADDLES
        shown.append((reason, pair))
    return shown


def _check_classes(table: pd.DataFrame) -> None:
    for (task, label), own in table.groupby(["task", "label"], sort=False):
        reasons = own.loc[own["reason"] != "", "reason"].tolist()
        usable = len(own) - len(reasons)
        if usable >= 2:
            continue
        why = ", ".join(f"{reasons.count(reason)} {reason}" for reason in dict.fromkeys(reasons))
        advice = "add photos, or lower --min-width" if "too_small" in reasons else "add photos"
        raise UsageError(
            f"class {label} of task {task} has {usable} usable photos, two are the least "
            f"(dropped: {why or 'none'}); {advice}"
        )


def _check_validation(table: pd.DataFrame) -> None:
    for (task, label), own in table.groupby(["task", "label"], sort=False):
        if not (own["side"] == "val").any():
            raise UsageError(
                f"class {label} of task {task} has no photo left to validate with: those it had are "
                "perhaps copies of others that train; add photos, or lower --near"
            )
