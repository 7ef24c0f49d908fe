"""What becomes of each photo of a task: dropped, and why, or on which side it stands.

In this order: unusable files, duplicates, the cap per home, the draw, the split, and last what would validate
while what may be another copy of it trains.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

from enrich.errors import UsageError
from training.data.clean import Inspected, Refused
from training.data.duplicates import DOUBT, Pair, classify_pairs, find_pairs
from training.data.prepared import Split
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
    near: int = 24
    """Photos that differ in at most as many of 128 bits are the same."""
    seed: int = 0


@dataclass
class Decision:
    """What becomes of the photos of one task; positions are those among `candidates`."""

    candidates: Sequence[Candidate]
    dropped: dict[int, tuple[str, str]] = field(default_factory=dict)
    """Position -> (reason, detail)."""
    sides: dict[int, Split] = field(default_factory=dict)
    """Position of each photo kept -> its side, in order."""
    pairs: list[tuple[str, Pair]] = field(default_factory=list)
    """Pairs of like photos with what came of it: the reason of the drop, or `DOUBTFUL` where both stay."""
    straddling_uncleaned: int = 0
    """Near-duplicate pairs that one split of all usable photos, duplicates and all, has on both its sides."""

    @property
    def task(self) -> str:
        """Name of the task."""
        return self.candidates[0].task

    def kept(self) -> list[int]:
        """Positions not dropped so far."""
        return [i for i in range(len(self.candidates)) if i not in self.dropped]


def decide(
    candidates: Sequence[Candidate], photos: Mapping[str, Inspected | Refused], rules: Rules
) -> Decision:
    """Decide over the candidates of one task; `photos` holds what each source file is.

    Raises:
        UsageError: a class has too few usable photos, or too few homes to split by.
    """
    decision = Decision(candidates)
    _drop_unusable(decision, photos)
    _drop_duplicates(decision, photos, rules)
    if rules.cap:
        _leave_out(decision, lambda left: cap(left, rules.cap), ("over_cap", f"--cap {rules.cap}"))
    if rules.sizes == "thesis":
        _leave_out(decision, lambda left: draw(left, rules.seed), ("not_drawn", "--sizes thesis"))
    _check_classes(decision)
    kept = decision.kept()
    decision.sides = dict(zip(kept, _split([candidates[i] for i in kept], rules), strict=True))
    _drop_straddling(decision)
    _check_validation(decision)
    return decision


def _drop_unusable(decision: Decision, photos: Mapping[str, Inspected | Refused]) -> None:
    for i, candidate in enumerate(decision.candidates):
        photo = photos[candidate.source]
        if isinstance(photo, Refused):
            decision.dropped[i] = (photo.reason, photo.detail)


def _drop_duplicates(decision: Decision, photos: Mapping[str, Inspected | Refused], rules: Rules) -> None:
    usable = {}
    for i in decision.kept():
        photo = photos[decision.candidates[i].source]
        assert isinstance(photo, Inspected)
        usable[i] = photo
    pairs = find_pairs(usable, rules.near + DOUBT)
    near = [pair for pair in pairs if pair.distance <= rules.near]
    sides = dict(zip(usable, thesis_split([decision.candidates[i] for i in usable]), strict=True))
    decision.straddling_uncleaned = sum(sides[pair.first] != sides[pair.second] for pair in near)
    decision.dropped |= classify_pairs(decision.candidates, near)
    for pair in pairs:
        reason, _ = decision.dropped.get(pair.second, (DOUBTFUL, ""))
        decision.pairs.append((reason if pair.distance <= rules.near else DOUBTFUL, pair))


def _leave_out(
    decision: Decision, choose: Callable[[Sequence[Candidate]], set[int]], why: tuple[str, str]
) -> None:
    kept = decision.kept()
    for chosen in choose([decision.candidates[i] for i in kept]):
        decision.dropped[kept[chosen]] = why


def _split(kept: Sequence[Candidate], rules: Rules) -> list[Split]:
    return thesis_split(kept) if rules.split == "thesis" else group_split(kept, rules.seed)


def _drop_straddling(decision: Decision) -> None:
    """Drop the validation photo of every doubtful pair on both sides; forget doubtful pairs without both."""
    shown = []
    for reason, pair in decision.pairs:
        ends = (pair.first, pair.second)
        if reason == DOUBTFUL:
            sides = [decision.sides.get(i) for i in ends]
            if None in sides:
                continue
            if sides[0] != sides[1]:
                trains, validates = ends if sides[0] == "train" else ends[::-1]
                detail = f"{pair.how} {decision.candidates[trains].source}, which trains"
                decision.dropped[validates] = (STRADDLES, detail)
                del decision.sides[validates]
                reason = STRADDLES
        shown.append((reason, pair))
    decision.pairs = shown


def _check_classes(decision: Decision) -> None:
    left = [decision.candidates[i].label for i in decision.kept()]
    for label in dict.fromkeys(candidate.label for candidate in decision.candidates):
        if left.count(label) >= 2:
            continue
        reasons = [
            reason for i, (reason, _) in decision.dropped.items() if decision.candidates[i].label == label
        ]
        why = ", ".join(f"{reasons.count(reason)} {reason}" for reason in dict.fromkeys(reasons))
        advice = "add photos, or lower --min-width" if "too_small" in reasons else "add photos"
        raise UsageError(
            f"class {label} of task {decision.task} has {left.count(label)} usable photos, two are the least "
            f"(dropped: {why or 'none'}); {advice}"
        )


def _check_validation(decision: Decision) -> None:
    validating = {decision.candidates[i].label for i, side in decision.sides.items() if side == "val"}
    for label in dict.fromkeys(candidate.label for candidate in decision.candidates):
        if label not in validating:
            raise UsageError(
                f"class {label} of task {decision.task} has no photo left to validate with: those it had are "
                "perhaps copies of others that train; add photos, or lower --near"
            )
