"""Drawn photos of homes with their manifest, and `enrich-train fit` as its console script runs it."""

import contextlib
import csv
import io
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from enrich.model.bundle import Bundle, load_bundle
from training.cli import main
from training.data.labels import ROOMS

HOMES, LISTINGS = 24, 3
COLUMNS = ("path", "group", "split", "room", "balcony", "fireplace", "source", "licence")


def draw(path: Path, room: str, fireplace: bool, seed: int) -> None:
    """A picture whose colour tells the room, with a red square where there is a fireplace."""
    noise = np.random.default_rng(seed)
    hue = int(255 * ROOMS.index(room) / len(ROOMS))
    base = np.array(Image.new("HSV", (96, 72), (hue, 200, 200)).convert("RGB"), dtype=np.int64)
    if fireplace:
        base[20:60, 30:70] = (255, 40, 0)
    pixels = (base + noise.integers(-25, 26, base.shape)).clip(0, 255).astype(np.uint8)
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path, quality=92)


def draw_homes(folder: Path) -> Path:
    """Homes with a photo of every room class but `balcony`, which half have; two in five have a fireplace."""
    rows = []
    for home in range(HOMES + LISTINGS):
        for number, room in enumerate(ROOMS):
            if room == "balcony" and home % 2:
                continue
            fireplace = room == "living_room" and home % 5 < 2
            path = f"web_homes/home{home}/{number}.jpg"
            draw(folder / path, room, fireplace, seed=home * 100 + number)
            labels = [room, int(room == "balcony"), int(fireplace)]
            if room == "hallway":
                labels[1:] = ["", ""]  # nobody looked for a balcony or a fireplace here
            split = "train" if home < HOMES else "listing"
            rows.append([path, f"home{home}", split, *labels, f"site{home // 2}", "ours"])
    with (folder / "manifest.csv").open("w", newline="") as file:
        csv.writer(file).writerows([COLUMNS, *rows])
    return folder


def seaview(photos_dir: Path, file: Path, *more: str) -> Path:
    """Labels of a head of one's own: the terraces see the sea; nobody looked at the halls."""
    with (photos_dir / "manifest.csv").open(newline="") as manifest:
        rows = [(row["path"], row["room"]) for row in csv.DictReader(manifest)]
    lines = [f"{path},{int(room == 'balcony')}" for path, room in rows if room != "hallway"]
    file.write_text("\n".join(["path,label", *lines, *more]))
    return file


def condition(photos_dir: Path, file: Path, *more: str) -> Path:
    """Labels of a head of classes of one's own: baths are worn, bedrooms and kitchens are renovated."""
    of_room = {"bathroom": "worn", "bedroom": "renovated", "kitchen": "renovated", "other": "unclear"}
    with (photos_dir / "manifest.csv").open(newline="") as manifest:
        lines = [f"{row['path']},{of_room.get(row['room'], '')}" for row in csv.DictReader(manifest)]
    file.write_text("\n".join(["path,label", *lines, *more]))
    return file


def fitted(photos: Path, work: Path, *options: object) -> tuple[Bundle, Path, Path]:
    """The bundle of one fit, its model card and its cache."""
    where = ("--out", work / "bundle", "--card", work / "card.md", "--cache", work / "cache")
    code, said = run_fit(photos, *where, *options)
    assert code == 0, said
    return load_bundle(work / "bundle"), work / "card.md", work / "cache"


def run_fit(*arguments: object) -> tuple[int, str]:
    """Exit code and stderr of `enrich-train fit` with these arguments, as its console script runs it."""
    said = io.StringIO()
    with pytest.MonkeyPatch.context() as patch, contextlib.redirect_stderr(said):
        patch.setattr(sys, "argv", ["enrich-train", "fit", *map(str, arguments)])
        try:
            main()
        except SystemExit as end:
            return int(end.code or 0), said.getvalue()
    return 0, said.getvalue()
