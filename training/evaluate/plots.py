"""The pictures of a report: precision against recall, reliability, confusion."""

from pathlib import Path

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from sklearn.metrics import ConfusionMatrixDisplay, average_precision_score, precision_recall_curve

from enrich.looks import colour
from training.evaluate.classes import ClassesMeasured
from training.evaluate.measure import Answers, BinaryMeasured, Reliability, reliability
from training.thresholds.calibrate import Counts, Share

matplotlib.use("Agg")

COLOUR, QUIET, WRONG = colour("accent"), colour("faint"), colour("no")
DPI = 110


def draw_precision_recall(measured: BinaryMeasured, path: Path) -> None:
    """Photos left, listings (by their highest photo) right, the `true` threshold marked on both."""
    figure = Figure(figsize=(10, 4.6), layout="constrained")
    left, right = figure.subplots(1, 2)
    threshold = measured.head.true_threshold
    _precision_recall(left, measured.photos, threshold, "photos")
    _precision_recall(right, measured.homes, threshold, "listings")
    figure.suptitle(f"{measured.head.name}: precision against recall")
    figure.savefig(path, dpi=DPI)


def _precision_recall(axes: Axes, answers: Answers, threshold: float, what: str) -> None:
    axes.set(xlim=(0, 1.02), ylim=(0, 1.02), xlabel="recall", ylabel="precision")
    axes.grid(alpha=0.25)
    truth = answers.truth
    if not truth.any() or truth.all():
        axes.set_title(f"{len(truth)} {what}, {int(truth.sum())} with it: nothing to tell apart", fontsize=10)
        return
    precision, recall, _ = precision_recall_curve(truth, answers.score)
    average = average_precision_score(truth, answers.score)
    axes.step(recall, precision, where="post", color=COLOUR)
    axes.axhline(truth.mean(), color=QUIET, linestyle=":", label=f"all called true: {truth.mean():.2f}")
    counts = Counts.at(answers.score, truth, threshold)
    if counts.tp + counts.fp:
        spot = counts.recall.value, counts.precision.value
        label = f"true from {threshold:.3f}: precision {spot[1]:.2f}, recall {spot[0]:.2f}"
        axes.plot(*spot, "o", color=WRONG, markersize=8, label=label, clip_on=False)
    title = f"{len(truth)} {what}, {int(truth.sum())} with it: average precision {average:.3f}"
    axes.set_title(title, fontsize=10)
    axes.legend(loc="lower left", fontsize=9)


def draw_reliability(name: str, panels: dict[str, Answers], path: Path) -> None:
    """A reliability diagram per entry of `panels`, with how many answers are behind each bin."""
    figure = Figure(figsize=(5 * len(panels), 5.6), layout="constrained")
    grid = figure.subplots(2, len(panels), height_ratios=(3, 1), sharex=True, squeeze=False)
    for (what, answers), upper, lower in zip(panels.items(), grid[0], grid[1], strict=True):
        bins = reliability(answers.confidence, answers.truth)
        edges = np.linspace(0, 1, len(bins.count) + 1)
        width = edges[1]
        upper.plot([0, 1], [0, 1], color=QUIET, linestyle="--")
        filled = bins.count > 0
        upper.bar(edges[:-1][filled], bins.right[filled], width, align="edge", color=COLOUR, alpha=0.35)
        bounds = (
            np.array([_interval(bins, place) for place in np.flatnonzero(filled).tolist()]).reshape(-1, 2).T
        )
        reach = np.abs(bounds - bins.right[filled])
        upper.errorbar(
            bins.confidence[filled],
            bins.right[filled],
            reach,
            fmt="o-",
            color=COLOUR,
            markersize=5,
            capsize=3,
        )
        upper.set(xlim=(0, 1), ylim=(0, 1.02), ylabel="share that is right")
        upper.set_title(f"{len(answers.truth)} {what}, calibration error {bins.error:.3f}", fontsize=10)
        lower.bar(edges[:-1], bins.count, width, align="edge", color=QUIET, edgecolor="white")
        lower.set_yscale("symlog", linthresh=1)
        lower.set(xlabel="confidence", ylabel="how many (log)", ylim=(0, max(2, bins.count.max() * 2)))
    figure.suptitle(f"{name}: confidence against the truth")
    figure.savefig(path, dpi=DPI)


def _interval(bins: Reliability, place: int) -> tuple[float, float]:
    count = int(bins.count[place])
    return Share(round(bins.right[place] * count), count).interval


def draw_confusion(measured: ClassesMeasured, path: Path) -> None:
    """Counts of photos by class and answer, coloured by the share of their class; recall in the margin."""
    names = [kind.name for kind in measured.head.classes]
    counts = measured.confusion
    totals = counts.sum(axis=1, keepdims=True)
    shares = np.divide(counts, totals, out=np.zeros(counts.shape), where=totals > 0)
    side = 2.5 + 0.62 * len(names)
    figure = Figure(figsize=(side + 1.0, side), layout="constrained")
    axes = figure.subplots()
    shown = ConfusionMatrixDisplay(shares, display_labels=names)
    shown.plot(ax=axes, cmap="Blues", colorbar=False, im_kw={"vmin": 0, "vmax": 1}, xticks_rotation=45)
    for cell, count in zip(shown.text_.flat, counts.flat, strict=True):
        cell.set(text=str(count) if count else "", fontsize=9)
    accuracy = [
        f"{name}  {share:.1%}" if total else f"{name}  –"
        for name, share, total in zip(names, shares.diagonal(), totals[:, 0], strict=True)
    ]
    axes.set_yticks(range(len(names)), accuracy)
    axes.set(xlabel="answer", ylabel="truth, and the share of it that was right")
    right = counts.trace() / max(counts.sum(), 1)
    axes.set_title(f"{measured.head.name}: {right:.1%} of {counts.sum()} photos right")
    figure.savefig(path, dpi=DPI)
