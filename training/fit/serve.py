"""Homes of split `listing` through the finished bundle, as serving runs it: decode, score, aggregate."""

from pathlib import Path
from typing import Any

import numpy as np
import torch

from enrich.model.bundle import Bundle
from training.data.labels import UNLABELLED
from training.data.photos import PhotoSet
from training.evaluate.classes import named_classes
from training.evaluate.measure import outcomes
from training.evaluate.scored import score_all


def listing_figures(bundle: Bundle, photos: PhotoSet, device: torch.device, cache: Path) -> dict[str, Any]:
    """What the homes of split `listing` come out as; empty where there is no such split. `cache`: folder of
    converted networks.

    For a binary head the homes by truth and outcome, of their photos with its label; for each published class
    the homes that have such a photo, and those of them whose document names the class.
    """
    rows = np.flatnonzero(photos.split == "listing")
    if not rows.size:
        return {}
    photos = photos.of(rows)
    scored = score_all(bundle, photos, device, cache)
    homes = [np.flatnonzero(photos.group == group) for group in np.unique(photos.group)]
    figures: dict[str, Any] = {"homes": len(homes), "photos": len(rows)}
    for head in bundle.heads:
        labels = photos.labels[head.name]
        if head.kind == "binary":
            known = [rows for home in homes if (rows := home[labels[home] != UNLABELLED]).size]
            having = np.array([(labels[home] == 1).any() for home in known], dtype=bool)
            answers = [scored.listing(home).fields[f"has_{head.name}"] for home in known]
            figures[head.name] = outcomes(having, answers)
            continue
        named = named_classes(scored, head, homes)
        figures[head.name] = {
            name: {"homes": one["homes"], "found": one["recall"]["hits"]}
            for name, one in named.items()
            if one["homes"]
        }
    return figures
