"""Which of the thesis's findings held: every verdict is computed, with the figures beside it."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import pandas as pd

from training import thesis
from training.markdown import table
from training.report.gathered import SCRATCH
from training.report.ratios import Times
from training.report.tables import percent

HELD, PARTLY, FAILED, OPEN = "held", "held in part", "did not hold", "not tested"

RULES = f"""How the verdicts are reached:

- Finetuning is better: {HELD} where it wins at least nine in ten pairs (one task, one architecture,
  both modes), {PARTLY} where it wins more than half; a tie is no win.
- The most accurate: {HELD} where the two highest of the thesis's five, by the mean over all tables
  that the five share, are the thesis's two; {PARTLY} where one of them is.
- The hardest task: {HELD} where fireplaces have the lowest mean over all architectures and modes that
  were run on all three tasks.
- What finetuning costs: {HELD} where every pair lies within the thesis's range, to one decimal;
  {PARTLY} where finetuning takes longer in every pair.
- The fastest: {HELD} where AlexNet is the fastest of the five in every table, {PARTLY} where it is
  in most."""


@dataclass(frozen=True)
class Finding:
    """One finding of the thesis, and what our figures say of it."""

    claim: str
    thesis: str
    ours: str
    verdict: str


def accuracy_findings(runs: pd.DataFrame) -> list[Finding]:
    """Of runs that may be compared with each other (the same `peers`).

    The thesis's networks were pretrained, so networks from scratch decide nothing.
    """
    means = runs.groupby(["task", "architecture", "mode"])["best_val_accuracy"].mean().unstack("mode")
    means = means.reindex(columns=list(thesis.MODES))
    found = [_better(means), _most_accurate(means), _hardest(means)]
    if (runs["kind"] == SCRATCH).all():
        return [replace(finding, verdict=OPEN) for finding in found]
    return found


def time_findings(times: Times) -> list[Finding]:
    """Of times that may be compared with each other."""
    return [_cost(times), _fastest(times)]


def findings_table(findings: Sequence[Finding]) -> str:
    """The findings as Markdown."""
    rows = [[f.claim, f.thesis, f.ours, f"**{f.verdict}**"] for f in findings]
    return table(["finding", "thesis says", "figures say", "verdict"], rows)


def _better(means: pd.DataFrame) -> Finding:
    claim = "Finetuning beats feature extraction"
    stated = f"in {thesis.PAIRS_WON} of {thesis.PAIRS} pairs"
    pairs = means.dropna()
    if pairs.empty:
        return Finding(claim, stated, "no architecture was run in both modes on one task", OPEN)
    gain = pairs["finetuning"] - pairs["feature_extraction"]
    won, ties = int((gain > 0).sum()), int((gain == 0).sum())
    ours = f"in {won} of {len(pairs)} pairs" + (f" ({ties} ties)" if ties else "")
    lost = [f"{task}, {thesis.title(name)}" for task, name in gain[gain < 0].index]
    if lost:
        ours += f"; not: {'; '.join(lost)}"
    verdict = HELD if won >= 0.9 * len(pairs) else PARTLY if won > len(pairs) / 2 else FAILED
    return Finding(claim, stated, ours, verdict)


def _most_accurate(means: pd.DataFrame) -> Finding:
    best = thesis.MOST_ACCURATE
    claim, stated = f"{_titles(best)} are the most accurate", "ahead of the other three"
    tables = means.stack().unstack("architecture")
    absent = [name for name in thesis.ARCHITECTURES if name not in tables]
    five = tables.reindex(columns=list(thesis.ARCHITECTURES)).dropna()
    if five.empty:
        why = f"not run: {_titles(absent)}" if absent else "no table has all five"
        if len(tables.columns) > 1 and len(tables.dropna()):
            why += f"; of what was run: {_accuracies(tables.dropna())}"
        return Finding(claim, stated, why, OPEN)
    highest = five.mean().nlargest(2).index
    right = sum(name in best for name in highest)
    return Finding(claim, stated, _accuracies(five), {2: HELD, 1: PARTLY, 0: FAILED}[right])


def _hardest(means: pd.DataFrame) -> Finding:
    claim, stated = f"{thesis.HARDEST.capitalize()}s are the hardest task", "lowest accuracies"
    tasks = means.stack().unstack("task")
    absent = [task for task in thesis.TASKS if task not in tasks]
    if absent:
        return Finding(claim, stated, f"not run: {', '.join(absent)}", OPEN)
    shared = tasks[list(thesis.TASKS)].dropna()
    if shared.empty:
        return Finding(claim, stated, "no architecture was run on all three tasks in one mode", OPEN)
    ranked = shared.mean().sort_values(kind="stable")
    ours = ", ".join(f"{task} {percent(mean)} %" for task, mean in ranked.items())
    ours += f" (means of {len(shared)} architectures and modes)"
    return Finding(claim, stated, ours, HELD if ranked.index[0] == thesis.HARDEST else FAILED)


def _cost(times: Times) -> Finding:
    low, high = thesis.COST
    claim, stated = "Finetuning costs more time than feature extraction", f"{low} to {high} times as much"
    costs = [ratio.median for ratio in times.costs().values()]
    if not costs:
        return Finding(claim, stated, "no architecture was timed in both modes on one task", OPEN)
    ours = f"{min(costs):.1f} to {max(costs):.1f} times as much ({len(costs)} pairs)"
    if low <= round(min(costs), 1) and round(max(costs), 1) <= high:
        return Finding(claim, stated, ours, HELD)
    return Finding(claim, stated, ours, PARTLY if min(costs) > 1 else FAILED)


def _fastest(times: Times) -> Finding:
    claim, stated = f"{_titles([thesis.FASTEST])} is the fastest", "in all 6 tables"
    medians = pd.Series(times.medians()).rename_axis(["task", "architecture", "mode"])
    tables = medians.unstack("architecture")
    absent = [name for name in thesis.ARCHITECTURES if name not in tables]
    if absent:
        return Finding(claim, stated, f"not timed: {_titles(absent)}", OPEN)
    five = tables[list(thesis.ARCHITECTURES)].dropna()
    if five.empty:
        return Finding(claim, stated, "no table has all five", OPEN)
    first = five.idxmin(axis="columns")
    counts = ", ".join(f"{thesis.title(name)} in {n}" for name, n in first.value_counts().items())
    won = int((first == thesis.FASTEST).sum())
    verdict = HELD if won == len(five) else PARTLY if won > len(five) / 2 else FAILED
    return Finding(claim, stated, f"{counts} of {len(five)} tables", verdict)


def _accuracies(tables: pd.DataFrame) -> str:
    """Architectures by their mean over `tables` (one row a table, one column an architecture)."""
    ranked = tables.mean().sort_values(ascending=False, kind="stable")
    listed = ", ".join(f"{thesis.title(str(name))} {percent(mean)} %" for name, mean in ranked.items())
    return f"{listed} (means of {len(tables)} tables)"


def _titles(architectures: Sequence[str]) -> str:
    titles = [thesis.title(name) for name in architectures]
    return " and ".join([", ".join(titles[:-1]), titles[-1]] if len(titles) > 1 else titles)
