"""Synthetic photos: blurred colour fields that no duplicate finder takes for each other."""

from pathlib import Path

import numpy as np
from PIL import Image


def picture(seed: int, width: int = 96, height: int = 64) -> Image.Image:
    """A picture of its own for every seed."""
    cells = np.random.default_rng(seed).integers(0, 256, (6, 9, 3), dtype=np.uint8)
    return Image.fromarray(cells).resize((width, height), Image.Resampling.BICUBIC)


def save_picture(path: Path, seed: int, width: int = 96, height: int = 64) -> Path:
    """Write it as a JPEG, PNG or WebP, as the name says."""
    path.parent.mkdir(parents=True, exist_ok=True)
    picture(seed, width, height).save(path)
    return path


def class_folders(root: Path, classes: dict[str, int], seed: int = 0) -> Path:
    """`{"rooms/kitchen": 5, …}`: folders with as many different photos, named 00.jpg, 01.jpg, …"""
    for name, count in classes.items():
        (root / name).mkdir(parents=True, exist_ok=True)
        for number in range(count):
            save_picture(root / name / f"{number:02d}.jpg", seed)
            seed += 1
    return root
