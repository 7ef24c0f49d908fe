"""`enrich-train export`: models that `compare` made, into one bundle that the nightly job can use.

Each run becomes a member with its own backbone. A task of two classes, one of them named like the task,
becomes a binary head (balcony: balcony, indoor): the difference of the two outputs, whose sigmoid is the
softmax of the pair. Any other task becomes a multiclass head; `rooms` is called `room`, as in `fit`.
"""

import re
from collections.abc import Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import pandas as pd
import safetensors.numpy
import typer
from numpy.typing import NDArray
from rich.console import Console
from safetensors import SafetensorError

from enrich.errors import UsageError
from enrich.model.bundle import Bundle
from enrich.model.writing import write_bundle
from training.calibrate import Counts, Share, calibrate_classes, choose_class_threshold, choose_true
from training.comparison.architectures import backbone_name
from training.comparison.results import BEST, MODES, RunKey, read_predictions, read_run
from training.data import HEAD_NAME
from training.evaluation.adjust import fit_temperature
from training.evaluation.faster import FASTER

HEAD_NAMES = {"rooms": "room"}
PRECISION, PREVALENCE = 0.95, 0.1
"""Of validation photos at the `true` threshold, were a tenth of the photos to show it: a listing has many."""
CLASS_PRECISION = 0.9
LEAST_CERTAIN = 0.9
"""No threshold is lower: a task without a class for the rest calls every photo something, and one validation
photo that happens to come first proves nothing."""
NOTE = (
    "thresholds from single validation photos of the comparison, which also chose the epoch: no claim about "
    "listings; choose them on whole homes with enrich-train evaluate --rethreshold"
)

Entry = dict[str, Any]
Tensors = dict[str, NDArray[Any]]


def export_command(
    results: Annotated[
        Path, typer.Argument(metavar="RESULTS", help="Folder that enrich-train compare wrote")
    ],
    run: Annotated[
        list[str], typer.Option(metavar="TASK/ARCHITECTURE/MODE", help="A run; may end in /SEED; repeatable")
    ],
    out: Annotated[Path, typer.Option(metavar="BUNDLE", help="Folder of the bundle to write")],
    name: Annotated[str, typer.Option(help="Name of the bundle")] = "comparison",
) -> None:
    """Put models of a comparison into one bundle, a backbone and a head each."""
    bundle = export(results, [parse_run(given) for given in run], out, name)
    console = Console()
    for member in bundle.members:
        for head in member.heads:
            counts = (
                f"true from {head.true_threshold:.3f}" if head.kind == "binary" else "classes published: "
            )
            counts += ", ".join(kind.name for kind in head.classes if kind.publish)
            console.print(
                f"{head.name} ({member.backbone}): {counts}", markup=False, highlight=False, soft_wrap=True
            )
    console.print(
        f"bundle {bundle.bundle_id[:12]} written to {out}", markup=False, highlight=False, soft_wrap=True
    )
    console.print(f"Mind: {NOTE}", markup=False, highlight=False, soft_wrap=True)
    console.print(FASTER, markup=False, highlight=False, soft_wrap=True)


def parse_run(given: str) -> RunKey:
    """`task/architecture/mode`, with or without `/seed`.

    Raises:
        UsageError: it is not of that form.
    """
    task, architecture, mode, seed = [*given.split("/"), "0", "", "", ""][:4]
    parts = given.count("/") + 1
    if parts not in (3, 4) or mode not in MODES or not seed.isdecimal():
        raise UsageError(f"--run {given}: write TASK/ARCHITECTURE/MODE; MODE is {' or '.join(MODES)}")
    return RunKey(task, architecture.removeprefix("torchvision:"), mode, int(seed))


def export(results: Path, runs: Sequence[RunKey], out: Path, name: str) -> Bundle:
    """Write the bundle of these runs.

    Raises:
        UsageError: a run is not there, not finished or not readable, or two runs answer the same question.
        BundleError: the bundle would not load, or `out` holds something that is not a bundle.
    """
    members: list[Entry] = []
    tensors: dict[str, Tensors] = {}
    for key in runs:
        folder = _folder(results, key)
        identity, weights = read_run(folder), _read_weights(folder / BEST)
        head, mine = make_head(key.task, identity, weights, read_predictions(folder))
        taken = [member["heads"][0]["name"] for member in members]
        if head["name"] in taken:
            raise UsageError(f"--run: two runs of task {key.task}; a bundle answers each question once")
        file = f"{head['name']}.safetensors"
        tensors[file] = mine
        members.append(
            {
                "backbone": backbone_name(str(identity["architecture"])),
                "weights": file,
                "preprocessing": identity["preprocessing"],
                "heads": [head],
            }
        )
    manifest = {
        "name": name,
        "description": "Models of an architecture comparison, one backbone a head",
        "created": datetime.now(UTC).date().isoformat(),
        "members": members,
        "exported": [asdict(key) for key in runs],
    }
    return write_bundle(out, manifest, tensors)


