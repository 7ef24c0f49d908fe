"""Homes of split `listing` through the finished bundle, as serving runs it: decode, score, aggregate."""

from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console

from enrich.model.bundle import Bundle
from training.data.photos import PhotoSet
from training.evaluate.scored import score_all


def listing_figures(bundle: Bundle, photos: PhotoSet, device: str, cache: Path) -> dict[str, Any]:
    """What the homes of split `listing` come out as; empty where there is no such split. `cache`: folder of
    converted networks.

    For a binary head the homes by truth and outcome; for each published class the homes that have such a
    photo, and those of them whose document names the class.
    """
    rows = np.flatnonzero(photos.split == "listing")
    if not rows.size:
        return {}
    photos = photos.of(rows)
    scored = score_all(bundle, photos, device, Console(), cache)
    homes = [np.flatnonzero(photos.group == group) for group in np.unique(photos.group)]
    answers = [scored.listing(bundle, home).fields for home in homes]
    figures: dict[str, Any] = {"homes": len(homes), "photos": len(rows)}
    for head in bundle.heads:
        labels = photos.labels[head.name]
        if head.kind == "binary":
            figures[head.name] = {
                words: {"true": 0, "unknown": 0, "false": 0} for words in ("with", "without")
            }
            for home, answer in zip(homes, answers, strict=True):
                truth = "with" if (labels[home] == 1).any() else "without"
                said = {True: "true", False: "false", None: "unknown"}[answer[f"has_{head.name}"]]
                figures[head.name][truth][said] += 1
            continue
        figures[head.name] = {}
        for number, kind in enumerate(head.classes):
            having = [
                answer for home, answer in zip(homes, answers, strict=True) if (labels[home] == number).any()
            ]
            if kind.publish and having:
                found = sum(kind.name in answer[f"{head.name}_types"] for answer in having)
                figures[head.name][kind.name] = {"homes": len(having), "found": found}
    return figures
