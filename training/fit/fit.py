"""Fit: from labelled photos to a bundle with its figures.

A backbone, frozen or finetuned, and one linear head per question, calibrated and evaluated on sites not seen
before; then the finished bundle is run as serving runs it, for the figures of split `listing` and of the
faster arithmetics.
"""

import tempfile
from collections.abc import Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch

from enrich.errors import UsageError
from enrich.model.bundle import Bundle, load_bundle
from enrich.model.writing import check_free, write_bundle
from training.data.homes import whole_homes
from training.data.labels import BINARY, ROOM, UNLABELLED
from training.data.photos import PhotoSet, load_photos, without_rare_classes
from training.evaluate.faster import Making
from training.evaluate.measure import named_classes, outcomes
from training.evaluate.scored import score_all
from training.evaluate.trained_on import frozen_on
from training.fit.arithmetics import add_held_out, plan_making
from training.fit.multitask import Learnt, fit_multitask
from training.fit.options import FitOptions, command, unusual
from training.models.backbones import backbone_of, load_backbone
from training.models.features import check_cache, extract
from training.models.heads import FittedHead, fit_head
from training.thresholds.rules import Entry, calibrated_binary, calibrated_classes

UNPUBLISHED = frozenset({"balcony", "floor_plan", "other"})
"""Room classes that keep photos out of the published ones: a balcony has a head of its own, the others help
nobody as answers."""


def fit(options: FitOptions) -> Bundle:
    """Make a bundle from labelled photos and write it to `options.out`.

    Raises:
        UsageError: the photos, the labels or the backbone cannot be used; nothing was written.
        BundleError: `options.out` holds something that is not a bundle.
    """
    check_free(options.out)  # as all else here, before hours are spent
    check_cache(options.cache)
    base = None if options.frozen_on is None else _base(options, options.frozen_on)
    photos = load_photos(options.photos, options.exclude, options.heads, options.label_fixes)
    photos, rare = without_rare_classes(photos, ROOM)
    _check_folders(options, photos)
    backbone = (
        load_backbone(options.backbone, options.weights, options.size, options.seed, options.pool)
        if base is None
        else backbone_of(base)
    )
    names = (*BINARY, *options.heads, ROOM)
    for name in names:
        if name not in photos.classes:  # refused before hours are spent
            whole_homes(photos, name, np.where(photos.split == "train", 0, -1), options.homes)
    making, told = plan_making(options.arithmetics, base, photos, options.seed)
    if options.recipe.part == "none":
        views = extract(backbone, photos, options.views, options.cache)
        learnt = Learnt(backbone, [fit_head(photos, name, views, options.seed) for name in names])
    else:
        learnt = fit_multitask(photos, names, backbone, options)
    calibrated = []
    for head in learnt.heads:
        classes = photos.classes.get(head.name)
        if classes is None:
            calibrated.append(calibrated_binary(photos, head, options.homes, options.targets))
        else:
            kept = UNPUBLISHED if head.name == ROOM else ()
            publish = {label: label not in kept for label in classes}
            calibrated.append(calibrated_classes(photos, head, publish, options.homes, options.targets))
    extra: dict[str, Any] = {
        "comparison": learnt.comparison,
        "classes_left_out": list(rare),
        "arithmetics": told,
        "folds": _folds(learnt.heads),
    }
    if base is not None:
        left_out = [head.name for head in base.heads if head.name not in names]
        extra["frozen_on"] = {**frozen_on(base, photos), "heads_left_out": left_out}
    return _write(options, photos, learnt, calibrated, making, extra)


def _base(options: FitOptions, folder: Path) -> Bundle:
    for option in ("finetune", "backbone", "weights", "size", "pool"):
        if option in unusual(options):
            raise UsageError(
                f"--{option} and --frozen-on contradict each other: the bundle's backbone is taken as it is"
            )
    if options.out.resolve() == folder.resolve():
        raise UsageError(f"--out {options.out} is the bundle of --frozen-on: name another folder")
    return load_bundle(folder)


def _check_folders(options: FitOptions, photos: PhotoSet) -> None:
    """Refuse options that name no folder of the photos."""
    if options.homes and not photos.within(options.homes).any():
        raise UsageError(
            f"--homes {options.homes}: no photo's path begins with that folder; name the folder of "
            'whole homes, or "" where every group is one'
        )
    for name in ("share", "learn-size") if options.recipe.part == "none" else ():
        if name.replace("-", "_") in unusual(options):
            raise UsageError(f"--{name} is for finetuning; leave it out, or add --finetune")
    for name in options.shares:
        if not photos.within(name).any():
            raise UsageError(f"--share {name}: no photo's path begins with that folder")


