"""Finetuning as `fit` needs it: every head's held-out logits by folds of sites, then the fit on all photos.

The same folds are also evaluated with a frozen backbone, so that the card says what finetuning is worth.
"""

import multiprocessing
import os
import signal
from collections.abc import Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, field
from threading import Thread
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from enrich.cores import usable_cores
from enrich.errors import SignalError, StoppedError, UsageError
from training.data.labels import UNLABELLED
from training.data.photos import PhotoSet
from training.fit.frozen import figures, frozen_logits
from training.fit.options import FitOptions
from training.models.backbones import Backbone, features_of, rounded
from training.models.features import extract
from training.models.heads import FittedHead, check_classes, check_folds, photo_weights, site_folds
from training.trainer import trainable
from training.trainer.devices import keep_memory
from training.trainer.finetune import Finetuned, Lessons, Task, averaged, finetune, predict

FOLDS = 3
"""Fewer than for heads alone, since each costs a finetuning; held-out figures are the lower for it."""


@dataclass(frozen=True)
class Learnt:
    """The backbone (half precision, as the bundle ships it) and its heads; where it was finetuned, what
    frozen ones reach in the same folds, and the backbones that did not learn from a fold."""

    backbone: Backbone
    heads: Sequence[FittedHead]
    comparison: Mapping[str, Any] = field(default_factory=dict)
    by_fold: Sequence[Backbone] = ()


def fit_multitask(photos: PhotoSet, names: Sequence[str], backbone: Backbone, options: FitOptions) -> Learnt:
    """Finetune once per fold for held-out logits of the heads `names`, then once on all training photos.

    On a CPU finetunings work side by side, one thread each, on a GPU one after another.

    Raises:
        UsageError: the backbone cannot be finetuned, or not at this size, a photo cannot be decoded, too few
            homes or sites, or shares that leave nothing to learn from.
    """
    recipe = options.recipe  # refused before hours are spent:
    trainable.LEARNERS[recipe.part](backbone.module, backbone.name)
    if recipe.side:
        features_of(backbone.name, backbone.module, (recipe.side, recipe.side), "--learn-size")
    for name in names:
        check_classes(photos, name)
    fold = site_fold(photos, names, options.seed)
    for name in names:
        check_folds(photos, name, fold)
    work = finetunings(photos, names, backbone, options, fold)
    vectors = extract(backbone, photos, ("whole",), options.cache)
    *by_fold, (final, _) = _run(work, options.jobs if options.device.type == "cpu" else 1)
    logits = held_out(work[:-1], [predicted for _, predicted in by_fold])
    learnt = [finetuned for finetuned, _ in by_fold]
    heads = []
    for task in work[-1].lessons.tasks:
        known = (task.labels != UNLABELLED) & (fold >= 0)
        head = FittedHead(
            name=task.name,
            head=final.heads[task.name],
            strength=None,
            by_fold={number: one.heads[task.name] for number, one in enumerate(learnt)},
            held_out=np.where(known[:, None], logits[task.name], np.nan),
            fold=np.where(known, fold, -1),
        )
        heads.append(head)

    def measured(name: str, said: NDArray[np.float64]) -> dict[str, Any]:
        return figures(photos, name, said, fold, options.homes, options.targets.precision)

    comparison = {
        head.name: {
            "frozen": measured(head.name, frozen_logits(photos, head.name, vectors, fold)),
            "finetuned": measured(head.name, head.held_out),
        }
        for head in heads
        if head.name not in photos.classes
    }
    backbones = [rounded(backbone, one.tensors) for one in learnt]
    return Learnt(rounded(backbone, final.tensors), heads, comparison, backbones)


