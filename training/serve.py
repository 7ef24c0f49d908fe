"""The finished bundle, run as serving runs it: decode, score, aggregate."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from enrich.model.aggregate import aggregate
from enrich.model.bundle import Bundle
from enrich.model.engine import scores_of
from enrich.model.torch_engine import TorchEngine
from enrich.photos.decode import decode
from enrich.records import Attributes, Photo, PhotoResult, PhotoScore, PhotoStatus
from training.data import MAX_PIXELS, PhotoSet
from training.homes import MIN_PHOTOS_FALSE

BATCH = 32

Rows = NDArray[np.int64]


def score_photos(bundle: Bundle, photos: PhotoSet, rows: Rows) -> list[PhotoScore]:
    """Scores of the photos `rows`, all of which training has decoded before."""
    scorer = TorchEngine(bundle, "cpu")
    scores = []
    for start in range(0, len(rows), BATCH):
        batch = rows[start : start + BATCH]
        paths = [photos.folder / photos.paths[row] for row in batch]
        decoded = [decode(path.read_bytes(), bundle.preprocessings, MAX_PIXELS) for path in paths]
        answers = scorer.score([photo.pixels for photo in decoded])
        for row, photo, outputs in zip(batch, decoded, answers, strict=True):
            scores.append(PhotoScore(photos.sha256[row], photo.dhash, scores_of(outputs)))
    return scores


def listing_figures(bundle: Bundle, photos: PhotoSet) -> dict[str, Any]:
    """What the homes of split `listing` come out as; empty where there is no such split.

    For a binary head the homes by truth and outcome; for each published class the homes that have such a
    photo, and those of them whose document names the class.
    """
    rows = np.flatnonzero(photos.split == "listing")
    if not rows.size:
        return {}
    scores = score_photos(bundle, photos, rows)
    homes = {
        group: np.flatnonzero(photos.group[rows] == group).tolist() for group in np.unique(photos.group[rows])
    }
    outcomes = {group: _listing(bundle, [scores[i] for i in members]) for group, members in homes.items()}
    figures: dict[str, Any] = {"homes": len(homes), "photos": len(rows)}
    for head in bundle.heads:
        labels = photos.labels[head.name][rows]
        if head.kind == "binary":
            figures[head.name] = {"with": _empty(), "without": _empty()}
            for group, members in homes.items():
                truth = "with" if (labels[members] == 1).any() else "without"
                answer = outcomes[group].fields[f"has_{head.name}"]
                figures[head.name][truth][{True: "true", False: "false", None: "unknown"}[answer]] += 1
            continue
        figures[head.name] = {}
        for number, kind in enumerate(head.classes):
            having = [group for group, members in homes.items() if (labels[members] == number).any()]
            if kind.publish and having:
                found = sum(kind.name in outcomes[group].fields[f"{head.name}_types"] for group in having)
                figures[head.name][kind.name] = {"homes": len(having), "found": found}
    return figures


def _empty() -> dict[str, int]:
    return {"true": 0, "unknown": 0, "false": 0}


def _listing(bundle: Bundle, scores: list[PhotoScore]) -> Attributes:
    results = [
        PhotoResult(Photo(place, "", score.sha256, ""), PhotoStatus.OK, score.sha256, score)
        for place, score in enumerate(scores)
    ]
    return aggregate(bundle, results, MIN_PHOTOS_FALSE)
