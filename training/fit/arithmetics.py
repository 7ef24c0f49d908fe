"""The faster arithmetics of a bundle that was just fitted, each on what it says of photos that were held out.

Heads are held out by fold, as in fp32, and so is a finetuned backbone: each fold's is made faster by itself,
int8 with photos that it learnt from. A frozen backbone is the same in all folds, in int8 too.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import get_args

import numpy as np

from enrich.model.arithmetic import Faster
from enrich.model.bundle import Bundle
from enrich.model.writing import write_bundle
from enrich.records import Output, PhotoResult, Scores
from training.data.photos import PhotoSet
from training.evaluate.faster import Exact, Making, check_making, fit_each, left_out, with_arithmetics
from training.evaluate.rethreshold import adjust
from training.evaluate.scored import Judge, Rows, Scored, score_all
from training.fit.options import FitOptions
from training.models.backbones import Backbone
from training.models.heads import FittedHead, held_out_logits


def plan_making(
    asked: Sequence[Faster], base: Bundle | None, photos: PhotoSet, seed: int
) -> tuple[Making, list[str]]:
    """What to make: what was asked for, and what the bundle `base`, whose backbone the heads are on, has
    already; lines for people on what of that this CPU cannot fit. Raises UsageError: what was asked for
    cannot be made or fitted here."""
    have = [] if base is None else [name for name in get_args(Faster) if name in base.arithmetics]
    left = left_out(have, asked)
    names = tuple(name for name in get_args(Faster) if name in {*asked, *have} - left.keys())
    making = Making(names, origin=base)
    if "int8" in names and "int8" not in have:
        making = Making(names, _paths(photos, photos.split == "train"), seed)
    check_making((), making)
    return making, [*left.values()]


def add_held_out(
    bundle: Bundle,
    heads: Sequence[FittedHead],
    by_fold: Sequence[Backbone],
    photos: PhotoSet,
    making: Making,
    options: FitOptions,
    scratch: Path,
) -> tuple[Bundle, list[str]]:
    """A copy of `bundle` in `scratch`, its manifest with the arithmetics of `making` fitted, and lines for
    people.

    `heads`: those of the bundle, with what they and their likes said in fp32. `by_fold`: fold -> the backbone
    that did not learn from it; none: the bundle's own learnt from no photo.
    """
    draft, new = with_arithmetics(bundle, making, scratch / "draft", scratch)
    train = photos.split == "train"
    parts = [(draft, np.flatnonzero(train))]
    if by_fold:
        fold = np.max([head.fold for head in heads], axis=0)  # one for all heads, but -1 where not labelled
        parts = []
        for number, backbone in enumerate(by_fold):
            mine, folder = making, scratch / f"fold{number}"
            if making.calibration:
                mine = replace(making, calibration=_paths(photos, train & (fold != number)))
            made, _ = with_arithmetics(_with(bundle, backbone, folder), mine, folder / "faster", scratch)
            parts.append((made, np.flatnonzero(fold == number)))
    rows = np.concatenate([held for _, held in parts])

    def score(name: Faster) -> Scored:
        here = draft.at(name)
        results: list[PhotoResult] = []
        for made, held in parts:
            judge = _judge(heads, held, here.members[0].model_id)
            results += score_all(made.at(name), photos.of(held), options.device, scratch, judge).results
        return Scored(here, photos.of(rows), tuple(results), options.device)

    exact = Exact(
        {head.name: head.held_out[rows] for head in heads},
        {head.name: head.metrics["true"]["cross_fitted"] for head in bundle.heads if head.kind == "binary"},
    )
    prefixes = (f"{options.homes}/",) if options.homes else ()
    fit = partial(adjust, targets=options.targets, prefixes=prefixes)
    _, lines = fit_each(draft, new, exact, score, fit)
    return draft, lines


def _paths(photos: PhotoSet, chosen: Rows) -> tuple[Path, ...]:
    return tuple(photos.folder / photos.paths[row] for row in np.flatnonzero(chosen))


def _with(bundle: Bundle, backbone: Backbone, folder: Path) -> Bundle:
    """The bundle with another backbone under its heads, which nobody asks."""
    (member,) = bundle.members
    tensors = bundle.tensors(member) | {f"backbone.{key}": one for key, one in backbone.tensors.items()}
    return write_bundle(folder, bundle.manifest, {member.weights: tensors})


def _judge(heads: Sequence[FittedHead], rows: Rows, model: str) -> Judge:
    """Scores, as if by `model`, by the heads that did not learn from the photo; NaN where there are none."""

    def judge(row: int, outputs: Mapping[str, Output]) -> dict[str, Scores]:
        (output,) = outputs.values()
        fold, features = rows[[row]], output.features[None]
        return {
            model: {
                head.name: tuple(held_out_logits(head.by_fold, head.fold[fold], features)[0].tolist())
                for head in heads
            }
        }

    return judge
