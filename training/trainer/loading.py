"""Photos to batches: augmented for training, as served for validation.

What is drawn for a photo depends on seed, epoch and the photo's place alone, not on who loads it or when, so
a run that was killed goes on as if nothing had happened.
"""

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageOps
from torch import Tensor

from enrich.errors import UsageError
from enrich.model.bundle import Preprocessing
from enrich.photos.decode import decode
from training.data.photos import MAX_PIXELS
from training.data.prepared import Prepared, PreparedPhoto, Split

BATCHES_AHEAD = 3
SCALE, RATIO = (0.08, 1.0), (3 / 4, 4 / 3)
"""Of torchvision's RandomResizedCrop: share of the picture's area, and width by height."""
_FILTERS = {"bilinear": Image.Resampling.BILINEAR, "bicubic": Image.Resampling.BICUBIC}
Pixels = NDArray[np.uint8]


@dataclass(frozen=True)
class Side:
    """The photos of one side of a task; `labels` int64 [n] are class indices."""

    folder: Path
    photos: tuple[PreparedPhoto, ...]
    labels: Tensor

    def __len__(self) -> int:
        return len(self.photos)


def side_of(prepared: Prepared, task: str, split: Split) -> Side:
    """The photos of one side of a task, with the index of their class."""
    photos = prepared.of(task, split)
    index = {name: number for number, name in enumerate(prepared.classes[task])}
    return Side(prepared.folder, photos, torch.tensor([index[photo.label] for photo in photos]))


@dataclass(frozen=True)
class Batch:
    """`rows`: places of the photos in their side. `pictures` uint8 [n, 3, h, w], channels last in memory."""

    rows: NDArray[np.int64]
    pictures: Tensor
    labels: Tensor


class Loader:
    """Decodes ahead in `workers` threads (Pillow works outside Python's lock); 0: in the caller's own."""

    def __init__(self, preprocessing: Preprocessing, batch: int, workers: int, device: torch.device) -> None:
        self._preprocessing, self._batch, self._device = preprocessing, batch, device
        self._pool = ThreadPoolExecutor(workers, "photos") if workers else None

    def close(self) -> None:
        """Let the threads go."""
        if self._pool:
            self._pool.shutdown(cancel_futures=True)

    def steps(self, count: int) -> int:
        """Batches in an epoch of `count` photos. A last batch of one photo is left out: batch norm cannot
        learn from it."""
        whole, rest = divmod(count, self._batch)
        return whole + (rest > 1)

    def training(self, side: Side, seed: int, epoch: int, start: int = 0) -> Iterator[Batch]:
        """Augmented batches of an epoch in random order, from step `start` on."""
        order = np.random.default_rng((seed, epoch)).permutation(len(side))
        batches = [order[step * self._batch :][: self._batch] for step in range(start, self.steps(len(side)))]

        def picture(row: int) -> Pixels:
            path = side.folder / side.photos[row].path
            return augmented(path, self._preprocessing, (seed, epoch, row))

        yield from self._load(side, batches, picture)

    def validation(self, side: Side) -> Iterator[Batch]:
        """All photos in their order, through the decoder that serving uses."""
        rows = np.arange(len(side))
        batches = [rows[start : start + self._batch] for start in range(0, len(rows), self._batch)]

        def picture(row: int) -> Pixels:
            return as_served(side.folder / side.photos[row].path, self._preprocessing)

        yield from self._load(side, batches, picture)

    def _load(
        self, side: Side, batches: Sequence[NDArray[np.int64]], picture: Callable[[int], Pixels]
    ) -> Iterator[Batch]:
        load = self._pool.map if self._pool else map
        loading = ((rows, load(picture, rows.tolist())) for rows in batches)
        waiting = deque(islice(loading, BATCHES_AHEAD))
        while waiting:
            rows, loaded = waiting.popleft()
            stacked = torch.from_numpy(np.stack(list(loaded)))
            waiting.extend(islice(loading, 1))
            if self._device.type == "cuda":
                stacked = stacked.pin_memory()
            pictures = stacked.to(self._device, non_blocking=True).permute(0, 3, 1, 2)
            yield Batch(rows, pictures, side.labels[torch.from_numpy(rows)].to(self._device))


def augmented(path: Path, preprocessing: Preprocessing, seed: Sequence[int]) -> Pixels:
    """RandomResizedCrop and horizontal flip, as torchvision draws them; uint8 [h, w, 3].

    Raises:
        UsageError: the photo cannot be decoded.
    """
    draw = np.random.default_rng(seed)
    try:
        with Image.open(path) as opened:
            picture = opened.convert("RGB")
    except (OSError, ValueError) as error:
        raise UsageError(f"{path} cannot be decoded ({error}); make the prepared folder again") from None
    left, top, width, height = _crop(picture.width, picture.height, draw)
    high, wide = preprocessing.size
    part = picture.crop((left, top, left + width, top + height))
    part = part.resize((wide, high), _FILTERS[preprocessing.interpolation])
    return np.asarray(ImageOps.mirror(part) if draw.random() < 0.5 else part)


def as_served(path: Path, preprocessing: Preprocessing) -> Pixels:
    """The photo as serving would see it; uint8 [h, w, 3].

    Raises:
        UsageError: the photo cannot be decoded.
    """
    decoded = decode(path.read_bytes(), (preprocessing,), MAX_PIXELS)
    if not decoded.status.ok:
        raise UsageError(f"{path} cannot be decoded ({decoded.error}); make the prepared folder again")
    return decoded.pixels[0]


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
