"""The report's figures: loss and accuracy over the epochs, and confusion matrices.

The same results give the same bytes: pixels are all that is saved.
"""

import io
from collections.abc import Sequence
from itertools import cycle, product
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from matplotlib import rc_context
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator
from PIL import Image
from sklearn.metrics import ConfusionMatrixDisplay

from training import thesis
from training.report.confusion import Confusion
from training.report.gathered import SCRATCH, Gathered, of
from training.thesis import in_order

COLOURS = ("blue", "orange", "green", "red", "purple", "brown", "pink", "gray", "olive", "cyan")
METRICS = {"loss": "loss (cross-entropy)", "accuracy": "accuracy, %"}
MARKERS = ("", "o", "s", "^", "v", "D")
"""Of curves of the same architecture in one figure, such as 10 and 30 epochs."""
PLAIN = rc_context({"text.parse_math": False})
"""Dollars in names are no formulas."""


def colours(architectures: Sequence[str]) -> dict[str, str]:
    """Architecture -> its colour in every figure; the thesis's five have theirs whatever else was run."""
    palette = [f"tab:{name}" for name in COLOURS]
    five = dict(zip(thesis.ARCHITECTURES, palette, strict=False))
    others = [name for name in architectures if name not in five]
    return five | dict(zip(others, cycle(palette[len(five) :]), strict=False))


@PLAIN
def draw_curves(gathered: Gathered, folder: Path) -> dict[str, str]:
    """Figures of every task, mode and metric that has epochs; from scratch apart from pretrained.

    Returns:
        File name -> title, in the order of the tasks.
    """
    there = [*gathered.runs["architecture"], *gathered.timings["architecture"]]
    colour = colours(in_order(there, thesis.ARCHITECTURES))
    drawn = {}
    for task, mode, scratch in product(gathered.tasks(), thesis.MODES, (False, True)):
        own = of(gathered.epochs, task, mode)
        own = own[(own["kind"] == SCRATCH) == scratch]
        for metric in METRICS if len(own) else ():
            file, title = _names(metric, task, mode, scratch)
            drawn[file] = title
            _save(curve_figure(own, metric, title, colour), folder / file)
    return drawn


def curve_figure(epochs: pd.DataFrame, metric: str, title: str, colour: dict[str, str]) -> Figure:
    """Curves of one task and mode: of each `label` the validation, solid, and the training, dashed.

    `metric`: a key of `METRICS`. `colour`: see `colours`. Of several seeds the mean.
    """
    figure = Figure(figsize=(8.4, 4.6), layout="constrained")
    axes = figure.add_subplot()
    scale = 100 if metric == "accuracy" else 1
    seen: dict[str, int] = {}
    order = [name for name in colour if name in set(epochs["architecture"])]
    for architecture in order:
        for label, own in epochs[epochs["architecture"] == architecture].groupby("label", sort=False):
            mean = own.groupby("epoch")[[f"train_{metric}", f"val_{metric}"]].mean() * scale
            marker = MARKERS[seen.get(architecture, 0) % len(MARKERS)]
            seen[architecture] = seen.get(architecture, 0) + 1
            kwargs: dict[str, Any] = {"color": colour[architecture], "marker": marker, "markersize": 3}
            axes.plot(mean.index, mean[f"val_{metric}"], label=_wrapped(label), linewidth=1.8, **kwargs)
            axes.plot(mean.index, mean[f"train_{metric}"], linestyle="--", linewidth=1, alpha=0.8, **kwargs)
    axes.set(title=title, xlabel="epoch", ylabel=METRICS[metric])
    axes.set_xlim(left=0.5)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.grid(alpha=0.3)
    handles, labels = axes.get_legend_handles_labels()
    handles += [Line2D([], [], color="black"), Line2D([], [], color="black", linestyle="--")]
    figure.legend(handles, [*labels, "validation", "training"], loc="outside right upper", frameon=False)
    return figure


@PLAIN
def draw_confusions(found: Sequence[Confusion], folder: Path) -> dict[str, str]:
    """A figure a task and mode, with a matrix a run; from scratch apart from pretrained.

    Returns:
        File name -> title, in the order of `found`'s tasks.
    """
    drawn = {}
    tasks = dict.fromkeys(one.task for one in found)
    for task, mode, scratch in product(tasks, thesis.MODES, (False, True)):
        own = [one for one in found if (one.task, one.mode, one.kind == SCRATCH) == (task, mode, scratch)]
        if own:
            file, title = _names("confusion", task, mode, scratch)
            drawn[file] = title
            _save(_matrices(own, title), folder / file)
    return drawn


def _matrices(found: Sequence[Confusion], title: str) -> Figure:
    columns = min(3, len(found))
    rows = -(-len(found) // columns)
    figure = Figure(figsize=(max(3.2 * columns, 5.5), 3.1 * rows + 0.4), layout="constrained")
    figure.suptitle(title)
    for n, one in enumerate(found):
        axes = figure.add_subplot(rows, columns, n + 1)
        shares = one.counts / np.maximum(one.counts.sum(axis=1, keepdims=True), 1)
        shown = ConfusionMatrixDisplay(shares, display_labels=one.classes)
        shown.plot(ax=axes, cmap="Blues", colorbar=False, xticks_rotation=20, im_kw={"vmin": 0, "vmax": 1})
        for text, count in zip(shown.text_.flat, one.counts.flat, strict=True):
            text.set_text(str(count))  # coloured by its share of the class
        axes.set(title=_wrapped(one.label), xlabel="predicted", ylabel="truth")
        axes.title.set_fontsize(10)
    return figure


def _save(figure: Figure, path: Path) -> None:
    """A small file: 64 colours are enough for lines and letters."""
    drawn = io.BytesIO()
    figure.savefig(drawn, format="png", dpi=110)
    with Image.open(drawn) as image:
        image.convert("RGB").quantize(64, dither=Image.Dither.NONE).save(path, optimize=True)


def _names(what: str, task: str, mode: str, scratch: bool) -> tuple[str, str]:
    """File name and title of a figure."""
    parts = [what, task, mode, *([SCRATCH] if scratch else [])]
    file = "-".join("".join(c if c.isalnum() else "-" for c in part.lower()) for part in parts)
    title = ", ".join([task.capitalize(), thesis.MODES[mode], *parts[3:]])
    return f"{file}.png", f"{title}: {what}"


def _wrapped(label: str) -> str:
    return label.replace(", ", ",\n")
