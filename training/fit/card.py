"""The model card: what the bundle was made from, what it can do, and what it must not be used for.

Every figure is read from the manifest, so that the card cannot say more than the bundle. Its words are in
`card.md.jinja`.
"""

import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from enrich.atomic import writing
from enrich.looks import colour
from enrich.model.bundle import Bundle
from enrich.model.head import least_backing
from training.markdown import number, page
from training.thresholds.rules import FEWEST_HOMES

TEMPLATE = Path(__file__).with_name("card.md.jinja")
DPI = 100
TICKS = (0.01, 0.1, 0.3, 0.5, 0.7, 0.9, 0.97, 0.99, 0.999)
LETTER = 0.012
"""Width of a letter above a panel, as a share of the panel's."""


def check_card(path: Path) -> None:
    """Refuse, with a UsageError, a place where no model card can be written."""
    with writing(str(path)):
        path.parent.mkdir(parents=True, exist_ok=True)
        there = path.exists()
        path.open("a").close()
        if not there:
            path.unlink()


def write_card(bundle: Bundle, path: Path) -> None:
    """Write the model card of a bundle that `fit` made, as Markdown, and beside it its picture."""
    picture = path.with_name(f"{path.stem}-thresholds.png")
    text = page(
        TEMPLATE,
        bundle=bundle,
        training=bundle.manifest["training"],
        arithmetics=_arithmetics(bundle),
        share=_share,
        least_backing=least_backing,
        fewest_homes=FEWEST_HOMES,
        picture=picture.name,
        command=f"{bundle.manifest['training']['command']} --card {shlex.quote(str(path))}",
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    draw_thresholds(bundle, picture)
    path.write_text(text, encoding="utf-8")


def _arithmetics(bundle: Bundle) -> list[tuple[str, str, Any, Any]]:
    """Head, arithmetic, its figures and its drift from fp32, for each that has figures; fp32's come first."""
    rows: list[tuple[str, str, Any, Any]] = []
    for member in bundle.members:
        for head in member.heads:
            faster = {
                name: one.figures.heads[head.name]
                for name, one in member.variants.items()
                if one.figures is not None and head.name in one.figures.heads
            }
            rows += [(head.name, "fp32", one.fp32, None) for one in list(faster.values())[:1]]
            rows += [(head.name, name, one.here, one.drift) for name, one in faster.items()]
    return rows


def _share(share: dict[str, Any]) -> str:
    """`0.943 (33 of 35) [0.81, 0.99]`."""
    if not share["of"]:
        return "none predicted"
    bounds = f"[{share['low']:.2f}, {share['high']:.2f}]"
    return f"{number(share['value'])} ({share['hits']} of {share['of']}) {bounds}"


def draw_thresholds(bundle: Bundle, path: Path) -> None:
    """Draw precision and recall of held-out homes over the threshold of *yes*, as PNG: a panel for each
    binary head whose figures the manifest holds."""
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
        low, high = inside.min(initial=0.06), inside.max(initial=0.1)
        if high > 0.1:  # homes of a rare attribute score lower, and all that they do is shown
            low = max(0.02, low)
        axes.set(xlim=(low, high), ylim=(0, 1.02), xlabel="yes from probability")
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
