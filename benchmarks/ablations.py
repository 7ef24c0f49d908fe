"""What collections of photos, crops and backbones are worth to linear heads on frozen features.

python benchmarks/ablations.py [--photos ../shared/photos] [--homes web_homes] [--size 320] [--pool catavgmax]

All is held out in the folds of sites that `enrich-train fit --finetune` has. `--size` and `--pool` are of the
Lite0 with which whole collections are left out; the other table has each backbone's own.
"""

import argparse
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.metrics import average_precision_score, roc_auc_score

from training.data.labels import BINARY, UNLABELLED
from training.data.photos import PhotoSet, load_photos
from training.fit.frozen import figures, frozen_logits
from training.fit.multitask import site_fold
from training.markdown import table
from training.models.backbones import PACKAGED, Backbone, load_backbone
from training.models.features import extract
from training.models.heads import Views
from training.thresholds.rules import Targets

CROPS = ("whole", "crop0", "crop1", "crop2", "crop3")
CENTRE = 0.875
"""Part of the shorter side that a centre crop keeps, as usual in validation on ImageNet."""
COLUMNS = [f"{head}, {what}" for head in BINARY for what in ("photos", "homes", "homes found")]
SHARES = (0.25, 0.5, 1.0)
"""Of the sites, that the learning curve learns from."""
DRAWS = 3


def ablations(
    photos: PhotoSet, heads: Sequence[str], fold: NDArray[np.int64], cache: Path, homes_in: str
) -> dict[str, dict[str, Any]]:
    """What a choice is worth, with linear heads on frozen EfficientNet-Lites: choice -> head -> `figures`."""
    lite0, *others = (load_backbone(name) for name in PACKAGED)
    whole = extract(lite0, photos, ("whole",), cache)
    collections = [str(name) for name in np.unique(photos.collection) if str(name) != homes_in]
    made: dict[str, tuple[Views, NDArray[np.int64]]] = {"Lite0, whole photo": (whole, fold)}
    made |= {f"without {name}": (whole, without(photos, fold, name)) for name in collections}
    made["learning from 4 crops, too"] = (extract(lite0, photos, CROPS, cache), fold)
    made["centre crop, not the whole photo"] = (extract(_cropped(lite0), photos, ("whole",), cache), fold)
    for backbone in others:
        label = f"{backbone.name.rpartition('_')[2].capitalize()} at {backbone.preprocessing.size[0]} px"
        made[label] = (extract(backbone, photos, ("whole",), cache), fold)
    return {
        label: {
            head: figures(
                photos, head, frozen_logits(photos, head, views, learnt), fold, homes_in, Targets.precision
            )
            for head in heads
        }
        for label, (views, learnt) in made.items()
    }


def learning_curve(
    photos: PhotoSet, heads: Sequence[str], fold: NDArray[np.int64], views: Views, homes_in: str
) -> dict[float, dict[str, dict[str, float]]]:
    """Share of the sites that is learnt from -> head -> `figures`, the mean of `DRAWS` draws of sites."""
    sites, draw = np.unique(photos.site), np.random.default_rng(0)
    found: dict[float, dict[str, list[dict[str, Any]]]] = {}
    for share in SHARES:
        for _ in range(DRAWS if share < 1 else 1):
            learn = np.isin(photos.site, draw.permutation(sites)[: round(len(sites) * share)])
            for head in heads:
                logits = frozen_logits(photos, head, views, fold, learn)
                made = figures(photos, head, logits, fold, homes_in, Targets.precision)
                found.setdefault(share, {}).setdefault(head, []).append(made)
    return {
        share: {
            head: {name: float(np.mean([one[name] for one in made])) for name in made[0]}
            for head, made in by_head.items()
        }
        for share, by_head in found.items()
    }


def without(photos: PhotoSet, fold: NDArray[np.int64], collection: str) -> NDArray[np.int64]:
    """The folds with this collection in none of them: neither learnt from nor evaluated."""
    return np.where(photos.collection == collection, -1, fold)