def _write(
    options: FitOptions,
    photos: PhotoSet,
    learnt: Learnt,
    calibrated: Sequence[tuple[FittedHead, Entry]],
    making: Making,
    extra: dict[str, Any],
) -> Bundle:
    backbone = learnt.backbone
    file = f"{backbone.name.rpartition('_')[2].rpartition(':')[2]}.safetensors"
    tensors: dict[str, Any] = {f"backbone.{name}": tensor for name, tensor in backbone.tensors.items()}
    heads = [head for head, _ in calibrated]
    for one in heads:
        tensors[f"head.{one.name}.weight"] = one.head.weight
        tensors[f"head.{one.name}.bias"] = one.head.bias
    member: dict[str, Any] = {
        "backbone": backbone.name,
        "weights": file,
        **({"pool": backbone.pool} if backbone.pool else {}),
        "preprocessing": asdict(backbone.preprocessing),
        "heads": [entry for _, entry in calibrated],
    }
    manifest: dict[str, Any] = {
        "name": options.name,
        "description": f"{', '.join(one.name for one in heads)} from photos of homes",
        **({"notice": options.notice} if options.notice else {}),
        "created": datetime.now(UTC).date().isoformat(),
        "members": [member],
        "training": (training := _training(options, photos) | extra),
    }
    irs: dict[str, bytes] = {}
    with tempfile.TemporaryDirectory() as folder:
        scratch = Path(folder)
        bundle = write_bundle(scratch / "exact", manifest, {file: tensors})
        training["listing_split"] = listing_figures(bundle, photos, options.device, scratch)
        if making.arithmetics:
            draft, lines = add_held_out(bundle, heads, learnt.by_fold, photos, making, options, scratch)
            manifest["members"] = draft.manifest["members"]
            training["arithmetics"] += lines
            irs = {
                name: (draft.folder / name).read_bytes() for name in draft.manifest["files"] if name != file
            }
        return write_bundle(options.out, manifest, {file: tensors}, irs)


def _training(options: FitOptions, photos: PhotoSet) -> dict[str, Any]:
    finetuned = options.recipe.part != "none"
    return {
        "command": command(options),
        "seed": options.seed,
        **({} if options.frozen_on else {"weights": options.weights}),
        "finetune": options.recipe.part,
        "runs": options.runs,
        "recipe": asdict(options.recipe) if finetuned else {},
        "views": list(options.views),
        "excluded": list(options.exclude),
        "collections": _collections(photos),
        "licences": _counted(photos.licence),
        "targets": {"homes": options.homes, **asdict(options.targets)},
        "binary": [name for name in photos.labels if name not in photos.classes],
    }


def _folds(heads: Sequence[FittedHead]) -> int | str:
    """How many folds there were: of few sites fewer than were asked for, and not for all heads alike."""
    counts = [len(np.unique(head.fold[head.fold >= 0])) for head in heads]
    fewest, most = min(counts), max(counts)
    return most if fewest == most else f"{fewest} to {most}"


def _collections(photos: PhotoSet) -> dict[str, Any]:
    figures = {}
    for name in np.unique(photos.collection):
        rows = photos.collection == name
        figures[str(name)] = {
            "photos": int(rows.sum()),
            "trained_on": int((rows & (photos.split == "train")).sum()),
            "groups": len(np.unique(photos.group[rows])),
            "sites": len(np.unique(photos.site[rows])),
            **{
                head: int((labels[rows] == 1).sum())
                for head, labels in photos.labels.items()
                if head not in photos.classes
            },
        }
    return figures


def _counted(values: Sequence[str] | np.ndarray[Any, Any]) -> dict[str, int]:
    counts: dict[str, int] = (
        pd.Series(values).replace("", "none stated").sort_values().value_counts().to_dict()
    )
    return counts


def listing_figures(bundle: Bundle, photos: PhotoSet, device: torch.device, cache: Path) -> dict[str, Any]:
    """What the homes of split `listing` come out as where the bundle is run as serving runs it; empty where
    there is no such split. `cache`: folder of converted networks.

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
