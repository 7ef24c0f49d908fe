"""Photos as finetuning sees them: in part, mirrored, tilted, in other light, or as serving sees them."""

from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageEnhance, ImageFilter, ImageOps

from enrich.errors import UsageError
from enrich.model.bundle import Preprocessing
from training.models.features import pixels

AS_SERVED = 0.25
"""Share of the photos that are drawn as serving sees them."""

_BILINEAR, _BICUBIC = Image.Resampling.BILINEAR, Image.Resampling.BICUBIC


def drawn(path: Path, preprocessing: Preprocessing, seed: Sequence[int]) -> NDArray[np.uint8]:
    """One drawing of the photo at `path`: uint8 [height, width, 3]; the same `seed` draws the same.

    Raises:
        UsageError: the photo cannot be decoded.
    """
    draw = np.random.default_rng(seed)
    if draw.random() < AS_SERVED:
        whole = pixels(path, preprocessing, ("whole",))[0]
        return np.ascontiguousarray(whole[:, ::-1]) if draw.random() < 0.5 else whole
    height, width = preprocessing.size
    try:
        with Image.open(path) as opened:
            opened.draft("RGB", (width * 3 // 2, height * 3 // 2))
            picture = ImageOps.exif_transpose(opened).convert("RGB")
    except (OSError, ValueError) as error:
        raise UsageError(f"{path} cannot be used ({error}); take its row out of manifest.csv") from None
    return _other_light(_part(picture, (width, height), draw), draw)


def _part(picture: Image.Image, size: tuple[int, int], draw: np.random.Generator) -> Image.Image:
    """40 to 100 % of the picture, its shape changed by up to a third, perhaps mirrored or tilted."""
    if draw.random() < 0.25:
        picture = picture.rotate(draw.uniform(-6, 6), _BILINEAR, fillcolor=(127, 127, 127))
    if draw.random() < 0.15:  # Photos come small, too.
        coarse = draw.uniform(0.35, 0.8)
        picture = picture.resize((max(8, int(size[0] * coarse)), max(8, int(size[1] * coarse))), _BILINEAR)
    width, height = picture.size
    area, shape = draw.uniform(0.4, 1.0), np.exp(draw.uniform(np.log(0.75), np.log(4 / 3)))
    wide, high = min(1.0, np.sqrt(area * shape)), min(1.0, np.sqrt(area / shape))
    left, upper = draw.uniform(0, 1 - wide) * width, draw.uniform(0, 1 - high) * height
    part = picture.resize(size, _BICUBIC, box=(left, upper, left + wide * width, upper + high * height))
    return ImageOps.mirror(part) if draw.random() < 0.5 else part


def _other_light(picture: Image.Image, draw: np.random.Generator) -> NDArray[np.uint8]:
    if draw.random() < 0.15:
        picture = picture.filter(ImageFilter.GaussianBlur(draw.uniform(0.4, 1.2)))
    if draw.random() < 0.8:
        picture = ImageEnhance.Contrast(picture).enhance(draw.uniform(0.65, 1.45))
        picture = ImageEnhance.Color(picture).enhance(draw.uniform(0.2, 1.6))
    light = draw.uniform(0.65, 1.45) * draw.uniform(0.9, 1.1, 3)
    return (np.asarray(picture) * light.astype(np.float32)).clip(0, 255).astype(np.uint8)


def batches(
    paths: Sequence[Path],
    preprocessing: Preprocessing,
    draws: Iterator[tuple[int, NDArray[np.int64]]],
    seed: int,
) -> Iterator[tuple[NDArray[np.int64], NDArray[np.uint8]]]:
    """Pictures uint8 [batch, height, width, 3] of each (step, rows) of `draws`, with the rows; one batch is
    made ahead while the caller works on another."""

    def make(step: int, rows: NDArray[np.int64]) -> NDArray[np.uint8]:
        pictures = (drawn(paths[row], preprocessing, (seed, step, n)) for n, row in enumerate(rows))
        return np.stack(list(pictures))

    with ThreadPoolExecutor(1) as pool:
        waiting: tuple[NDArray[np.int64], Future[NDArray[np.uint8]]] | None = None
        for step, rows in draws:
            following = rows, pool.submit(make, step, rows)
            if waiting is not None:
                yield waiting[0], waiting[1].result()
            waiting = following
        if waiting is not None:
            yield waiting[0], waiting[1].result()
