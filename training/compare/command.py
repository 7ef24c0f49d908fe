"""`enrich-train compare` as the command line has it."""

from pathlib import Path
from typing import Annotated, Literal

import torch
from typer import Argument, Option

from enrich.errors import UsageError
from enrich.model.torch_engine import find_device
from training.compare.compare import Machine, compare
from training.compare.plan import Choice, Recipe
from training.compare.timing import measure
from training.models.architectures import WeightSource
from training.terminal import plain
from training.trainer.devices import keep_memory


def compare_command(
    prepared: Annotated[Path, Argument(metavar="PREPARED", help="Folder that prepare wrote")],
    out: Annotated[Path, Option(help="Folder of the results")],
    architecture: Annotated[
        list[str] | None,
        Option(help="resnet18, …, torchvision:MODEL or timm:MODEL; default: the thesis's five"),
    ] = None,
    mode: Annotated[list[str] | None, Option(help="feature_extraction or finetuning; default: both")] = None,
    task: Annotated[list[str] | None, Option(help="Default: all that were prepared")] = None,
    seed: Annotated[list[int] | None, Option(min=0, help="Default: 0")] = None,
    epochs: Annotated[int, Option(min=1)] = Recipe.epochs,
    batch: Annotated[int, Option(min=2, help="Photos a step")] = Recipe.batch,
    rate: Annotated[float, Option(min=0, help="Learning rate")] = Recipe.rate,
    momentum: Annotated[float, Option(min=0, max=0.999)] = Recipe.momentum,
    input_size: Annotated[
        int, Option(min=0, max=1024, help="Side of the input in pixels; 0: the architecture's own")
    ] = 0,
    weights: Annotated[
        Literal["imagenet", "package", "none"],
        Option(help="imagenet: from the hub; package: from pip; none: from scratch"),
    ] = "imagenet",
    weights_dir: Annotated[
        Path | None, Option(help="Folder with ImageNet weights by torchvision's file names")
    ] = None,
    precision: Annotated[
        Literal["auto", "fp32", "bf16"], Option(help="auto: bf16 on CUDA; fp32 repeats exactly")
    ] = "auto",
    cache_features: Annotated[
        int | None,
        Option(
            min=1,
            help="In feature extraction: so many fixed draws of a photo, seen once by the backbone; results "
            "say so. Default: a new draw every epoch",
        ),
    ] = None,
    device: Annotated[str, Option(help="auto, cpu, cuda or cuda:N")] = "auto",
    workers: Annotated[int, Option(min=-1, max=64, help="Threads that load photos; -1: to suit")] = -1,
    save_seconds: Annotated[float, Option(min=0, help="Time between checkpoints")] = 60.0,
    resume: Annotated[bool, Option("--resume", help="Go on in a folder that holds results")] = False,
    timing_steps: Annotated[
        int, Option(min=0, help="Only measure time, so many steps of training and of validation a round")
    ] = 0,
    rounds: Annotated[int, Option(min=1, help="Rounds of --timing-steps")] = 3,
) -> None:
    """Train and validate architectures on the prepared tasks, as the thesis did."""
    if weights_dir is not None and weights != "imagenet":
        raise UsageError(f"--weights-dir holds ImageNet weights: leave out --weights {weights}")
    machine = _machine(device, workers, save_seconds)
    if machine.device.type == "cpu":
        keep_memory()
    if precision == "auto":
        precision = "bf16" if machine.device.type == "cuda" else "fp32"
    recipe = Recipe(epochs, batch, rate, momentum, precision, cache_features)
    choice = Choice(
        tuple(architecture or ()), tuple(mode or ()), tuple(task or ()), tuple(seed or (0,)), input_size
    )
    if timing_steps:
        for row in measure(prepared, out, choice, recipe, machine, timing_steps, rounds):
            plain(stderr=True, highlight=False).print(
                f"task={row.task} architecture={row.architecture} mode={row.mode} round={row.round} "
                f"train_images_per_second={row.train_images_per_second:.1f} "
                f"val_images_per_second={row.val_images_per_second:.1f} epoch_seconds={row.epoch_seconds:.1f}"
            )
        plain().print(f"timings in {out}")
        return
    source = WeightSource(weights, weights_dir)
    left = compare(prepared, out, choice, source, recipe, machine, resume)
    others = f"; {left} runs are left to other processes that are at them" if left else ""
    plain().print(f"results in {out}{others}")


def _machine(device: str, workers: int, save_seconds: float) -> Machine:
    found = find_device(device, "--device ")
    if found.type == "cuda":
        torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
        torch.backends.cudnn.deterministic, torch.backends.cudnn.benchmark = True, False
    return Machine(found, workers if workers >= 0 else (16 if found.type == "cuda" else 1), save_seconds)