def _folder(results: Path, key: RunKey) -> Path:
    for architecture in (key.architecture, f"torchvision:{key.architecture}"):
        folder = results / "runs" / RunKey(key.task, architecture, key.mode, key.seed).folder
        if (folder / BEST).is_file():
            return folder
    made = sorted(path.parent.name for path in (results / "runs").glob(f"*/{BEST}"))
    known = ", ".join(made) or "none"
    raise UsageError(
        f"{results} has no finished run {key.task}/{key.architecture}/{key.mode}, seed {key.seed}; "
        f"finished are {known}"
    )


def _read_weights(path: Path) -> Tensors:
    try:
        return dict(safetensors.numpy.load_file(path))
    except (SafetensorError, OSError) as error:
        raise UsageError(f"{path} is not readable as safetensors ({error}); make the run again") from None


def make_head(
    task: str, identity: Entry, weights: Tensors, predictions: pd.DataFrame
) -> tuple[Entry, Tensors]:
    """A run's head for the manifest, and its weights by a bundle's names."""
    name = HEAD_NAMES.get(task, task)
    if not re.fullmatch(HEAD_NAME, name):
        raise UsageError(
            f"task {task} cannot name a head: use small letters, digits and _ in the task's name"
        )
    classes: list[str] = list(identity["classes"])
    tensors = {key: tensor for key, tensor in weights.items() if key.startswith("backbone.")}
    weight, bias = (weights.get(f"head.{task}.{part}") for part in ("weight", "bias"))
    if weight is None or bias is None or len(weight) != len(classes):
        raise UsageError(f"the weights of {task} do not fit its run.json; make the run again")
    if not predictions["truth"].isin(classes).all() or predictions.empty:
        raise UsageError(f"predictions.csv of {task} does not fit its run.json; make the run again")
    metrics: Entry = {"run": identity, "note": NOTE}
    if len(classes) == 2 and task in classes:
        positive = classes.index(task)
        weight, bias = (part[[positive]] - part[[1 - positive]] for part in (weight, bias))
        head = _binary(name, classes[positive], classes[1 - positive], predictions, metrics)
    else:
        head = _multiclass(name, classes, predictions, metrics)
    return head, {**tensors, f"head.{name}.weight": weight, f"head.{name}.bias": bias}


def _binary(name: str, having: str, lacking: str, predictions: pd.DataFrame, metrics: Entry) -> Entry:
    truth = (predictions["truth"] == having).to_numpy(dtype=bool)
    logits = _log(predictions, having) - _log(predictions, lacking)
    # A network that has learnt its few photos by heart is never too unsure of itself.
    temperature = max(1.0, fit_temperature(logits, truth, np.ones(len(truth))))
    chance = np.exp(-np.logaddexp(0.0, -logits / temperature))
    threshold = max(LEAST_CERTAIN, choose_true(chance, truth, PREVALENCE, PRECISION))
    counts = Counts.at(chance, truth, threshold)
    metrics["photos"] = {
        "photos": len(truth),
        "with": int(truth.sum()),
        "target": PRECISION,
        "prevalence": PREVALENCE,
        "precision": counts.precision.as_json(),
        "recall": counts.recall.as_json(),
    }
    return {
        "name": name,
        "kind": "binary",
        "temperature": temperature,
        "thresholds": {"true": threshold, "false": 0.0},
        "aggregation": {"method": "max", "k": 1, "slope": 1.0, "intercept": 0.0},
        "metrics": metrics,
    }


def _multiclass(name: str, classes: list[str], predictions: pd.DataFrame, metrics: Entry) -> Entry:
    logits = np.stack([_log(predictions, kind) for kind in classes], axis=1)
    truth = predictions["truth"].map({kind: number for number, kind in enumerate(classes)}).to_numpy(np.int64)
    temperature = max(1.0, calibrate_classes(logits, truth, np.ones(len(truth))))
    scaled = logits / temperature
    chances = np.exp(scaled - np.logaddexp.reduce(scaled, axis=1, keepdims=True))
    answer = chances.argmax(axis=1)
    entries, figures = [], {}
    for number, kind in enumerate(classes):
        mine = answer == number
        right = truth[mine] == number
        chosen, _ = choose_class_threshold(chances[mine, number], right, CLASS_PRECISION)
        threshold = max(chosen, LEAST_CERTAIN)
        over = right[chances[mine, number] >= threshold]
        entries.append({"name": kind, "publish": bool(over.any()), "threshold": threshold})
        figures[kind] = {
            "precision": Share(int(over.sum()), len(over)).as_json(),
            "recall": Share(int(over.sum()), int((truth == number).sum())).as_json(),
        }
    metrics["photos"] = {"photos": len(truth), "target": CLASS_PRECISION}
    metrics["classes"] = figures
    return {
        "name": name,
        "kind": "multiclass",
        "temperature": temperature,
        "classes": entries,
        "metrics": metrics,
    }


def _log(predictions: pd.DataFrame, kind: str) -> NDArray[np.float64]:
    """Log of the probabilities of a class, which are written with six digits."""
    column = f"p_{kind}"
    if column not in predictions.columns:
        raise UsageError(f"predictions.csv lacks the column {column}; make the run again")
    shares: NDArray[np.float64] = predictions[column].to_numpy(dtype=np.float64)
    return np.log(np.clip(shares, 1e-7, 1.0))
