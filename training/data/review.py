"""What `prepare` tells people: pairs of like photos, as a list and as pictures, and lines for the prompt."""

from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from training.data.decide import DOUBTFUL, STRADDLES, Decision, Rules
from training.data.prepared import SHEET
from training.data.sheet import contact_sheet
from training.data.split import THESIS_SIZES

BATCH = 32
"""The thesis's; `compare` refuses a class with fewer training photos than its batch."""
SHEET_PAIRS = 120
"""Pairs on the contact sheet at most."""
SHOWN = ("contradicting", STRADDLES, DOUBTFUL, "near_duplicate")
"""What came of the pairs on the contact sheet, the most doubtful first."""


def remarks(decisions: Sequence[Decision]) -> dict[str, Any]:
    """Entries of prepared.json on pairs of like photos."""
    pairs = [
        {
            "task": first.task,
            "decision": reason,
            "distance": distance,
            "photos": [first.source, second.source],
        }
        for reason, distance, first, second in _pairs(decisions)
    ]
    straddling = {decision.task: decision.straddling_uncleaned for decision in decisions}
    return {"pairs": pairs, "straddling_pairs_without_cleaning": straddling}


def draw_sheet(root: Path, path: Path, decisions: Sequence[Decision]) -> None:
    """The pairs that people should look at, side by side; of each kind the farthest apart first."""
    found: dict[tuple[str, str], tuple[str, int, Any, Any]] = {}
    for reason, distance, first, second in _pairs(decisions):
        if reason in SHOWN:
            found.setdefault((first.source, second.source), (reason, distance, first, second))
    ranked = sorted(found.values(), key=lambda pair: (SHOWN.index(pair[0]), -pair[1]))[:SHEET_PAIRS]
    cells = [
        (root / end.source, f"{n}: {reason}, {distance} bits\n{end.task}/{end.label}\n{end.source[-40:]}")
        for n, (reason, distance, *ends) in enumerate(ranked, start=1)
        for end in ends
    ]
    contact_sheet(path, cells, columns=6, cell=(220, 165))


def _pairs(decisions: Sequence[Decision]) -> Iterator[tuple[str, int, Any, Any]]:
    """What came of each pair, its distance, and its two rows."""
    for decision in decisions:
        for reason, pair in decision.pairs:
            yield reason, pair.distance, decision.table.loc[pair.first], decision.table.loc[pair.second]


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
    for label, own in decision.kept.groupby("label", sort=False):
        count, training = len(own), int((own["side"] == "train").sum())
        thesis = THESIS_SIZES.get((decision.task, label))
        if rules.sizes == "thesis" and thesis is None:
            yield f"{decision.task}/{label}: the thesis had no such class, all photos are kept"
        elif rules.sizes == "thesis" and thesis is not None and count < thesis:
            yield f"{decision.task}/{label}: {count} photos, the thesis had {thesis}"
        if training < BATCH:
            yield (
                f"warning: class {label} of task {decision.task} has {training} training photos, "
                f"fewer than a batch of {BATCH}; add photos or use a smaller --batch in compare"
            )
