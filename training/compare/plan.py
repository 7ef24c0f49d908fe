"""Which runs a comparison makes, in which order, and all that can be known to be wrong before the first."""

import hashlib
import shutil
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from itertools import product
from pathlib import Path
from typing import Any

import torch

from enrich.errors import UsageError
from enrich.model.bundle import Preprocessing
from training import thesis
from training.compare.results import RunKey
from training.data.prepared import Prepared
from training.models.architectures import (
    MODES,
    Network,
    WeightSource,
    architecture_name,
    preprocessing_of,
    pretrained,
)


@dataclass(frozen=True)
class Recipe:
    """How a run learns: the thesis's SGD. `precision`: fp32 (an exact repeat) or bf16. `cache_features`:
    fixed draws of a photo, of which features are kept; None: a new draw every epoch."""

    epochs: int = thesis.EPOCHS
    batch: int = thesis.BATCH
    rate: float = 0.001
    momentum: float = 0.9
    precision: str = "fp32"
    cache_features: int | None = None


@dataclass(frozen=True)
class Choice:
    """What is compared; nothing named: the thesis's own. `size` in pixels, 0: each architecture's own."""

    architectures: tuple[str, ...] = ()
    modes: tuple[str, ...] = ()
    tasks: tuple[str, ...] = ()
    seeds: tuple[int, ...] = (0,)
    size: int = 0


@dataclass(frozen=True)
class Plan:
    """One run."""

    key: RunKey
    classes: tuple[str, ...]
    preprocessing: Preprocessing
    weights: WeightSource
    recipe: Recipe
    digest: str
    """Of the prepared folder."""

    def identity(self) -> dict[str, Any]:
        """All that its figures depend on; two runs with the same one are the same run."""
        recipe = {name: value for name, value in asdict(self.recipe).items() if value is not None}
        return {
            **asdict(self.key),
            "classes": list(self.classes),
            "weights": self.weights.kind,
            "from_scratch": self.weights.kind == "none",
            "preprocessing": {
                name: list(value) if isinstance(value, tuple) else value
                for name, value in asdict(self.preprocessing).items()
            },
            "hyperparameters": {**recipe, "optimiser": "sgd", "auxiliary_weight": 0.4},
            "dataset_digest": self.digest,
        }


def make_plans(prepared: Prepared, choice: Choice, weights: WeightSource, recipe: Recipe) -> list[Plan]:
    """The runs in order: by seed, mode, architecture and task.

    Features are kept in feature extraction only.

    Raises:
        UsageError: an unknown task or architecture, or features are to be kept where all weights learn.
    """
    names = choice.architectures or tuple(thesis.ARCHITECTURES)
    architectures = tuple(dict.fromkeys(architecture_name(given) for given in names))
    tasks = choice.tasks or tuple(prepared.classes)
    modes = choice.modes or MODES
    for mode in modes:
        if mode not in MODES:
            raise UsageError(f"--mode {mode}: use {' or '.join(MODES)}")
    for task in tasks:
        if task not in prepared.classes:
            known = ", ".join(prepared.classes)
            raise UsageError(f"--task {task}: {prepared.folder} has {known}; prepare that task, too")
    if recipe.cache_features and MODES[0] not in modes:
        raise UsageError(f"--cache-features is for --mode {MODES[0]}, where the backbone stays as it is")
    recipes = {MODES[0]: recipe, MODES[1]: replace(recipe, cache_features=None)}
    seen = {name: preprocessing_of(name, weights.kind, choice.size) for name in architectures}
    return [
        Plan(
            RunKey(task, architecture, mode, seed),
            prepared.classes[task],
            seen[architecture],
            weights,
            recipes[mode],
            prepared.digest,
        )
        for seed, mode, architecture, task in product(choice.seeds, modes, architectures, tasks)
    ]


def check_photos(prepared: Prepared, plans: Sequence[Plan]) -> None:
    """Refuse, with a UsageError, too few classes or photos, and photos that were changed since `prepare`."""
    tasks, batch = list(dict.fromkeys(plan.key.task for plan in plans)), plans[0].recipe.batch
    for task in tasks:
        classes = prepared.classes[task]
        if len(classes) < 2:
            raise UsageError(f"task {task} has one class only ({classes[0]}); add photos of another one")
        found = prepared.photos[prepared.photos["task"] == task].groupby(["label", "split"]).size()
        for label in classes:
            if (count := found.get((label, "train"), 0)) < batch:
                raise UsageError(
                    f"class {label} of {task} has {count} training photos, fewer than a batch of {batch}; "
                    "add photos or use a smaller --batch"
                )
            if (label, "val") not in found:
                raise UsageError(f"class {label} of {task} has no validation photo; add photos")
    for photo in prepared.photos[prepared.photos["task"].isin(tasks)].itertuples():
        path = prepared.folder / photo.path
        if hashlib.sha256(path.read_bytes()).hexdigest() != photo.sha256:
            raise UsageError(
                f"{path} was changed after it was prepared; make the folder again with enrich-train prepare"
            )


def check_resources(
    plans: Sequence[Plan], todo: Sequence[Plan], prepared: Prepared, out: Path
) -> dict[str, Network]:
    """Weights are here, every network can be built, and the disk holds what the runs `todo` keep.

    Returns:
        Architecture -> the network, without memory for its weights, of all `plans`.

    Raises:
        UsageError: one of these is not so.
    """
    networks: dict[str, Network] = {}
    for plan in plans:
        if plan.key.architecture not in networks:
            with torch.device("meta"):
                networks[plan.key.architecture] = Network(
                    plan.key.architecture, len(plan.classes), plan.key.mode, plan.preprocessing
                )
    for architecture, weights in {plan.key.architecture: plan.weights for plan in todo}.items():
        pretrained(architecture, weights)
    kept = largest = 0
    for plan in todo:
        network = networks[plan.key.architecture]
        size = 4 * network.parameter_counts()[0]
        draws, photos = plan.recipe.cache_features, len(prepared.of(plan.key.task, "train"))
        kept += size + 4 * network.head.in_features * photos * (draws + 1 if draws else 0)
        # A checkpoint holds weights, momentum and the best epoch's weights; the last one stays meanwhile.
        largest = max(largest, 2 * 3 * size)
    folder = next(path for path in (out, *out.absolute().parents) if path.exists())
    free, needed = shutil.disk_usage(folder).free, kept + largest
    if free < needed:
        raise UsageError(
            f"{out} has {free / 1e9:.1f} GB free, and {len(todo)} runs need up to {needed / 1e9:.1f} GB for "
            "weights and checkpoints; free some, or name another --out"
        )
    return networks
