"""Photos of a prepared task to batches: augmented for training, as served for validation.

What is drawn for a photo depends on seed, epoch and the photo's place alone, so a run that was killed goes on
as if nothing had happened.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from enrich.model.bundle import Preprocessing
from training.data.prepared import Prepared, Split
from training.models.features import Pixels, made_ahead, pixels
from training.trainer.augment import augmented

BATCHES_AHEAD = 3
Rows = NDArray[np.int64]


@dataclass(frozen=True)
class Side:
    """The photos of one side of a task; `labels` int64 [n] are class indices."""

    paths: Sequence[Path]
    labels: Tensor

    def __len__(self) -> int:
        return len(self.paths)


def side_of(prepared: Prepared, task: str, split: Split) -> Side:
    """The photos of one side of a task, with the index of their class."""
    photos = prepared.of(task, split)
    labels = photos["label"].map(prepared.classes[task].index)
    return Side([prepared.folder / path for path in photos["path"]], torch.tensor(labels.tolist()))


@dataclass(frozen=True)
class Batch:
    """`rows`: places of the photos in their side. `pictures` uint8 [n, 3, h, w], channels last in memory; or
    what a frozen backbone made of them, float32 [n, width]."""

    rows: Rows
    pictures: Tensor
    labels: Tensor


@dataclass
class Loader:
    """Decodes ahead in `workers` threads (Pillow works outside Python's lock); 0: in the caller's own."""

    preprocessing: Preprocessing
    batch: int
    workers: int
    device: torch.device

    def training(self, side: Side, seed: int, epoch: int, start: int = 0) -> Iterator[Batch]:
        """Augmented batches of an epoch in random order, from step `start` on."""
        return self.drawn(side, seed, epoch, epoch_rows(len(side), self.batch, seed, epoch)[start:])

    def drawn(self, side: Side, seed: int, draw: int, batches: Sequence[Rows]) -> Iterator[Batch]:
        """These rows, augmented as in epoch `draw`."""

        def picture(row: int) -> Pixels:
            return augmented(side.paths[row], self.preprocessing, (seed, draw, row))

        return self._load(side, batches, picture)

    def validation(self, side: Side) -> Iterator[Batch]:
        """All photos in their order, through the decoder that serving uses."""

        def picture(row: int) -> Pixels:
            return pixels(side.paths[row], self.preprocessing, ("whole",))[0]

        return self._load(side, in_order(len(side), self.batch), picture)

    def _load(self, side: Side, batches: Sequence[Rows], picture: Callable[[int], Pixels]) -> Iterator[Batch]:
        places: list[list[int]] = [rows.tolist() for rows in batches]
        for place, made in made_ahead(places, picture, self.workers, BATCHES_AHEAD):
            rows, stacked = np.array(place, np.int64), torch.from_numpy(np.stack(made))
            if self.device.type == "cuda":
                stacked = stacked.pin_memory()
            pictures = stacked.to(self.device, non_blocking=True).permute(0, 3, 1, 2)
            yield Batch(rows, pictures, side.labels[rows].to(self.device))


def steps(count: int, batch: int) -> int:
    """Batches in an epoch of `count` photos. A last batch of one photo is left out: batch norm cannot learn
    from it."""
    whole, rest = divmod(count, batch)
    return whole + (rest > 1)


def epoch_rows(count: int, batch: int, seed: int, epoch: int) -> list[Rows]:
    """The rows of each step of an epoch."""
    order = np.random.default_rng((seed, epoch)).permutation(count)
    return [order[step * batch :][:batch] for step in range(steps(count, batch))]


def in_order(count: int, batch: int) -> list[Rows]:
    """All rows, in batches."""
    return [np.arange(count)[start : start + batch] for start in range(0, count, batch)]
