"""`enrich-train export`: models that `compare` made, into one bundle that the nightly job can use.

Each run becomes a member with its own backbone. A task of two classes, one of them named like the task,
becomes a binary head (balcony: balcony, indoor): the difference of the two outputs, whose sigmoid is the
softmax of the pair. Any other task becomes a multiclass head; `rooms` is called `room`, as in `fit`.
"""

import re
import tempfile
from collections.abc import Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import pandas as pd
import safetensors.numpy
from numpy.typing import NDArray
from safetensors import SafetensorError
from typer import Argument, Option

from enrich.errors import UsageError
from enrich.model.arithmetic import Arithmetic, Faster
from enrich.model.bundle import Bundle
from enrich.model.head import NAME, Head
from enrich.model.torch_engine import find_device
from enrich.model.writing import check_free, write_bundle
from training.compare.results import BEST, RunKey, read_predictions, read_run
from training.compare.single_photos import NOTE, fields_of, pair_of
from training.data.photos import photo_set
from training.data.prepared import Prepared, read_prepared
from training.evaluate.faster import (
    FASTER,
    Exact,
    Making,
    check_making,
    fit_each,
    named,
    offered,
    with_arithmetics,
)
from training.evaluate.scored import Scored, score_all
from training.models.architectures import MODES, backbone_name
from training.terminal import plain
from training.thresholds.rules import Entry

HEAD_NAMES = {"rooms": "room"}
Tensors = dict[str, NDArray[Any]]


def export_command(
    results: Annotated[Path, Argument(metavar="RESULTS", help="Folder that enrich-train compare wrote")],
    run: Annotated[
        list[str], Option(metavar="TASK/ARCHITECTURE/MODE", help="A run; may end in /SEED; repeatable")
    ],
    out: Annotated[Path, Option(metavar="BUNDLE", help="Folder of the bundle to write")],
    name: Annotated[str, Option(help="Name of the bundle")] = "comparison",
    arithmetic: Annotated[
        list[str] | None,
        Option(help="bf16 or int8: make it, with thresholds of its own; needs --photos (repeatable)"),
    ] = None,
    photos: Annotated[
        Path | None,
        Option(metavar="PREPARED", help="With --arithmetic: the folder that the models learnt from"),
    ] = None,
) -> None:
    """Put models of a comparison into one bundle, a backbone and a head each."""
    faster = named(arithmetic or ())
    if bool(faster) != bool(photos):
        raise UsageError("--arithmetic and --photos PREPARED belong together; give both, or neither")
    prepared = read_prepared(photos) if photos else None
    bundle = export(results, [parse_run(given) for given in run], out, name, faster, prepared)
    say = plain(highlight=False).print
    for member in bundle.members:
        for head in member.heads:
            published = ", ".join(kind.name for kind in head.classes if kind.publish)
            binary = head.kind == "binary"
            counts = f"true from {head.true_threshold:.3f}" if binary else f"classes published: {published}"
            say(f"{head.name} ({member.backbone}): {counts}")
    say(f"bundle {bundle.bundle_id[:12]} written to {out}")
    say(f"Mind: {NOTE}")
    for line in offered(bundle, faster) or [FASTER]:
        say(line)


def parse_run(given: str) -> RunKey:
    """`task/architecture/mode`, with or without `/seed`; a UsageError for what is not of that form."""
    task, architecture, mode, seed = [*given.split("/"), "0", "", "", ""][:4]
    parts = given.count("/") + 1
    if parts not in (3, 4) or mode not in MODES or not seed.isdecimal():
        raise UsageError(f"--run {given}: write TASK/ARCHITECTURE/MODE; MODE is {' or '.join(MODES)}")
    return RunKey(task, architecture.removeprefix("torchvision:"), mode, int(seed))


