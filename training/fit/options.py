"""What `enrich-train fit` may be asked for."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from enrich.model.arithmetic import Faster
from enrich.model.bundle import Pool
from training.terminal import typed
from training.thresholds.rules import Targets
from training.trainer.finetune import CPU, Recipe


@dataclass(frozen=True)
class FitOptions:
    """What it was asked for; `fit.command` says what each option means."""

    photos: Path
    out: Path
    backbone: str = "timm:tf_efficientnet_lite0"
    weights: str = "package"
    size: int = 0
    seed: int = 0
    exclude: tuple[str, ...] = ()
    views: tuple[str, ...] = ("whole", "flip")
    pool: Pool | None = None
    heads: Mapping[str, Path] = field(default_factory=dict)
    """Heads beside those of the manifest: name -> file of labels."""
    label_fixes: Path | None = None
    frozen_on: Path | None = None
    recipe: Recipe = field(default_factory=lambda: Recipe("none"))
    shares: Mapping[str, float] = field(default_factory=dict)
    """Collection -> how much a photo of it counts in finetuning; 1 where not named."""
    device: torch.device = CPU
    runs: int = 1
    jobs: int = 0
    cache: Path = Path("runs/features")
    arithmetics: tuple[Faster, ...] = ()
    """What the bundle is to have beside fp32, and beside what that of `frozen_on` has."""
    homes: str = ""
    """Collection (first folder of the paths) of whole homes; empty: every group is one."""
    targets: Targets = field(default_factory=Targets)
    name: str = "listing photos"
    notice: str = ""


def command(options: FitOptions) -> str:
    """The command that repeats this fit, with its paths left to the reader."""
    return typed("fit PHOTOS_DIR --out DIR", unusual(options))


def unusual(options: FitOptions) -> dict[str, Any]:
    """The options of the command line that are not at their defaults."""
    usual = _written(FitOptions(options.photos, options.out))
    return {name: value for name, value in _written(options).items() if value != usual[name]}


def _written(options: FitOptions) -> dict[str, Any]:
    return {
        "frozen_on": options.frozen_on and "BUNDLE",
        **{name: getattr(options, name) for name in ("backbone", "weights", "size", "pool", "seed")},
        "finetune": options.recipe.part,
        "samples": options.recipe.samples,
        "learn_size": options.recipe.side,
        "arithmetic": options.arithmetics,
        "runs": options.runs,
        "head": [f"{name}=LABELS.csv" for name in options.heads],
        "label_fixes": options.label_fixes,
        "share": [f"{name}={share:g}" for name, share in options.shares.items()],
        "exclude": options.exclude,
        "view": options.views,
        "homes": options.homes,
        "prevalence": options.targets.prevalence,
        "precision": options.targets.precision,
        "name": options.name,
        "notice": options.notice,
    }
