"""Drawn homes with a manifest that the test bundle answers, and `enrich-train evaluate` run on them."""

import contextlib
import csv
import io
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from tests.support.bundles import draw_bytes

COLUMNS = ("path", "group", "split", "room", "balcony", "fireplace", "source")
OTHER = ("kitchen", "bathroom", "bedroom", "other")


def home_rows(home: int, shows: Sequence[str], split: str = "own") -> list[dict[str, str]]:
    """Manifest rows of a home whose photos show these things, each row true to its photo."""
    return [
        {
            "path": f"homes/{home}/{number}.jpg",
            "group": f"home-{home}",
            "split": split,
            "room": what if what in OTHER else "other",
            "balcony": str(int(what == "balcony")),
            "fireplace": str(int(what == "fireplace")),
            "source": f"site-{home}",
        }
        for number, what in enumerate(shows)
    ]


def write_manifest(folder: Path, rows: Sequence[dict[str, str]], columns: Sequence[str] = COLUMNS) -> Path:
    """Write `folder/manifest.csv` with these columns of the rows."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "manifest.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, columns, extrasaction="ignore")
        writer.writeheader()
        writer.writerows(rows)
    return folder


def draw_photo(folder: Path, row: dict[str, str], shows: str, seed: int) -> None:
    """Draw what the row's photo shows, which need not be what the row says."""
    path = folder / row["path"]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(draw_bytes(shows, seed))


def draw_homes(folder: Path, homes: Sequence[Sequence[str]]) -> Path:
    """Homes whose photos show what is listed, labelled so."""
    rows = []
    for home, shows in enumerate(homes):
        mine = home_rows(home, shows)
        for number, (row, what) in enumerate(zip(mine, shows, strict=True)):
            draw_photo(folder, row, what, seed=100 * home + number)
        rows += mine
    return write_manifest(folder, rows)


def run_train(*arguments: object) -> tuple[int, str]:
    """Exit code and output (stdout, then stderr) of `enrich-train`, as its console script runs it."""
    from training.cli import main

    said, wrong = io.StringIO(), io.StringIO()
    code = 0
    with (
        pytest.MonkeyPatch.context() as patch,
        contextlib.redirect_stdout(said),
        contextlib.redirect_stderr(wrong),
    ):
        patch.setattr(sys, "argv", ["enrich-train", *map(str, arguments)])
        patch.setenv("COLUMNS", "200")
        try:
            main()
        except SystemExit as end:
            code = int(end.code or 0)
    return code, said.getvalue() + wrong.getvalue()
