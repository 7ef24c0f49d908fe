"""What `prepare` tells people: pairs of like photos, as a list and as pictures, and lines for the prompt."""

from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from training.data.decide import DOUBTFUL, STRADDLES, Decision, Rules
from training.data.prepared import SHEET
from training.data.sheet import contact_sheet
from training.data.sources import Candidate
from training.data.split import THESIS_SIZES

BATCH = 32
"""The thesis's; `compare` refuses a class with fewer training photos than its batch."""
SHEET_PAIRS = 120
"""Pairs on the contact sheet at most."""
SHOWN = ("contradicting", STRADDLES, DOUBTFUL, "near_duplicate")
"""What came of the pairs on the contact sheet, the most doubtful first."""


def remarks(decisions: Sequence[Decision]) -> dict[str, Any]:
    """Entries of prepared.json on pairs of like photos."""
    return {
        "pairs": [
            {
                "task": decision.task,
                "decision": reason,
                "distance": pair.distance,
                "photos": [decision.candidates[i].source for i in (pair.first, pair.second)],
            }
            for decision in decisions
            for reason, pair in decision.pairs
        ],
        "straddling_pairs_without_cleaning": {
            decision.task: decision.straddling_uncleaned for decision in decisions
        },
    }


def draw_sheet(root: Path, path: Path, decisions: Sequence[Decision]) -> None:
    """The pairs that people should look at, side by side; of each kind the farthest apart first."""
    found: dict[tuple[str, str], tuple[int, int, list[Candidate]]] = {}
    for decision in decisions:
        for reason, pair in decision.pairs:
            if reason in SHOWN:
                ends = [decision.candidates[i] for i in (pair.first, pair.second)]
                found.setdefault((ends[0].source, ends[1].source), (SHOWN.index(reason), pair.distance, ends))
    ranked = sorted(found.values(), key=lambda one: (one[0], -one[1]))[:SHEET_PAIRS]
    cells = [
        (
            root / end.source,
            f"{n}: {SHOWN[rank]}, {distance} bits\n{end.task}/{end.label}\n{end.source[-40:]}",
        )
        for n, (rank, distance, ends) in enumerate(ranked, start=1)
        for end in ends
    ]
    contact_sheet(path, cells, columns=6, cell=(220, 165))


def notes(rules: Rules, decisions: Sequence[Decision]) -> Iterator[str]:
    """Lines for the person at the keyboard."""
    for decision in decisions:
        yield from _size_notes(rules, decision)
        found = Counter(reason for reason, _ in decision.pairs)
        if rules.split == "thesis":
            yield (
                f"{decision.task}: uncleaned, {decision.straddling_uncleaned} pairs of near-duplicates would "
                "stand on both sides of the split; now none does"
            )
        if found[DOUBTFUL] + found[STRADDLES]:
            yield (
                f"{decision.task}: {found[DOUBTFUL]} doubtful pairs kept, {found[STRADDLES]} others lost "
                f"their validation photo; look at {SHEET}"
            )


def _size_notes(rules: Rules, decision: Decision) -> Iterator[str]:
    counts = Counter(decision.candidates[i].label for i in decision.sides)
    training = Counter(decision.candidates[i].label for i, side in decision.sides.items() if side == "train")
    for label, count in counts.items():
        thesis = THESIS_SIZES.get((decision.task, label))
        if rules.sizes == "thesis" and thesis is None:
            yield f"{decision.task}/{label}: the thesis had no such class, all photos are kept"
        elif rules.sizes == "thesis" and thesis is not None and count < thesis:
            yield f"{decision.task}/{label}: {count} photos, the thesis had {thesis}"
        if training[label] < BATCH:
            yield (
                f"warning: class {label} of task {decision.task} has {training[label]} training photos, "
                f"fewer than a batch of {BATCH}; add photos or use a smaller --batch in compare"
            )
