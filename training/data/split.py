"""Who trains and who validates, and how many of each class there are at all."""

from collections import Counter, defaultdict
from collections.abc import Sequence

import numpy as np
from sklearn.model_selection import StratifiedGroupKFold

from enrich.errors import UsageError
from training.data.prepared import Split
from training.data.sources import Candidate

FOLDS = 5
"""One of five folds validates: 20 %."""
THESIS_SIZES = {
    ("balcony", "balcony"): 697,
    ("balcony", "indoor"): 608,
    ("fireplace", "fireplace"): 478,
    ("fireplace", "no_fireplace"): 256,
    ("rooms", "kitchen"): 320,
    ("rooms", "bathroom"): 260,
    ("rooms", "bedroom"): 364,
}


def cap(candidates: Sequence[Candidate], most: int) -> set[int]:
    """Positions beyond the first `most` photos of a group and class."""
    seen: Counter[tuple[str, str]] = Counter()
    beyond = set()
    for i, candidate in enumerate(candidates):
        seen[candidate.label, candidate.group] += 1
        if seen[candidate.label, candidate.group] > most:
            beyond.add(i)
    return beyond


def draw(candidates: Sequence[Candidate], seed: int) -> set[int]:
    """Positions left over when each class of one task is drawn down to the size that the thesis had."""
    rng = np.random.default_rng(seed)
    over: set[int] = set()
    for members in _by_class(candidates).values():
        size = THESIS_SIZES.get((candidates[members[0]].task, candidates[members[0]].label), len(members))
        over |= set(rng.permutation(members)[size:].tolist())
    return over


def thesis_split(candidates: Sequence[Candidate]) -> list[Split]:
    """The first 80 % of each class of one task train, the rest validates."""
    sides: list[Split] = ["train"] * len(candidates)
    for members in _by_class(candidates).values():
        for i in members[len(members) * 8 // 10 :]:
            sides[i] = "val"
    return sides


def group_split(candidates: Sequence[Candidate], seed: int) -> list[Split]:
    """Whole homes on one side, about 20 % of each class of one task for validation.

    Raises:
        UsageError: a class has photos of too few homes to have some on both sides.
    """
    task = candidates[0].task
    homes = defaultdict(set)
    for candidate in candidates:
        homes[candidate.label].add(candidate.group)
    few = [label for label, groups in homes.items() if len(groups) < FOLDS]
    if few:
        raise UsageError(
            f"class {few[0]} of task {task} has photos of {len(homes[few[0]])} homes only: "
            f"--split group needs {FOLDS}; add photos, or use --split thesis"
        )
    labels = np.asarray([candidate.label for candidate in candidates])
    groups = np.asarray([candidate.group for candidate in candidates])
    splitter = StratifiedGroupKFold(FOLDS, shuffle=True, random_state=seed)
    folds = [validates for _, validates in splitter.split(labels, labels, groups)]
    best = min(folds, key=lambda fold: _imbalance(labels, fold))
    missing = set(labels) - set(labels[best])
    if missing:
        raise UsageError(
            f"class {sorted(missing)[0]} of task {task} cannot be split by home: most of its "
            "photos are of one home; try --cap, another --seed, or --split thesis"
        )
    validates = set(best.tolist())
    return ["val" if i in validates else "train" for i in range(len(candidates))]


def _imbalance(labels: np.ndarray, fold: np.ndarray) -> float:
    """How far the worst class is from its 20 %."""
    shares = [(labels[fold] == label).sum() / (labels == label).sum() for label in np.unique(labels)]
    return float(max(abs(share - 1 / FOLDS) for share in shares))


def _by_class(candidates: Sequence[Candidate]) -> dict[str, list[int]]:
    members: dict[str, list[int]] = defaultdict(list)
    for i, candidate in enumerate(candidates):
        members[candidate.label].append(i)
    return members
