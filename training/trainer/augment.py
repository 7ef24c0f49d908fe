"""Photos as training sees them: in part and mirrored, as the study drew them or as `fit --finetune` does.

What is drawn depends on the seed alone, not on who draws it or when.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image, ImageEnhance, ImageFilter, ImageOps

from enrich.errors import UsageError
from enrich.model.bundle import Preprocessing
from enrich.photos.decode import upright
from training.models.features import REMEDY, Pixels, pixels

SCALE, RATIO = (0.08, 1.0), (3 / 4, 4 / 3)
"""Of torchvision's RandomResizedCrop: share of the picture's area, and width by height."""
AS_SERVED = 0.25
"""Share of the photos that finetuning draws as serving sees them."""

_BILINEAR, _BICUBIC = Image.Resampling.BILINEAR, Image.Resampling.BICUBIC


def augmented(path: Path, preprocessing: Preprocessing, seed: Sequence[int]) -> Pixels:
    """The study's drawing: RandomResizedCrop and horizontal flip, as torchvision draws them; uint8 [h, w, 3].
    A UsageError where the photo cannot be decoded."""
    draw = np.random.default_rng(seed)
    picture = _opened(path, None)
    left, top, width, height = _crop(picture.width, picture.height, draw)
    high, wide = preprocessing.size
    part = picture.crop((left, top, left + width, top + height))
    part = part.resize((wide, high), Image.Resampling[preprocessing.interpolation.upper()])
    return np.asarray(ImageOps.mirror(part) if draw.random() < 0.5 else part)


def drawn(path: Path, preprocessing: Preprocessing, seed: Sequence[int]) -> Pixels:
    """Finetuning's: in part, mirrored, tilted, in other light, or as serving sees it; uint8 [h, w, 3]. A
    UsageError where the photo cannot be decoded."""
    draw = np.random.default_rng(seed)
    if draw.random() < AS_SERVED:
        whole = pixels(path, preprocessing, ("whole",))[0]
        return np.ascontiguousarray(whole[:, ::-1]) if draw.random() < 0.5 else whole
    height, width = preprocessing.size
    picture = _opened(path, (width * 3 // 2, height * 3 // 2))
    return _other_light(_part(picture, (width, height), draw), draw)


def _opened(path: Path, least: tuple[int, int] | None) -> Image.Image:
    """The upright photo, in the colours that serving sees; of a JPEG a smaller one, where that has `least`
    pixels (width, height)."""
    try:
        with Image.open(path) as opened:
            if least:
                opened.draft("RGB", least)
            return upright(opened)
    except (OSError, ValueError) as error:
        raise UsageError(f"{path} cannot be decoded ({error}); {REMEDY}") from None


def _crop(width: int, height: int, draw: np.random.Generator) -> tuple[int, int, int, int]:
    """(left, top, width, height) of a random part; after ten misses the largest middle part in `RATIO`."""
    for _ in range(10):
        area = width * height * draw.uniform(*SCALE)
        ratio = np.exp(draw.uniform(np.log(RATIO[0]), np.log(RATIO[1])))
        wide, high = round(np.sqrt(area * ratio)), round(np.sqrt(area / ratio))
        if 0 < wide <= width and 0 < high <= height:
            return int(draw.integers(width - wide + 1)), int(draw.integers(height - high + 1)), wide, high
    shape = min(max(width / height, RATIO[0]), RATIO[1])
    wide, high = min(width, round(height * shape)), min(height, round(width / shape))
    return (width - wide) // 2, (height - high) // 2, wide, high


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


def _other_light(picture: Image.Image, draw: np.random.Generator) -> Pixels:
    if draw.random() < 0.15:
        picture = picture.filter(ImageFilter.GaussianBlur(draw.uniform(0.4, 1.2)))
    if draw.random() < 0.8:
        picture = ImageEnhance.Contrast(picture).enhance(draw.uniform(0.65, 1.45))
        picture = ImageEnhance.Color(picture).enhance(draw.uniform(0.2, 1.6))
    light = draw.uniform(0.65, 1.45) * draw.uniform(0.9, 1.1, 3)
    return (np.asarray(picture) * light.astype(np.float32)).clip(0, 255).astype(np.uint8)