def export(
    results: Path,
    runs: Sequence[RunKey],
    out: Path,
    name: str,
    arithmetics: tuple[Faster, ...] = (),
    prepared: Prepared | None = None,
) -> Bundle:
    """Write the bundle of these runs, with these arithmetics beside fp32, made on the photos that the runs
    learnt from.

    Raises:
        UsageError: a run is not there, not finished or not readable, or two runs answer the same question.
        BundleError: the bundle would not load, or `out` holds something that is not a bundle.
    """
    check_free(out)  # before an arithmetic is made
    members: list[Entry] = []
    tensors: dict[str, Tensors] = {}
    irs: dict[str, bytes] = {}
    with tempfile.TemporaryDirectory() as scratch:
        for key in runs:
            folder = _folder(results, key)
            identity, weights = read_run(folder), _read_weights(folder / BEST)
            predictions = read_predictions(folder)
            head, mine = make_head(key.task, identity, weights, predictions)
            file = f"{head['name']}.safetensors"
            if file in tensors:
                raise UsageError(f"--run: two runs of task {key.task}; a bundle answers each question once")
            tensors[file] = mine
            member = {
                "backbone": backbone_name(str(identity["architecture"])),
                "weights": file,
                "preprocessing": identity["preprocessing"],
                "heads": [head],
            }
            if prepared is not None:
                bundle = write_bundle(
                    Path(scratch) / head["name"], {"name": name, "members": [member]}, {file: mine}
                )
                member, more = _faster(bundle, identity, predictions, prepared, arithmetics)
                irs |= more
            members.append(member)
    manifest = {
        "name": name,
        "description": "Models of an architecture comparison, one backbone a head",
        "created": datetime.now(UTC).date().isoformat(),
        "members": members,
        "exported": [asdict(key) for key in runs],
    }
    return write_bundle(out, manifest, tensors, irs)


def _faster(
    bundle: Bundle,
    identity: Entry,
    predictions: pd.DataFrame,
    prepared: Prepared,
    arithmetics: tuple[Faster, ...],
) -> tuple[Entry, dict[str, bytes]]:
    """The member of a run's `bundle` with these arithmetics, and the files of its int8.

    Thresholds follow the rules of fp32's, on what each arithmetic says of the validation photos.
    """
    (head,), task, classes = bundle.heads, identity["task"], identity["classes"]
    known = predictions["path"].isin(prepared.of(task, "val")["path"])
    if identity["dataset_digest"] != prepared.digest or not known.all():
        raise UsageError(
            f"--photos {prepared.folder}: the run of task {task} learnt from other photos; name the folder "
            "that enrich-train compare was given"
        )
    learnt = tuple(prepared.folder / path for path in prepared.of(task, "train")["path"])
    making = Making(arithmetics, learnt if "int8" in arithmetics else ())
    check_making((), making)
    draft, new = with_arithmetics(bundle, making, bundle.folder / "faster", bundle.folder)
    photos = photo_set(prepared.folder, predictions, {head.name: _truth(task, classes, predictions)}, {})

    def score(name: Arithmetic) -> Scored:
        scored = score_all(draft.at(name), photos, find_device("auto"), bundle.folder)
        if not scored.readable.all():
            raise UsageError(
                f"{prepared.folder}: photos are damaged; make it again with enrich-train prepare"
            )
        return scored

    def fit(mine: Head, scored: Scored) -> tuple[Entry, str]:
        return fields_of(classes, scored.logits(mine), photos.labels[head.name]), ""

    fit_each(draft, new, Exact({head.name: score("fp32").logits(head)}, {}), score, fit)
    irs = (name for name in draft.manifest["files"] if not name.endswith(".safetensors"))
    return draft.manifest["members"][0], {name: (draft.folder / name).read_bytes() for name in irs}


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
    if not re.fullmatch(NAME, name):
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
    columns = [f"p_{kind}" for kind in classes]
    if absent := [column for column in columns if column not in predictions.columns]:
        raise UsageError(f"predictions.csv lacks the column {absent[0]}; make the run again")
    # of probabilities that are written with six digits
    logits = np.log(np.clip(predictions[columns].to_numpy(dtype=np.float64), 1e-7, 1.0))
    if pair := pair_of(task, classes):
        having, lacking = map(classes.index, pair)
        weight, bias = (part[[having]] - part[[lacking]] for part in (weight, bias))
        logits = logits[:, [having]] - logits[:, [lacking]]
    head = {"name": name, **fields_of(classes, logits, _truth(task, classes, predictions))}
    head["metrics"]["run"] = identity
    return head, {**tensors, f"head.{name}.weight": weight, f"head.{name}.bias": bias}


def _truth(task: str, classes: Sequence[str], predictions: pd.DataFrame) -> NDArray[np.int64]:
    """Labels of the photos: 1 where a pair's photo has it, else numbers of classes."""
    pair = pair_of(task, classes)
    numbers = {name: number for number, name in enumerate(reversed(pair) if pair else classes)}
    labels: NDArray[np.int64] = predictions["truth"].map(numbers).to_numpy(np.int64)
    return labels
