"""The picture of the model card: precision and recall of held-out homes over the threshold of *yes*."""

from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from enrich.looks import colour
from enrich.model.bundle import Bundle

DPI = 100
TICKS = (0.1, 0.3, 0.5, 0.7, 0.9, 0.97, 0.99, 0.999)


def draw_thresholds(bundle: Bundle, path: Path) -> None:
    """Draw a panel for each binary head whose figures the manifest holds, as PNG."""
    heads = [head for head in bundle.heads if head.kind == "binary"]
    figure = Figure(figsize=(5.6 * len(heads), 4.4), layout="constrained")
    for head, axes in zip(heads, figure.subplots(1, len(heads), squeeze=False)[0], strict=True):
        true, having = head.metrics["true"], head.metrics["homes"]["with"]
        threshold, found, wrong = np.array(true["curve"]).T
        axes.plot(threshold, found / (found + wrong), color=colour("accent"), label="precision, counted")
        axes.plot(threshold, found / having, color=colour("no"), label="recall")
        for target, at in head.true_at.items():
            if at < 1:
                own = float(target) == true["target"]
                axes.axvline(at, color=colour("faint"), linestyle="-" if own else ":", linewidth=1)
                axes.annotate(target, (at, 1.03), ha="center", fontsize=8, annotation_clip=False)
        inside = threshold[(threshold > 0) & (threshold < 1)]
        axes.set_xscale("logit")
        axes.set_xticks(TICKS, [f"{tick:g}" for tick in TICKS])
        axes.set_xticks([], minor=True)
        axes.set(xlim=(max(0.02, inside.min()), inside.max()), ylim=(0, 1.02), xlabel="yes from probability")
        axes.set_title(f"{head.name}: {having} of {head.metrics['homes']['homes']} homes with it", pad=18)
        axes.grid(alpha=0.25)
        axes.legend(loc="lower left", fontsize=9)
    figure.savefig(path, dpi=DPI)
