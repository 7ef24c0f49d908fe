"""The picture of the model card: precision and recall of held-out homes over the threshold of *yes*."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from enrich.looks import colour
from enrich.model.bundle import Bundle

DPI = 100
TICKS = (0.1, 0.3, 0.5, 0.7, 0.9, 0.97, 0.99, 0.999)
LETTER = 0.012
"""Width of a letter above a panel, as a share of the panel's."""


def draw_thresholds(bundle: Bundle, path: Path) -> None:
    """Draw a panel for each binary head whose figures the manifest holds, as PNG."""
    heads = [head for head in bundle.heads if head.kind == "binary"]
    figure = Figure(figsize=(5.6 * len(heads), 4.4), layout="constrained")
    for head, axes in zip(heads, figure.subplots(1, len(heads), squeeze=False)[0], strict=True):
        true, having = head.metrics["true"], head.metrics["homes"]["with"]
        threshold, found, wrong = np.array(true["curve"]).T
        axes.plot(threshold, found / (found + wrong), color=colour("accent"), label="precision, counted")
        axes.plot(threshold, found / having, color=colour("no"), label="recall")
        reached = {target: at for target, at in head.true_at.items() if at < 1}
        for target, at in reached.items():
            own = float(target) == true["target"]
            axes.axvline(at, color=colour("faint"), linestyle="-" if own else ":", linewidth=1)
        inside = threshold[(threshold > 0) & (threshold < 1)]
        axes.set_xscale("logit")
        axes.set_xticks(TICKS, [f"{tick:g}" for tick in TICKS])
        axes.set_xticks([], minor=True)
        axes.set(xlim=(max(0.02, inside.min()), inside.max()), ylim=(0, 1.02), xlabel="yes from probability")
        axes.set_title(f"{head.name}: {having} of {head.metrics['homes']['homes']} homes with it", pad=18)
        within = axes.transScale + axes.transLimits
        places = {target: float(within.transform((at, 0))[0]) for target, at in reached.items()}
        for words, place in _labels(places):
            axes.text(place, 1.01, words, transform=axes.transAxes, ha="center", fontsize=8)
        axes.grid(alpha=0.25)
        axes.legend(loc="lower left", fontsize=9)
    figure.savefig(path, dpi=DPI)


def _labels(places: Mapping[str, float]) -> list[tuple[str, float]]:
    """What to write, and where its middle is: labels that would lie on each other become one, `0.8, 0.9`."""
    made: list[tuple[str, float, float]] = []
    for words, last in sorted(places.items(), key=lambda one: one[1]):
        first = last
        while made and first + last - sum(made[-1][1:]) < LETTER * (len(made[-1][0]) + len(words) + 2):
            before, first, _ = made.pop()
            words = f"{before}, {words}"
        made.append((words, first, last))
    return [(words, (first + last) / 2) for words, first, last in made]
