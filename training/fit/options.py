"""What `enrich-train fit` may be asked for."""

import shlex
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from enrich.model.arithmetic import Faster
from enrich.model.bundle import Pool
from training.thresholds.rules import Targets
from training.trainer.finetune import Recipe


@dataclass(frozen=True)
class FitOptions:
    """What it was asked for."""

    photos: Path
    out: Path
    backbone: str = "timm:tf_efficientnet_lite0"
    weights: str = "package"
    size: int = 0
    """Side of the input in pixels; 0: the backbone's own."""
    seed: int = 0
    exclude: tuple[str, ...] = ()
    views: tuple[str, ...] = ("whole", "flip")
    """What heads on a frozen backbone learn from."""
    pool: Pool | None = None
    """How the backbone pools its last feature map; None: its own way."""
    heads: Mapping[str, Path] = field(default_factory=dict)
    """Heads beside those of the manifest: name -> file of labels."""
    label_fixes: Path | None = None
    """A file of corrected labels."""
    frozen_on: Path | None = None
    """A bundle whose backbone the heads are learnt on, as it is, in place of a pretrained one."""
    finetune: Literal["top", "all", "none"] = "none"
    recipe: Recipe = field(default_factory=Recipe)
    shares: Mapping[str, float] = field(default_factory=dict)
    """Collection -> how much a photo of it counts in finetuning; 1 where not named."""
    device: str = "auto"
    """Where to finetune and to score: auto, cpu, cuda or cuda:N."""
    runs: int = 1
    """Finetunings that differ in their seed and are averaged to one."""
    jobs: int = 0
    """Finetunings side by side; 0: as many as there are cores."""
    cache: Path = Path("runs/features")
    arithmetics: tuple[Faster, ...] = ()
    """What the bundle is to have beside fp32, and beside what that of `frozen_on` has."""
    homes: str = ""
    """Collection (first folder of the paths) of whole homes; empty: every group is one."""
    targets: Targets = field(default_factory=Targets)
    name: str = "listing photos"
    notice: str = ""
    """What whoever runs the bundle on a database of their own is told once a run."""


def command(options: FitOptions) -> str:
    """The command that repeats this fit, with its paths left to the reader."""
    default = FitOptions(options.photos, options.out)
    parts = ["enrich-train fit PHOTOS_DIR --out DIR"]
    parts += ["--frozen-on BUNDLE"] if options.frozen_on else []
    for option in ("backbone", "weights", "size", "pool", "seed", "finetune"):
        if getattr(options, option) != getattr(default, option):
            parts.append(f"--{option} {getattr(options, option)}")
    if options.recipe.samples != default.recipe.samples:
        parts.append(f"--samples {options.recipe.samples}")
    parts += [f"--arithmetic {name}" for name in options.arithmetics]
    parts += [f"--runs {options.runs}"] if options.runs > 1 else []
    parts += [f"--head {name}=LABELS.csv" for name in options.heads]
    parts += [f"--label-fixes {shlex.quote(str(options.label_fixes))}"] if options.label_fixes else []
    parts += [f"--share {shlex.quote(f'{name}={share:g}')}" for name, share in options.shares.items()]
    parts += [f"--exclude {shlex.quote(prefix)}" for prefix in options.exclude]
    if options.views != default.views:
        parts += [f"--view {view}" for view in options.views]
    parts += [f"--homes {shlex.quote(options.homes)}"] if options.homes else []
    for option in ("prevalence", "precision"):
        value = getattr(options.targets, option)
        if value != getattr(default.targets, option):
            parts.append(f"--{option} {value}")
    parts += [
        f"--{option} {shlex.quote(getattr(options, option))}"
        for option in ("name", "notice")
        if getattr(options, option) != getattr(default, option)
    ]
    return " ".join(parts)
