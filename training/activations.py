"""Activations of a frozen front under augmented views, kept in memory-mapped files that fill up bit by bit.

A stopped run goes on where it was: beside each file lies the list of the photos that are done.
"""

import hashlib
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageEnhance, ImageOps
from rich.progress import track

from enrich.errors import UsageError
from training import top
from training.backbones import Backbone
from training.data import PhotoSet
from training.features import pixels

BATCH = 32
SAVE_BATCHES = 20


def activations(
    backbone: Backbone, photos: PhotoSet, drawn: int, cache: Path, threads: int = 1
) -> dict[str, NDArray[np.float16]]:
    """`whole` and the views `drawn1` …: float16 [photos, h, w, channels] each, for photos of split `train`.

    Rows of other photos are zero. The front runs in bf16: its rounding is far below what the views vary.

    Raises:
        UsageError: a photo cannot be decoded, or the backbone cannot be finetuned.
    """
    top.check_supported(backbone.module, backbone.name)
    cache.mkdir(parents=True, exist_ok=True)
    views = ("whole", *(f"drawn{number}" for number in range(1, drawn + 1)))
    return {view: _view(backbone, photos, view, cache, threads) for view in views}


def _view(backbone: Backbone, photos: PhotoSet, view: str, cache: Path, threads: int) -> NDArray[np.float16]:
    digest = hashlib.sha256(f"{backbone.key}{top.START}{view}{photos.sha256}".encode()).hexdigest()[:24]
    path, done_path = cache / f"{view}-{digest}.npy", cache / f"{view}-{digest}.done.npy"
    done = np.load(done_path) if done_path.exists() else np.zeros(len(photos), dtype=bool)
    todo = np.flatnonzero((photos.split == "train") & ~done)
    if not path.exists():
        height, width = backbone.preprocessing.size
        shape = _front(backbone, np.zeros((1, height, width, 3), dtype=np.uint8)).shape[1:]
        np.lib.format.open_memmap(path, "w+", np.float16, (len(photos), *shape))
    store: NDArray[np.float16] = np.load(path, mmap_mode="r+" if todo.size else "r")
    batches = [todo[start : start + BATCH] for start in range(0, len(todo), BATCH)]
    with ThreadPoolExecutor(threads) as pool:

        def submit(rows: NDArray[np.int64]) -> list[Future[NDArray[np.uint8]]]:
            return [pool.submit(_picture, backbone, photos, int(row), view) for row in rows]

        waiting = submit(batches[0]) if batches else []
        for number in track(range(len(batches)), f"activations {view}", transient=True):
            pictures = [future.result() for future in waiting]
            waiting = submit(batches[number + 1]) if number + 1 < len(batches) else []
            store[batches[number]] = _front(backbone, np.stack(pictures))
            done[batches[number]] = True
            if number % SAVE_BATCHES == 0 or number + 1 == len(batches):
                np.save(done_path, done)
    return store


def _picture(backbone: Backbone, photos: PhotoSet, row: int, view: str) -> NDArray[np.uint8]:
    path = photos.folder / photos.paths[row]
    if view == "whole":
        return pixels(path, backbone.preprocessing, ("whole",))[0]
    return augmented(path, backbone.preprocessing.size, (int(view.removeprefix("drawn")), row))


def augmented(path: Path, size: tuple[int, int], seed: Sequence[int]) -> NDArray[np.uint8]:
    """A part of the photo (45 to 100 % of it) at `size`, perhaps mirrored or tilted, in other light.

    `size` is (height, width); uint8 [h, w, 3].

    Raises:
        UsageError: the photo cannot be decoded.
    """
    draw = np.random.default_rng(seed)
    try:
        with Image.open(path) as opened:
            picture = ImageOps.exif_transpose(opened).convert("RGB")
    except (OSError, ValueError) as error:
        raise UsageError(f"{path} cannot be used ({error}); take its row out of manifest.csv") from None
    width, height = picture.size
    area, shape = draw.uniform(0.45, 1.0), np.exp(draw.uniform(np.log(0.8), np.log(1.25)))
    wide, high = min(1.0, np.sqrt(area * shape)), min(1.0, np.sqrt(area / shape))
    left, upper = draw.uniform(0, 1 - wide) * width, draw.uniform(0, 1 - high) * height
    tilt = draw.uniform(-5, 5) if draw.random() < 0.3 else 0.0
    if tilt:
        picture = picture.rotate(tilt, Image.Resampling.BILINEAR, fillcolor=(127, 127, 127))
    box = (left, upper, left + wide * width, upper + high * height)
    picture = picture.resize((size[1], size[0]), Image.Resampling.BICUBIC, box=box)
    if draw.random() < 0.5:
        picture = ImageOps.mirror(picture)
    picture = ImageEnhance.Brightness(picture).enhance(draw.uniform(0.75, 1.3))
    picture = ImageEnhance.Contrast(picture).enhance(draw.uniform(0.75, 1.3))
    return np.asarray(ImageEnhance.Color(picture).enhance(draw.uniform(0.5, 1.4)))


def _front(backbone: Backbone, pictures: NDArray[np.uint8]) -> NDArray[np.float16]:
    mean = torch.tensor(backbone.preprocessing.mean).view(1, 3, 1, 1)
    std = torch.tensor(backbone.preprocessing.std).view(1, 3, 1, 1)
    x = torch.from_numpy(pictures).permute(0, 3, 1, 2).float().div_(255).sub_(mean).div_(std)
    with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16):
        made = top.front(backbone.module, x.contiguous(memory_format=torch.channels_last))
    result: NDArray[np.float16] = made.float().permute(0, 2, 3, 1).numpy().astype(np.float16)
    return result
