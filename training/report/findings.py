"""Which of the thesis's findings held: every verdict is computed, with the figures beside it."""

from collections.abc import Sequence
from typing import NamedTuple

import pandas as pd

from training import markdown, thesis
from training.report.gathered import SCRATCH
from training.report.tables import COST, Times, percent

HELD, PARTLY, FAILED, OPEN = "held", "held in part", "did not hold", "not tested"
UNJUDGED = "cannot be judged"
FIVE = list(thesis.ARCHITECTURES)


class Finding(NamedTuple):
    """One finding of the thesis, and what our figures say of it."""

    claim: str
    thesis: str
    ours: str
    verdict: str


def accuracy(runs: pd.DataFrame) -> list[Finding]:
    """Of runs that may be compared with each other (the same `peers`).

    The thesis's networks were pretrained, so networks from scratch decide nothing.
    """
    means = runs.groupby(["task", "architecture", "mode"])["best_val_accuracy"].mean().unstack("mode")
    means = means.reindex(columns=list(thesis.MODES))
    pairs = f"in {thesis.PAIRS_WON} of {thesis.PAIRS} pairs"
    best, hardest = f"{_titles(thesis.MOST_ACCURATE)} are", f"{thesis.HARDEST.capitalize()}s are"
    found = [
        Finding("Finetuning beats feature extraction", pairs, *_better(means)),
        Finding(f"{best} the most accurate", "ahead of the other three", *_most_accurate(means)),
        Finding(f"{hardest} the hardest task", "lowest accuracies", *_hardest(means)),
    ]
    if (runs["kind"] == SCRATCH).all():
        return [finding._replace(verdict=OPEN) for finding in found]
    return found


def time(times: Times) -> list[Finding]:
    """Of times that may be compared with each other."""
    low, high = thesis.COST
    more, fastest = "Finetuning costs more time than feature extraction", thesis.title(thesis.FASTEST)
    return [
        Finding(more, f"{low} to {high} times as much", *_cost(times)),
        Finding(f"{fastest} is the fastest", "in all 6 tables", *_fastest(times)),
    ]


def table(findings: Sequence[Finding]) -> str:
    """The findings as Markdown."""
    rows = [finding._replace(verdict=f"**{finding.verdict}**") for finding in findings]
    return markdown.table(["finding", "thesis says", "figures say", "verdict"], rows)


def _better(means: pd.DataFrame) -> tuple[str, str]:
    """What our figures say, and the verdict; as of the others below."""
    pairs = means.dropna()
    if pairs.empty:
        return "no architecture was run in both modes on one task", OPEN
    gain = pairs["finetuning"] - pairs["feature_extraction"]
    won, ties = int((gain > 0).sum()), int((gain == 0).sum())
    ours = f"in {won} of {len(pairs)} pairs" + (f" ({ties} ties)" if ties else "")
    lost = [f"{task}, {thesis.title(name)}" for task, name in gain[gain < 0].index]
    if lost:
        ours += f"; not: {'; '.join(lost)}"
    return ours, HELD if won >= 0.9 * len(pairs) else PARTLY if won > len(pairs) / 2 else FAILED


def _most_accurate(means: pd.DataFrame) -> tuple[str, str]:
    tables = means.stack().unstack("architecture")
    five = tables.reindex(columns=FIVE).dropna()
    if five.empty:
        why, shared = _absent(tables, "run"), tables.dropna()
        if len(tables.columns) > 1 and len(shared):
            why += f"; of what was run: {_means(shared, 'tables', best_first=True)}"
        return why, OPEN
    right = sum(name in thesis.MOST_ACCURATE for name in five.mean().nlargest(2).index)
    return _means(five, "tables", best_first=True), (FAILED, PARTLY, HELD)[right]


def _hardest(means: pd.DataFrame) -> tuple[str, str]:
    tasks = means.stack().unstack("task")
    if absent := [task for task in thesis.TASKS if task not in tasks]:
        return f"not run: {', '.join(absent)}", OPEN
    shared = tasks[list(thesis.TASKS)].dropna()
    five = shared[shared.index.get_level_values("architecture").isin(FIVE)]
    if five.empty:
        why = "none of the thesis's five was run on all three tasks in one mode"
        if len(shared):
            why += f"; of what was run: {_means(shared, 'architectures and modes')}"
        return why, UNJUDGED
    verdict = HELD if five.mean().idxmin() == thesis.HARDEST else FAILED
    return _means(five, "architectures and modes"), verdict


def _cost(times: Times) -> tuple[str, str]:
    costs = times.ratios()[COST]["median"]
    if costs.empty:
        return "no architecture was timed in both modes on one task", OPEN
    ours = f"{costs.min():.1f} to {costs.max():.1f} times as much ({len(costs)} pairs)"
    verdict = PARTLY if costs.min() > 1 else FAILED
    return ours, HELD if costs.round(1).between(*thesis.COST).all() else verdict


def _fastest(times: Times) -> tuple[str, str]:
    tables = times.medians().unstack("architecture")
    five = tables.reindex(columns=FIVE).dropna()
    if five.empty:
        return _absent(tables, "timed"), OPEN
    first = five.idxmin(axis="columns").value_counts()
    counts = ", ".join(f"{thesis.title(str(name))} in {n}" for name, n in first.items())
    won = first.get(thesis.FASTEST, 0)
    verdict = HELD if won == len(five) else PARTLY if won > len(five) / 2 else FAILED
    return f"{counts} of {len(five)} tables", verdict


def _absent(tables: pd.DataFrame, done: str) -> str:
    """Why no table has all of the thesis's five."""
    absent = [name for name in FIVE if name not in tables]
    return f"not {done}: {_titles(absent)}" if absent else "no table has all five"


def _means(tables: pd.DataFrame, of: str, best_first: bool = False) -> str:
    """The columns (architectures, or tasks) by their mean, in percent."""
    ranked = tables.mean().sort_values(ascending=not best_first, kind="stable")
    listed = ", ".join(f"{thesis.title(str(name))} {percent(mean)} %" for name, mean in ranked.items())
    return f"{listed} (means of {len(tables)} {of})"


def _titles(architectures: Sequence[str]) -> str:
    *others, last = [thesis.title(name) for name in architectures]
    return f"{', '.join(others)} and {last}" if others else last