def finetunings(
    photos: PhotoSet, names: Sequence[str], backbone: Backbone, options: FitOptions, fold: NDArray[np.int64]
) -> list["Finetuning"]:
    """One for each fold, which is held out in it, and last the one on all training photos. `fold`: as of
    `site_fold`. Raises UsageError: one has no photo to learn from."""
    tasks = [Task(name, photos.labels[name], len(photos.classes.get(name, "1"))) for name in names]
    train, weight = photos.split == "train", np.zeros(len(photos))
    for name in names:
        known = photos.learnable(name)
        weight[known] += photo_weights(photos.labels[name][known], photos.group[known])
    weight *= [options.shares.get(str(name), 1.0) for name in photos.collection]
    folds = range(fold.max() + 1)  # of few sites fewer than FOLDS
    if not all(weight[fold != number].any() for number in folds):
        raise UsageError(
            "--share: nothing is left to learn from where the sites of a fold are held out; give photos of "
            "more sites a share above 0"
        )
    paths, work = [photos.folder / path for path in photos.paths], []
    for number in (*folds, -1):
        learn, held = (np.flatnonzero(train & part) for part in (fold != number, fold == number))
        lessons = Lessons(paths, photos.sha256, tasks, learn, weight[learn])
        work.append(Finetuning(backbone, lessons, options, held))
    return work


@dataclass(frozen=True)
class Finetuning:
    """Called, it learns, and gives logits of the photos of the rows `held`."""

    backbone: Backbone
    lessons: Lessons
    options: FitOptions
    held: NDArray[np.int64]

    def __call__(self) -> "Result":
        backbone, lessons, options = self.backbone, self.lessons, self.options
        learnt = averaged(
            [
                finetune(backbone, lessons, options.recipe, seed, options.cache, options.device)
                for seed in range(options.seed, options.seed + options.runs)
            ]
        )
        return learnt, predict(backbone, learnt, lessons.paths, self.held) if self.held.size else {}


Result = tuple[Finetuned, dict[str, NDArray[np.float64]]]


def held_out(
    work: Sequence[Finetuning], predicted: Sequence[Mapping[str, NDArray[np.float64]]]
) -> dict[str, NDArray[np.float64]]:
    """Head -> logits [photos, outputs] of what each of these finetunings held out; NaN elsewhere."""
    tasks, count = work[0].lessons.tasks, len(work[0].lessons.paths)
    logits = {task.name: np.full((count, task.outputs), np.nan) for task in tasks}
    for one, by_head in zip(work, predicted, strict=True):
        for name, values in by_head.items():
            logits[name][one.held] = values
    return logits


def _run(work: Sequence[Finetuning], jobs: int) -> list[Result]:
    """What they give, in processes of one thread each: small convolutions gain little from more threads.

    Raises:
        SignalError: Ctrl-C; none learns any more.
        StoppedError: one was ended from outside; none learns any more.
    """
    count = min(len(work), jobs or usable_cores())
    again = "the same command goes on from its checkpoints"
    try:
        return [one() for one in work] if count == 1 else _side_by_side(work, count)
    except KeyboardInterrupt:
        raise SignalError(f"stopped by signal: {again}", 128 + signal.SIGINT) from None
    except BrokenProcessPool:
        told = (
            f"a finetuning was ended from outside, perhaps for lack of memory: {again}; give it fewer --jobs"
        )
        raise StoppedError(told) from None


def _side_by_side(work: Sequence[Finetuning], count: int) -> list[Result]:
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(count, context, initializer=_alone) as pool:
        try:
            # Workers are born without an ear for Ctrl-C, of which each would leave a traceback.
            before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
            try:
                results = [pool.submit(one) for one in work]
            finally:
                signal.pthread_sigmask(signal.SIG_SETMASK, before)
            return [result.result() for result in results]
        except BaseException:
            for worker in multiprocessing.active_children():
                worker.kill()  # the pool waits for them, for hours
            raise


def _alone() -> None:
    torch.set_num_threads(1)
    keep_memory()
    Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    """A worker whose parent was killed would learn to the end, beside the command that goes on, and stay."""
    if parent := multiprocessing.parent_process():
        parent.join()
        os._exit(1)


def site_fold(photos: PhotoSet, names: Sequence[str], seed: int) -> NDArray[np.int64]:
    """[photos]: the fold of whole sites in which a training photo is held out; -1 for all others. Folds hold
    equal shares of the photos by the first of the binary attributes that they show."""
    binary = [name for name in names if name not in photos.classes]
    shown = [rank * (photos.labels[name] == 1) for rank, name in enumerate(reversed(binary), start=1)]
    fold, rows = np.full(len(photos), -1, dtype=np.int64), np.flatnonzero(photos.split == "train")
    fold[rows] = site_folds(np.max(shown, axis=0)[rows], photos.site[rows], seed, FOLDS)
    return fold
