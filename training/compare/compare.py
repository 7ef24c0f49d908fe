"""`compare`: all runs one after another, into a results folder that may be taken up again at any time."""

import fcntl
import json
import platform
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

import pandas as pd
import safetensors.torch
import timm
import torch
import torchvision

from enrich.atomic import new_file
from enrich.errors import UsageError
from training.compare.display import Display
from training.compare.plan import Choice, Plan, Recipe, check_photos, check_resources, make_plans
from training.compare.results import (
    BEST,
    CHECKPOINT,
    EPOCHS,
    PREDICTIONS,
    RUN,
    RUNS,
    SETTINGS,
    TIMINGS,
    RunRow,
    add_rows,
    locked,
    read_results,
    read_run,
    write_text,
)
from training.compare.run import Run
from training.data.prepared import Prepared, read_prepared
from training.models.weights import WeightSource
from training.trainer.loading import Loader, Side, side_of


@dataclass(frozen=True)
class Machine:
    """Where and how runs are made; none of it changes what they find. `workers`: threads that load photos."""

    device: torch.device
    workers: int
    save_seconds: float = 60.0

    @property
    def name(self) -> str:
        """The device as results name it."""
        if self.device.type == "cuda":
            return str(torch.cuda.get_device_name(self.device))
        return f"cpu ({torch.get_num_threads()} threads)"


def compare(
    folder: Path,
    out: Path,
    choice: Choice,
    weights: WeightSource,
    recipe: Recipe,
    machine: Machine,
    resume: bool = False,
) -> int:
    """Make every run that is not finished; returns how many were left to other processes.

    Several processes may share the work: with `resume` each takes the runs that no other one is at.

    Raises:
        UsageError: see `plan`; or `out` holds results already, or runs with other options.
    """
    prepared = read_prepared(folder)
    plans = make_plans(prepared, choice, weights, recipe)
    check_photos(prepared, list(dict.fromkeys(plan.key.task for plan in plans)), recipe.batch)
    if not resume and any((out / name).exists() for name in (RUNS, EPOCHS, TIMINGS, "runs")):
        raise UsageError(f"{out} holds results already: go on with --resume, or name another --out")
    todo = [plan for plan in plans if not _finished(plan, out)]
    check_resources(todo, out)
    _write_settings(out, prepared, choice, weights, recipe, machine)
    left = 0
    with Display(len(plans), len(plans) - len(todo)) as display:
        for plan in todo:
            with _taken(out / "runs" / plan.key.folder) as mine:
                if not mine:
                    left += 1
                elif not _finished(plan, out):
                    _run(plan, prepared, out, machine, display)
            display.finished()
    return left


def _finished(plan: Plan, out: Path) -> bool:
    folder = out / "runs" / plan.key.folder
    if not (folder / RUN).exists():
        return False
    found, wanted = read_run(folder), plan.identity()
    flat, other = _flat(wanted), _flat(found)
    for name, value in flat.items():
        if other.get(name) != value:
            raise UsageError(
                f"{folder} is a run with another {name} ({other.get(name)}, here {value}); "
                "name another --out or use the same options"
            )
    if not (out / RUNS).is_file():
        return False
    runs, key = read_results(out).runs, plan.key
    same = (runs.task == key.task) & (runs.architecture == key.architecture)
    return bool((same & (runs["mode"] == key.mode) & (runs.seed == key.seed)).any())


def _flat(identity: dict[str, object]) -> dict[str, object]:
    flat: dict[str, object] = {}
    for name, value in identity.items():
        flat |= value if isinstance(value, dict) else {name: value}
    return flat


@contextmanager
def _taken(folder: Path) -> Iterator[bool]:
    """Whether this process has the run to itself; a kill gives it back."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / ".lock").open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
        else:
            yield True


def _run(plan: Plan, prepared: Prepared, out: Path, machine: Machine, display: Display) -> None:
    folder, key, recipe = out / "runs" / plan.key.folder, plan.key, plan.recipe
    train, validation = side_of(prepared, key.task, "train"), side_of(prepared, key.task, "val")
    loader = Loader(plan.preprocessing, recipe.batch, machine.workers, machine.device)
    try:
        run = Run(plan, train, validation, loader, machine.device, folder, machine.save_seconds)
        write_text(folder / RUN, _json(plan.identity()))
        display.started(key, recipe.epochs, loader.steps(len(train)), run.progress.epoch, run.progress.step)
        for row in run.epochs(display.stepped):
            add_rows(out, [row])
            display.epoch(row)
    finally:
        loader.close()
    _keep_best(run, folder, validation)
    total, learning = run.network.parameter_counts()
    finished = RunRow(
        *(key.task, key.architecture, key.mode, key.seed, plan.weights.kind, recipe.epochs),
        *(run.progress.seconds, run.best.epoch, run.best.accuracy, len(train), len(validation)),
        *(plan.preprocessing.size[0], total, learning, recipe.precision, machine.name),
    )
    add_rows(out, [finished])
    (folder / CHECKPOINT).unlink(missing_ok=True)


def _keep_best(run: Run, folder: Path, validation: Side) -> None:
    plan, best = run.plan, run.best
    run.network.load_state_dict(best.learnt, strict=False)
    tensors = {name: t.cpu().contiguous() for name, t in run.network.exported(plan.key.task).items()}
    with new_file(folder / BEST) as part:
        safetensors.torch.save_file(tensors, part)
    names = [f"p_{name}" for name in plan.classes]
    shares = pd.DataFrame(best.logits.double().softmax(1).numpy(), columns=names)
    told = pd.DataFrame([(photo.path, photo.group, photo.label) for photo in validation.photos])
    told.columns = ["path", "group", "truth"]
    told["predicted"] = [plan.classes[place] for place in shares.to_numpy().argmax(axis=1)]
    table = pd.concat([told, shares], axis="columns")
    write_text(folder / PREDICTIONS, table.to_csv(index=False, float_format="%.6f", lineterminator="\n"))
    found = {"best_epoch": best.epoch, "best_val_accuracy": best.accuracy}
    write_text(folder / RUN, _json({**plan.identity(), **found}))


def _write_settings(
    out: Path, prepared: Prepared, choice: Choice, weights: WeightSource, recipe: Recipe, machine: Machine
) -> None:
    versions = {module.__name__: module.__version__ for module in (torch, torchvision, timm)}
    settings = {
        "choice": asdict(choice),
        "weights": weights.kind,
        "recipe": asdict(recipe),
        "dataset": {"digest": prepared.digest, "options": prepared.options},
        "device": machine.name,
        "versions": {"python": platform.python_version(), **versions},
    }
    out.mkdir(parents=True, exist_ok=True)
    with locked(out):
        write_text(out / SETTINGS, _json(settings))


def _json(content: Mapping[str, object]) -> str:
    return json.dumps(content, indent=1, ensure_ascii=False) + "\n"
