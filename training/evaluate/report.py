"""The folder of an evaluation: figures, the page about them, and pictures.

The page's words are in `report.md.jinja`.
"""

import json
import re
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from enrich.atomic import check_folder
from enrich.errors import UsageError
from training.data.photos import PhotoSet
from training.data.sheet import contact_sheet
from training.evaluate.classes import ClassesMeasured
from training.evaluate.measure import BinaryMeasured
from training.evaluate.plots import draw_confusion, draw_precision_recall, draw_reliability
from training.markdown import page

TEMPLATE = Path(__file__).with_name("report.md.jinja")
SHOWN = 24
"""Mistakes of each kind on a contact sheet."""
_SHOWS = re.compile(r"\(([^()/]+_(?:precision_recall|reliability|mistakes|confusion)\.png)\)")

Measured = BinaryMeasured | ClassesMeasured


def check_out(out: Path) -> None:
    """Refuse a folder that holds something else than an evaluation, and a place that cannot be written.

    Raises:
        UsageError: it is one.
    """
    check_folder(out, f"--out {out}", replaced=False)
    if out.exists() and (not out.is_dir() or (any(out.iterdir()) and not (out / "metrics.json").is_file())):
        raise UsageError(f"--out {out}: holds something else than an evaluation; choose another folder")


def write_out(out: Path, described: dict[str, Any], measured: Sequence[Measured], photos: PhotoSet) -> None:
    """Write metrics.json (what was evaluated, and the figures of every head), report.md and the pictures: all
    made beside `out` first, then put in place of an earlier evaluation's."""
    metrics = described | {"heads": {one.head.name: one.figures for one in measured}}
    chosen = [f"{name} {value}" for name, value in metrics["photos"]["chosen"].items() if value]
    text = page(TEMPLATE, metrics=metrics, heads=[one.head for one in measured], chosen=chosen, share=_share)
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


def _share(figure: dict[str, Any]) -> str:
    """`36 of 38, 0.947 [0.823, 0.994]`."""
    if not figure["of"]:
        return "0 of 0"
    bounds = f"[{figure['low']:.3f}, {figure['high']:.3f}]"
    return f"{figure['hits']} of {figure['of']}, {figure['value']:.3f} {bounds}"


def _draw(measured: Measured, photos: PhotoSet, folder: Path) -> None:
    name = measured.head.name
    panels = {"photos": measured.photos}
    if isinstance(measured, ClassesMeasured):
        draw_confusion(measured, folder / f"{name}_confusion.png")
    else:
        draw_precision_recall(measured, folder / f"{name}_precision_recall.png")
        panels["listings"] = measured.homes
        mistakes = _worst_mistakes(measured, photos)
        contact_sheet(folder / f"{name}_mistakes.png", mistakes, columns=min(6, max(2, len(mistakes))))
    draw_reliability(name, panels, folder / f"{name}_reliability.png")


def _worst_mistakes(measured: BinaryMeasured, photos: PhotoSet) -> list[tuple[Path, str]]:
    """The surest mistakes of a binary head: photos labelled 0 with the highest scores, then photos labelled 1
    with the lowest, `SHOWN` of each at most, on the wrong side of one half."""
    name, truth, score = measured.head.name, measured.photos.truth, measured.photos.score
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
