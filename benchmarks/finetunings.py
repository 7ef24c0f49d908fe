"""What finetuned networks make of sites that they have not seen, each alone and the mean of all.

    python benchmarks/finetunings.py --backbone timm:tf_efficientnet_lite0 --fold 0 --fold 1 \\
        --backbone timm:tf_efficientnet_lite2

They learn as the starter bundle's did, in the folds of sites of its fit. Each fold is a finetuning of its
own, 25 to 45 minutes of a core; one that was stopped goes on where it was (`--cache`).
"""

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from training.data.labels import BINARY, ROOM
from training.data.photos import PhotoSet, load_photos, without_rare_classes
from training.fit.frozen import figures
from training.fit.multitask import FOLDS, Plan, finetunings, site_fold
from training.markdown import table
from training.models.backbones import Backbone, load_backbone
from training.thresholds.classes import of_three_rooms
from training.thresholds.rules import Targets
from training.trainer.devices import keep_memory
from training.trainer.finetune import Recipe

HEADS = (*BINARY, ROOM)
SHARES = {
    "web_homes": 2.5,
    "web_listings": 2.0,
    "web_safetynets": 0.6,
    "web_catalog": 0.5,
    "houses": 0.7,
    "places365": 0.8,
}
"""Those that the starter bundle was fitted with."""
Logits = dict[str, NDArray[np.float64]]


def held_out(photos: PhotoSet, backbone: Backbone, plan: Plan, folds: Sequence[int]) -> Logits:
    """Head -> logits [photos, outputs] of the photos of these folds by networks that did not learn from them;
    NaN elsewhere."""
    work = finetunings(photos, HEADS, backbone, plan, site_fold(photos, HEADS, plan.seed))
    logits = {task.name: np.full((len(photos), task.outputs), np.nan) for task in work[0].tasks}
    for number in folds:
        _, predicted = work[number]()
        for name, values in predicted.items():
            logits[name][work[number].held] = values
    return logits


def row(photos: PhotoSet, logits: Logits, homes_in: str) -> list[Any]:
    """Average precision of photos and of homes, and homes found, for each binary head; rooms told apart."""
    cells: list[Any] = []
    seen = np.isfinite(logits[ROOM][:, 0])
    fold = np.where(seen, site_fold(photos, HEADS, 0), -1)
    for head in BINARY:
        made = figures(photos, head, logits[head], fold, homes_in, Targets.precision)
        cells += [f"{made['photos']:.3f}", f"{made['homes']:.3f}", f"{made['found']} of {made['of']}"]
    rows = seen & photos.within(homes_in)
    three = of_three_rooms(logits[ROOM][rows], photos.labels[ROOM][rows], photos.classes[ROOM])
    assert three is not None
    return [*cells, f"{three.value:.3f}"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--photos", type=Path, default=Path("../shared/photos"))
    parser.add_argument("--homes", default="web_homes", help="first folder of the photos of whole homes")
    parser.add_argument("--backbone", action="append", required=True)
    parser.add_argument("--fold", type=int, action="append", choices=range(FOLDS))
    parser.add_argument("--size", type=int, default=320)
    parser.add_argument("--pool", default="catavgmax")
    parser.add_argument("--samples", type=int, default=Recipe.samples)
    parser.add_argument("--cache", type=Path, default=Path("runs/features"))
    options = parser.parse_args()
    torch.set_num_threads(1)
    keep_memory()
    photos, _ = without_rare_classes(load_photos(options.photos), ROOM)
    plan = Plan(Recipe(samples=options.samples), SHARES, options.cache)
    made = {
        name: held_out(
            photos,
            load_backbone(name, size=options.size, pool=options.pool),
            plan,
            options.fold or range(FOLDS),
        )
        for name in options.backbone
    }
    if len(made) > 1:
        made["the mean of their logits"] = {
            head: np.mean([logits[head] for logits in made.values()], axis=0) for head in HEADS
        }
    columns = [f"{head}, {what}" for head in BINARY for what in ("photos", "homes", "homes found")]
    print(
        table(
            ["network", *columns, "kitchen, bathroom, bedroom"],
            [[name, *row(photos, logits, options.homes)] for name, logits in made.items()],
        )
    )


if __name__ == "__main__":
    main()
