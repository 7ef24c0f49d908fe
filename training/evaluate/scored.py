"""Photos through the serving path: decode, score, aggregate."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from enrich.model.aggregate import aggregate
from enrich.model.bundle import Bundle
from enrich.model.engine import Engine, lane_pool, scores_of
from enrich.model.head import Head
from enrich.model.openvino_engine import OpenVinoEngine
from enrich.model.torch_engine import TorchEngine
from enrich.photos.decode import decode
from enrich.records import Attributes, Output, Photo, PhotoResult, PhotoScore, Scores
from training.data.homes import MIN_PHOTOS_FALSE
from training.data.photos import MAX_PIXELS, PhotoSet
from training.terminal import with_bar

BATCH = 32

Rows = NDArray[np.int64]
Judge = Callable[[int, Mapping[str, Output]], Mapping[str, Scores]]
"""From a photo's row and what the engine made of it (by model id) to its scores, by model id."""


@dataclass(frozen=True)
class Scored:
    """What serving makes of `photos`, in their order, by `bundle` in its arithmetic."""

    bundle: Bundle
    photos: PhotoSet
    results: tuple[PhotoResult, ...]
    device: torch.device

    @property
    def readable(self) -> NDArray[np.bool_]:
        return np.array([result.status.ok for result in self.results], dtype=bool)

    def logits(self, head: Head) -> NDArray[np.float64]:
        """Logits [photos, outputs], before temperature; NaN for photos that could not be read."""
        model = next(member.model_id for member in self.bundle.members if head in member.heads)
        missing = (float("nan"),) * head.outputs
        return np.array(
            [r.score.by_model[model][head.name] if r.score else missing for r in self.results],
            dtype=np.float64,
        )

    def chances(self, head: Head) -> NDArray[np.float64]:
        """Calibrated probabilities [photos, outputs]; NaN for photos that could not be read."""
        with np.errstate(invalid="ignore"):
            return head.probabilities(self.logits(head))

    def listing(self, rows: Rows) -> Attributes:
        """What the job would publish of a listing with these photos."""
        return aggregate(self.bundle, [self.results[row] for row in rows], MIN_PHOTOS_FALSE)


def score_all(
    bundle: Bundle,
    photos: PhotoSet,
    device: torch.device,
    cache: Path,
    judge: Judge = lambda _, outputs: scores_of(outputs),
) -> Scored:
    """Decode and score all photos in the bundle's arithmetic, with a progress bar; a photo that cannot be
    read gets its status. `cache`: folder of converted networks."""
    engine: Engine
    if bundle.arithmetic == "int8" or device.type == "cpu":  # as the job chooses
        device, engine = torch.device("cpu"), OpenVinoEngine(bundle, cache, batch_size=BATCH)
    else:
        engine = TorchEngine(bundle, str(device), batch_size=BATCH)
    batches = np.array_split(np.arange(len(photos)), range(engine.batch_size, len(photos), engine.batch_size))
    with lane_pool(engine) as pool:
        made = pool.map(lambda rows: _score_batch(bundle, engine, photos, rows.tolist(), judge), batches)
        results = chain.from_iterable(with_bar(made, "photos", len(batches)))
        return Scored(bundle, photos, tuple(results), device)


def _score_batch(
    bundle: Bundle, engine: Engine, photos: PhotoSet, rows: Sequence[int], judge: Judge
) -> list[PhotoResult]:
    decoded = [
        decode((photos.folder / photos.paths[row]).read_bytes(), bundle.preprocessings, MAX_PIXELS)
        for row in rows
    ]
    answers = iter(engine.score([photo.pixels for photo in decoded if photo.status.ok]))
    results = []
    for row, photo in zip(rows, decoded, strict=True):
        sha = photos.sha256[row]
        score = PhotoScore(sha, photo.dhash, judge(row, next(answers))) if photo.status.ok else None
        place = Photo(row, "", sha, photos.paths[row])
        results.append(PhotoResult(place, photo.status, sha, score, error=photo.error))
    return results
