"""A small prepared folder of drawn photos, and `enrich-train` as its console script runs it."""

import contextlib
import hashlib
import io
import sys
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from training.cli import main
from training.data.prepared import COLUMNS, write_tables

TASKS = {"balcony": ("balcony", "indoor"), "rooms": ("kitchen", "bathroom", "bedroom")}


def draw_prepared(
    folder: Path, tasks: Mapping[str, tuple[str, ...]] = TASKS, train: int = 10, val: int = 5
) -> Path:
    """A prepared folder with so many photos a class and split; a photo's colour tells its class."""
    noise = np.random.default_rng(0)
    photos = []
    for task, classes in tasks.items():
        for index, label in enumerate(classes):
            for number in range(train + val):
                split = "train" if number < train else "val"
                path = folder / "photos" / task / label / f"{number}.jpg"
                path.parent.mkdir(parents=True, exist_ok=True)
                hue = (60 + 70 * index, 150, 180)
                base = np.array(Image.new("HSV", (60, 45), hue).convert("RGB"), dtype=np.int64)
                pixels = (base + noise.integers(-40, 41, base.shape)).clip(0, 255).astype(np.uint8)
                Image.fromarray(pixels).save(path, quality=90)
                digest = hashlib.sha256(path.read_bytes()).hexdigest()
                relative = path.relative_to(folder).as_posix()
                photos.append((task, label, split, relative, f"home{number}", relative, digest, 60, 45))
    table = pd.DataFrame(photos, columns=COLUMNS).rename(columns={"class": "label"})
    write_tables(folder, table.assign(reason="", detail=""), {"split": "thesis"}, {})
    return folder


def run_train(*arguments: object) -> tuple[int, str]:
    """Exit code and stderr of `enrich-train` with these arguments."""
    said = io.StringIO()
    with pytest.MonkeyPatch.context() as patch, contextlib.redirect_stderr(said):
        patch.setattr(sys, "argv", ["enrich-train", *map(str, arguments)])
        try:
            main()
        except SystemExit as end:
            return int(end.code or 0), said.getvalue()
    return 0, said.getvalue()
