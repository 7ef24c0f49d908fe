"""Fit: from labelled photos to a bundle with its figures.

Features of a frozen backbone, one linear head per question, calibrated and judged on sites the heads had not
seen; then the finished bundle is run as serving runs it, for the figures of split `listing` and of bf16.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import torch

from enrich.bundle import Bundle, write_bundle
from training.backbones import Backbone, load_backbone
from training.data import ROOM, PhotoSet, load_photos
from training.features import extract
from training.heads import LinearHead, fit_head
from training.judge import Targets, judge_binary, judge_classes
from training.serve import bf16_delta, listing_figures

BINARY = ("balcony", "fireplace")
UNPUBLISHED = frozenset({"exterior", "balcony", "floor_plan", "other"})
"""Room classes that keep photos out of the published ones; as answers they would help nobody."""
WEIGHTS_FILE = "lite0.safetensors"


@dataclass(frozen=True)
class FitOptions:
    """What `enrich-train fit` was asked for."""

    photos: Path
    out: Path
    backbone: str = "timm:tf_efficientnet_lite0"
    weights: str = "package"
    size: int = 0
    """Side of the input in pixels; 0: the backbone's own."""
    seed: int = 0
    exclude: tuple[str, ...] = ()
    views: tuple[str, ...] = ("whole", "flip")
    cache: Path = Path("runs/features")
    targets: Targets = field(default_factory=Targets)
    name: str = "starter"


def fit(options: FitOptions) -> Bundle:
    """Make a bundle from labelled photos and write it to `options.out`.

    Raises:
        UsageError: the photos, the labels or the backbone cannot be used; nothing was written.
        BundleError: `options.out` holds something that is not a bundle.
    """
    photos = load_photos(options.photos, BINARY, ROOM, options.exclude)
    backbone = load_backbone(options.backbone, options.weights, options.size, options.seed)
    views = extract(backbone, photos, options.views, options.cache)
    trainable = photos.split == "train"
    heads: dict[str, LinearHead] = {}
    entries: list[dict[str, Any]] = []
    for name in (*BINARY, ROOM.column):
        classes = photos.classes.get(name)
        fitted = fit_head(
            name, photos.labels[name], classes, views, photos.group, photos.site, trainable, options.seed
        )
        if classes is None:
            judged = judge_binary(photos, fitted, options.targets)
        else:
            publish = {label: label not in UNPUBLISHED for label in classes}
            judged = judge_classes(photos, fitted, publish, options.targets)
        heads[name] = judged.head
        entries.append(judged.entry)
    return _write(options, photos, backbone, heads, entries)


def _write(
    options: FitOptions,
    photos: PhotoSet,
    backbone: Backbone,
    heads: dict[str, LinearHead],
    entries: list[dict[str, Any]],
) -> Bundle:
    tensors: dict[str, Any] = {f"backbone.{name}": tensor for name, tensor in backbone.tensors.items()}
    for name, head in heads.items():
        tensors[f"head.{name}.weight"] = torch.from_numpy(head.weight)
        tensors[f"head.{name}.bias"] = torch.from_numpy(head.bias)
    member: dict[str, Any] = {
        "backbone": backbone.name,
        "weights": WEIGHTS_FILE,
        "preprocessing": asdict(backbone.preprocessing),
        "bf16": None,
        "heads": entries,
    }
    manifest: dict[str, Any] = {
        "name": options.name,
        "description": "Balcony, fireplace and rooms from photos of homes: for evaluation and demonstration",
        "created": datetime.now(UTC).date().isoformat(),
        "members": [member],
        "training": _training(options, photos),
    }
    bundle = write_bundle(options.out, manifest, {WEIGHTS_FILE: tensors})
    member["bf16"] = {"delta_p999": bf16_delta(bundle, photos, options.targets.homes, options.seed)}
    manifest["training"]["listing_split"] = listing_figures(bundle, photos)
    return write_bundle(options.out, manifest, {WEIGHTS_FILE: tensors})


def _training(options: FitOptions, photos: PhotoSet) -> dict[str, Any]:
    return {
        "command": command(options),
        "seed": options.seed,
        "views": list(options.views),
        "excluded": list(options.exclude),
        "collections": _collections(photos),
        "licences": _counted(photos.licence),
        "targets": asdict(options.targets),
    }


def command(options: FitOptions) -> str:
    """The command that repeats this fit, with its paths left to the reader."""
    default = FitOptions(options.photos, options.out)
    parts = ["enrich-train fit PHOTOS_DIR --out DIR"]
    for option in ("backbone", "weights", "size", "seed"):
        if getattr(options, option) != getattr(default, option):
            parts.append(f"--{option} {getattr(options, option)}")
    parts += [f"--exclude {prefix}" for prefix in options.exclude]
    if options.views != default.views:
        parts += [f"--view {view}" for view in options.views]
    for option in ("homes", "prevalence", "true_precision"):
        value = getattr(options.targets, option)
        if value != getattr(default.targets, option):
            parts.append(f"--{option.removeprefix('true_')} {value}")
    return " ".join(parts)


def _collections(photos: PhotoSet) -> dict[str, Any]:
    figures = {}
    for name in np.unique(photos.collection):
        rows = photos.collection == name
        figures[str(name)] = {
            "photos": int(rows.sum()),
            "trained_on": int((rows & (photos.split == "train")).sum()),
            "groups": len(np.unique(photos.group[rows])),
            "sites": len(np.unique(photos.site[rows])),
            **{head: int((photos.labels[head][rows] == 1).sum()) for head in BINARY},
        }
    return figures


def _counted(values: Sequence[str] | np.ndarray[Any, Any]) -> dict[str, int]:
    names, counts = np.unique(values, return_counts=True)
    order = np.argsort(-counts)
    return {str(names[i]) or "none stated": int(counts[i]) for i in order}
