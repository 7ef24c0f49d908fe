"""What finetuned networks make of sites that they have not seen, each alone and the mean of all.

    python benchmarks/finetunings.py --backbone timm:tf_efficientnet_lite0 --fold 0 --fold 1 \\
        --backbone timm:tf_efficientnet_lite2

They learn as the starter bundle's did, in the folds of sites of its fit. Each fold is a finetuning of its
own, about 20 minutes of a core with AMX; one that was stopped goes on where it was (`--cache`).
"""

import argparse
from pathlib import Path

import numpy as np
import torch
from ablations import COLUMNS, cells
from numpy.typing import NDArray

from training.data.labels import BINARY, ROOM
from training.data.photos import PhotoSet, load_photos, without_rare_classes
from training.fit.frozen import figures
from training.fit.multitask import FOLDS, finetunings, held_out, site_fold
from training.fit.options import FitOptions
from training.markdown import table
from training.models.backbones import load_backbone
from training.thresholds.rules import Targets, of_three_rooms
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


def row(photos: PhotoSet, logits: Logits, fold: NDArray[np.int64], homes_in: str) -> list[str]:
    """Average precision of photos and of homes, and homes found, for each binary head; rooms told apart.
    `fold`: -1 for photos without logits."""
    by_head = {
        head: figures(photos, head, logits[head], fold, homes_in, Targets.precision) for head in BINARY
    }
    rows = (fold >= 0) & photos.within(homes_in)
    three = of_three_rooms(logits[ROOM][rows], photos.labels[ROOM][rows], photos.classes[ROOM])
    assert three is not None
    return [*cells(by_head), f"{three.value:.3f}"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--photos", type=Path, default=Path("../shared/photos"))
    parser.add_argument("--homes", default="web_homes", help="first folder of the photos of whole homes")
    parser.add_argument("--backbone", action="append", required=True)
    parser.add_argument("--fold", type=int, action="append", choices=range(FOLDS))
    parser.add_argument("--size", type=int, default=320)
    parser.add_argument("--learn-size", type=int, default=Recipe.side, help="0: as --size")
    parser.add_argument("--pool", default="catavgmax")
    parser.add_argument("--samples", type=int, default=Recipe.samples)
    parser.add_argument("--cache", type=Path, default=Path("runs/features"))
    options = parser.parse_args()
    torch.set_num_threads(1)
    keep_memory()
    photos, _ = without_rare_classes(load_photos(options.photos), ROOM)
    recipe = Recipe(samples=options.samples, side=options.learn_size)
    asked = FitOptions(options.photos, Path(), recipe=recipe, shares=SHARES, cache=options.cache)
    fold = site_fold(photos, HEADS, asked.seed)
    chosen = options.fold or range(fold.max() + 1)
    made: dict[str, Logits] = {}
    for name in options.backbone:
        backbone = load_backbone(name, size=options.size, pool=options.pool)
        every = finetunings(photos, HEADS, backbone, asked, fold)
        work = [every[number] for number in chosen]
        made[name] = held_out(work, [predicted for _, predicted in (one() for one in work)])
    fold = np.where(np.isin(fold, chosen), fold, -1)
    if len(made) > 1:
        made["the mean of their logits"] = {
            head: np.mean([logits[head] for logits in made.values()], axis=0) for head in HEADS
        }
    print(
        table(
            ["network", *COLUMNS, "kitchen, bathroom, bedroom"],
            [[name, *row(photos, logits, fold, options.homes)] for name, logits in made.items()],
        )
    )


if __name__ == "__main__":
    main()
