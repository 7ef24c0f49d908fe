"""`compare`: all runs one after another, into a results folder that may be taken up again at any time."""

import platform
from dataclasses import asdict, dataclass
from pathlib import Path

import safetensors.torch
import timm
import torch
import torchvision

from enrich.atomic import new_file, writing
from enrich.errors import UsageError
from training.compare import results
from training.compare.display import Cost, Display, known_pace, multiplications
from training.compare.plan import Choice, Plan, Recipe, check_photos, check_resources, make_plans
from training.compare.run import Run, build, kept_of
from training.data.prepared import SPLITS, Prepared, read_prepared
from training.models.architectures import WeightSource
from training.trainer import loop
from training.trainer.loading import Loader, side_of


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
    check_photos(prepared, plans)
    with writing(f"--out {out}"):
        there = [
            name for name in (results.RUNS, results.EPOCHS, results.TIMINGS, "runs") if (out / name).exists()
        ]
    if there and not resume:
        raise UsageError(f"{out} holds results already: go on with --resume, or name another --out")
    todo = [plan for plan in plans if not _finished(plan, out)]
    networks = check_resources(plans, todo, prepared, out)
    costs = {}
    for plan in plans:
        forward = multiplications(networks[plan.key.architecture], plan.preprocessing.size)
        train, validation = (len(prepared.of(plan.key.task, split)) for split in SPLITS)
        costs[plan.key] = Cost(plan, forward, train, validation)
    with writing(f"--out {out}"):
        _write_settings(out, prepared, choice, weights, recipe, machine)
    tables = set(there) & {results.RUNS, results.TIMINGS}
    pace = known_pace(costs.values(), results.read_results(out), machine.name) if tables else {}
    left = 0
    display = Display([costs[plan.key] for plan in todo], len(plans), pace)
    with display.bars:
        for plan in todo:
            with loop.locked(out / "runs" / plan.key.folder / results.LOCK, wait=False) as mine:
                if not mine:
                    left += 1
                elif not _finished(plan, out):
                    _run(plan, prepared, out, machine, display)
            display.finished()
    return left


def _finished(plan: Plan, out: Path) -> bool:
    folder = out / "runs" / plan.key.folder
    if not (folder / results.RUN).exists():
        return False
    wanted, found = _flat(plan.identity()), _flat(results.read_run(folder))
    for name in (*wanted, "cache_features"):
        if found.get(name) != wanted.get(name):
            raise UsageError(
                f"{folder} is a run with another {name} ({found.get(name)}, here {wanted.get(name)}); "
                "name another --out or use the same options"
            )
    if not (out / results.RUNS).is_file():
        return False
    finished = results.read_results(out).runs[list(results.RunRow.KEY)]
    return plan.key in {results.RunKey(*key) for key in finished.itertuples(index=False)}


def _flat(identity: dict[str, object]) -> dict[str, object]:
    flat: dict[str, object] = {}
    for name, value in identity.items():
        flat |= value if isinstance(value, dict) else {name: value}
    return flat


def _run(plan: Plan, prepared: Prepared, out: Path, machine: Machine, display: Display) -> None:
    folder, key, recipe = out / "runs" / plan.key.folder, plan.key, plan.recipe
    train, validation = side_of(prepared, key.task, "train"), side_of(prepared, key.task, "val")
    network = build(plan, machine.device)
    loader = Loader(plan.preprocessing, recipe.batch, machine.workers, machine.device)

    def ended(row: results.EpochRow) -> None:
        results.add_rows(out, [row])
        display.epoch(row)

    def making(photos: int) -> None:
        display.stepped(run.progress, photos)

    source = kept_of(plan, network, loader, out, making) if recipe.cache_features else loader
    run = Run(plan, network, train, validation, source, ended)
    loop.resume(run, folder / results.CHECKPOINT)
    results.write_json(folder / results.RUN, plan.identity())
    display.started(run.progress)
    for _ in loop.learn(run, folder / results.CHECKPOINT, machine.save_seconds):
        display.stepped(run.progress)
    _keep_best(run, folder, prepared)
    finished = results.RunRow(
        *(key.task, key.architecture, key.mode, key.seed, plan.weights.kind, recipe.epochs),
        *(run.progress.seconds, run.best.epoch, run.best.accuracy, len(train), len(validation)),
        *(plan.preprocessing.size[0], *network.parameter_counts(), recipe.precision, machine.name),
        recipe.cache_features,
    )
    results.add_rows(out, [finished])
    (folder / results.CHECKPOINT).unlink(missing_ok=True)


def _keep_best(run: Run, folder: Path, prepared: Prepared) -> None:
    plan, best = run.plan, run.best
    run.network.load_state_dict(best.learnt, strict=False)
    tensors = {name: t.cpu().contiguous() for name, t in run.network.exported(plan.key.task).items()}
    with new_file(folder / results.BEST) as part:
        part.write_bytes(safetensors.torch.save(tensors))
    told = prepared.of(plan.key.task, "val")[["path", "group", "label"]].rename(columns={"label": "truth"})
    shares = best.logits.double().softmax(1).numpy()
    told["predicted"] = [plan.classes[place] for place in shares.argmax(axis=1)]
    told[[f"p_{name}" for name in plan.classes]] = shares
    results.write_text(
        folder / results.PREDICTIONS, told.to_csv(index=False, float_format="%.6f", lineterminator="\n")
    )
    found = {"best_epoch": best.epoch, "best_val_accuracy": best.accuracy}
    split = prepared.options.get("split", "")  # settings.json is of the last start alone
    results.write_json(folder / results.RUN, {**plan.identity(), "split": split, **found})


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
    with loop.locked(out / results.LOCK):
        results.write_json(out / results.SETTINGS, settings)
