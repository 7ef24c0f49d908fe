"""The folder of an evaluation: figures, pictures, and the page about them (words in `report.md.jinja`)."""

import json
import re
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from sklearn.calibration import CalibrationDisplay
from sklearn.metrics import ConfusionMatrixDisplay, PrecisionRecallDisplay

from enrich.atomic import check_folder
from enrich.errors import UsageError
from enrich.looks import colour
from training.data.photos import PhotoSet
from training.data.sheet import contact_sheet
from training.evaluate.measure import BINS, Answers, Measured, calibration_error, reliability
from training.markdown import number, page
from training.thresholds.calibrate import Counts, Share, rounded

TEMPLATE = Path(__file__).with_name("report.md.jinja")
SHOWN = 24
"""Mistakes of each kind on a contact sheet."""
COLOUR, QUIET, WRONG = colour("accent"), colour("faint"), colour("no")
DPI = 110
_SHOWS = re.compile(r"\(([^()/]+_(?:precision_recall|reliability|mistakes|confusion)\.png)\)")


def check_out(out: Path) -> None:
    """Refuse, with a UsageError, a folder that holds something else than an evaluation, and a place that
    cannot be written."""
    check_folder(out, f"--out {out}", replaced=False)
    if out.exists() and (not out.is_dir() or (any(out.iterdir()) and not (out / "metrics.json").is_file())):
        raise UsageError(f"--out {out}: holds something else than an evaluation; choose another folder")


def write_out(out: Path, described: dict[str, Any], measured: Sequence[Measured], photos: PhotoSet) -> None:
    """Write metrics.json (what was evaluated, and the figures of every head), report.md and the pictures: all
    made beside `out` first, then put in place of an earlier evaluation's."""
    metrics = described | {"heads": {one.head.name: one.figures for one in measured}}
    chosen = [f"{name} {value}" for name, value in metrics["photos"]["chosen"].items() if value]
    text = page(TEMPLATE, metrics=metrics, heads=[one.head for one in measured], chosen=chosen)
    out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{out.name}.", dir=out.parent) as scratch:
        made = Path(scratch)
        for one in measured:
            _draw(one, photos, made)
        (made / "metrics.json").write_text(json.dumps(metrics, indent=1, allow_nan=False) + "\n")
        (made / "report.md").write_text(text, encoding="utf-8")
        out.mkdir(exist_ok=True)
        earlier = out / "report.md"
        for picture in _SHOWS.findall(earlier.read_text(encoding="utf-8")) if earlier.is_file() else ():
            (out / picture).unlink(missing_ok=True)
        for file in made.iterdir():
            file.replace(out / file.name)


def _draw(measured: Measured, photos: PhotoSet, folder: Path) -> None:
    name = measured.head.name
    if measured.head.kind == "binary":
        draw_precision_recall(measured, folder / f"{name}_precision_recall.png")
        mistakes = _worst_mistakes(measured, photos)
        contact_sheet(folder / f"{name}_mistakes.png", mistakes, columns=min(6, max(2, len(mistakes))))
    else:
        draw_confusion(measured, folder / f"{name}_confusion.png")
    draw_reliability(name, measured.answers, folder / f"{name}_reliability.png")


def _worst_mistakes(measured: Measured, photos: PhotoSet) -> list[tuple[Path, str]]:
    """The surest mistakes of a binary head: photos labelled 0 with the highest scores, then photos labelled 1
    with the lowest, `SHOWN` of each at most, on the wrong side of one half."""
    name, answers = measured.head.name, measured.answers["photos"]
    truth, score = answers.truth, answers.score
    order = np.argsort(score, kind="stable")
    falsely, missed = ~truth & (score >= 0.5), truth & (score < 0.5)
    surest = {f"no {name}": [i for i in order[::-1] if falsely[i]], name: [i for i in order if missed[i]]}
    shown = []
    for words, places in surest.items():
        for place in places[:SHOWN]:
            path = photos.paths[measured.rows[place]]
            short = path if len(path) <= 34 else f"…{path[-33:]}"
            shown.append((photos.folder / path, f"labelled {words}: {score[place]:.3f}\n{short}"))
    return shown


def draw_precision_recall(measured: Measured, path: Path) -> None:
    """Photos left, listings (by their highest photo) right, the `true` threshold marked on both."""
    figure = Figure(figsize=(10, 4.6), layout="constrained")
    threshold = measured.head.true_threshold
    for axes, (what, answers) in zip(figure.subplots(1, 2), measured.answers.items(), strict=True):
        truth = answers.truth
        axes.set_title(f"{len(truth)} {what}, {int(truth.sum())} with it", fontsize=10)
        axes.grid(alpha=0.25)
        if truth.any() and not truth.all():
            shown = PrecisionRecallDisplay.from_predictions(
                truth, answers.score, ax=axes, name="all thresholds", plot_chance_level=True
            )
            shown.line_.set_color(COLOUR)
            shown.chance_level_.set_color(QUIET)
            counts = Counts.at(answers.score, truth, threshold)
            if counts.tp + counts.fp:
                spot = counts.recall.value, counts.precision.value
                label = f"true from {threshold:.3f}: precision {spot[1]:.2f}, recall {spot[0]:.2f}"
                axes.plot(*spot, "o", color=WRONG, markersize=8, label=label, clip_on=False)
            axes.legend(loc="lower left", fontsize=9)
        axes.set(xlim=(0, 1.02), ylim=(0, 1.02), xlabel="recall", ylabel="precision", aspect="auto")
    figure.suptitle(f"{measured.head.name}: precision against recall")
    figure.savefig(path, dpi=DPI)


def draw_reliability(name: str, panels: dict[str, Answers], path: Path) -> None:
    """A reliability diagram per entry of `panels`, with how many answers are behind each bin."""
    figure = Figure(figsize=(5 * len(panels), 5.6), layout="constrained")
    grid = figure.subplots(2, len(panels), height_ratios=(3, 1), sharex=True, squeeze=False)
    for (what, answers), upper, lower in zip(panels.items(), *grid, strict=True):
        bins = reliability(answers.confidence, answers.truth)
        mean, right = bins["confidence"].to_numpy(), bins["right"].to_numpy()
        CalibrationDisplay(right, mean, answers.confidence).plot(ax=upper, color=COLOUR)
        for x, y, count in zip(mean, right, bins["answers"], strict=True):
            upper.plot((x, x), Share(round(y * count), int(count)).interval, color=COLOUR)
        upper.get_legend().remove()
        error = number(rounded(calibration_error(answers.confidence, answers.truth)))  # as the page has it
        upper.set(xlim=(0, 1), ylim=(0, 1.02), aspect="auto", xlabel="", ylabel="share that is right")
        upper.set_title(f"{len(answers.truth)} {what}, calibration error {error}", fontsize=10)
        lower.hist(answers.confidence, BINS, range=(0, 1), color=QUIET, edgecolor="white")
        lower.set_yscale("symlog", linthresh=1)
        lower.set(xlabel="confidence", ylabel="how many (log)", ylim=(0, max(2, bins["answers"].max() * 2)))
    figure.suptitle(f"{name}: confidence against the truth")
    figure.savefig(path, dpi=DPI)


def draw_confusion(measured: Measured, path: Path) -> None:
    """Counts of photos by class and answer, coloured by the share of their class; recall in the margin."""
    names = [kind.name for kind in measured.head.classes]
    counts = np.array(measured.figures["confusion"])
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