def _cropped(backbone: Backbone) -> Backbone:
    cut = replace(backbone.preprocessing, resize="crop", crop_ratio=CENTRE)
    return replace(backbone, preprocessing=cut, key=f"{backbone.key}-crop")


def cross_source(
    photos: PhotoSet, heads: Sequence[str], fold: NDArray[np.int64], backbone: Backbone, cache: Path
) -> dict[str, dict[str, Any]]:
    """Learnt without a collection, evaluated on it: collection -> head -> ROC area and average precision
    there, beside those of folds that saw other sites of it. Only where it has photos of both kinds,
    and is not the only one."""
    views = extract(backbone, photos, ("whole",), cache)
    found: dict[str, dict[str, Any]] = {}
    for collection in map(str, np.unique(photos.collection)):
        mine = (photos.collection == collection) & (fold >= 0)
        if (mine == (fold >= 0)).all():
            continue  # nothing is left to learn from
        apart = np.where(fold >= 0, mine.astype(np.int64), -1)
        for head in heads:
            truth = photos.labels[head]
            rows = mine & (truth != UNLABELLED)
            if len(np.unique(truth[rows])) < 2:
                continue
            unseen, seen = (frozen_logits(photos, head, views, by)[rows, 0] for by in (apart, fold))
            found.setdefault(collection, {})[head] = {
                "photos": int(rows.sum()),
                "with": int((truth[rows] == 1).sum()),
                "unseen": _ranking(truth[rows], unseen),
                "other_sites": _ranking(truth[rows], seen),
            }
    return found


def _ranking(truth: NDArray[np.int64], logits: NDArray[np.float64]) -> dict[str, float]:
    return {
        "roc_auc": round(float(roc_auc_score(truth == 1, logits)), 3),
        "average_precision": round(float(average_precision_score(truth == 1, logits)), 3),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--photos", type=Path, default=Path("../shared/photos"))
    parser.add_argument("--homes", default="web_homes", help="first folder of the photos of whole homes")
    parser.add_argument("--size", type=int, default=320)
    parser.add_argument("--pool", default="catavgmax")
    parser.add_argument("--cache", type=Path, default=Path("runs/features"))
    options = parser.parse_args()
    photos = load_photos(options.photos)
    fold = site_fold(photos, BINARY, seed=0)
    print(_table("heads learnt from", ablations(photos, BINARY, fold, options.cache, options.homes)))
    lite = load_backbone(next(iter(PACKAGED)), size=options.size, pool=options.pool)
    curve = learning_curve(
        photos, BINARY, fold, extract(lite, photos, ("whole",), options.cache), options.homes
    )
    print(f"\nLearnt from a share of the sites (Lite0 at {options.size} px, mean of {DRAWS} draws):\n")
    print(_table("sites", {f"{share:.0%}": by_head for share, by_head in curve.items()}))
    print("\nLearnt without a whole collection and evaluated on it, beside folds with other sites of it:\n")
    apart = [
        [
            collection,
            head,
            f"{one['with']} of {one['photos']}",
            *(one[how][key] for key in ("average_precision", "roc_auc") for how in ("unseen", "other_sites")),
        ]
        for collection, by_head in cross_source(photos, BINARY, fold, lite, options.cache).items()
        for head, one in by_head.items()
    ]
    header = ["collection", "head", "with it", "average precision, unseen", "other sites seen"]
    print(table([*header, "ROC area, unseen", "other sites seen"], apart))


def _table(first: str, found: Mapping[str, Mapping[str, dict[str, Any]]]) -> str:
    return table([first, *COLUMNS], [[label, *cells(by_head)] for label, by_head in found.items()])


def cells(by_head: Mapping[str, dict[str, Any]]) -> list[str]:
    """What `COLUMNS` says, of the `figures` of each binary head."""
    each = [by_head[head] for head in BINARY]
    return [
        cell
        for one in each
        for cell in (f"{one['photos']:.3f}", f"{one['homes']:.3f}", f"{one['found']:.0f} of {one['of']:.0f}")
    ]


if __name__ == "__main__":
    main()
