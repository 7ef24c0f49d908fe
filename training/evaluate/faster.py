"""The faster arithmetics of a bundle: made, and fitted on what each says of homes that it has not seen."""

import copy
import gzip
import hashlib
import shutil
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import asdict, dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any, get_args

import numpy as np
from numpy.typing import NDArray

from enrich.errors import UsageError
from enrich.model.arithmetic import NEEDED, Counted, Drift, Faster, HeadFigures, Measured, cpu_has
from enrich.model.bundle import ARITHMETICS, Bundle, Member
from enrich.model.head import Head
from enrich.model.writing import write_manifest
from training.data.labels import UNLABELLED
from training.data.photos import read_manifest
from training.evaluate.scored import Scored
from training.models.heads import macro_average_precision
from training.models.quantize import quantize, sampled
from training.thresholds.calibrate import Floats
from training.thresholds.rules import Entry

Fit = Callable[[Head, Scored], tuple[Entry, str]]
"""From what a head says in an arithmetic to fields of its manifest entry, none where it cannot be fitted, and
a line for people."""
FASTER = (
    "It scores in fp32: add bf16 and int8 on homes that it has not learnt from, with enrich-train evaluate "
    "--rethreshold --arithmetic"
)
"""What is said of a bundle without faster arithmetics."""


@dataclass(frozen=True)
class Making:
    """What to make beside what the bundle has."""

    arithmetics: tuple[Faster, ...] = ()
    calibration: tuple[Path, ...] = ()
    """Photos from which int8 learns the ranges of activations."""
    seed: int = 0
    origin: Bundle | None = None
    """A bundle with the same backbone, whose int8 is taken as it is."""


def named(given: Collection[str]) -> tuple[Faster, ...]:
    """The faster ones of the arithmetics that were named; a UsageError where one is unknown."""
    if unknown := set(given) - set(ARITHMETICS):
        raise UsageError(f"--arithmetic {unknown.pop()}: use {', '.join(ARITHMETICS)}")
    return tuple(name for name in get_args(Faster) if name in given)


def check_making(have: Collection[str], making: Making) -> None:
    """Refuse, with a UsageError, what cannot be made or fitted here, before hours are spent. `have`: what the
    bundle has already."""
    for name in making.arithmetics:
        if not cpu_has(name):
            raise UsageError(
                f"{name} is fitted on what this CPU makes of the photos, and it has no {NEEDED[name]}; use "
                "another machine"
            )
    if "int8" in making.arithmetics and not (making.calibration or making.origin or "int8" in have):
        raise UsageError(
            "--arithmetic int8: name photos like those that the bundle learnt from: --calibrate PHOTOS"
        )
    if making.calibration and "int8" not in making.arithmetics:
        raise UsageError("--calibrate: is for --arithmetic int8; leave it out, or name int8")
    if making.calibration and not find_spec("nncf"):
        raise UsageError("--arithmetic int8 needs NNCF: pip install 'listing-enrichment[training]'")


def left_out(have: Collection[str], asked: Collection[str]) -> dict[Faster, str]:
    """Those that a bundle has and nobody asked for that cannot be fitted on this CPU, each with a line for
    people."""
    return {
        name: f"{name} is left out: this CPU has no {NEEDED[name]}; nights in it would ask for all photos "
        "again"
        for name in get_args(Faster)
        if name in have and name not in asked and not cpu_has(name)
    }


def calibration_paths(folder: Path) -> tuple[Path, ...]:
    """Photos of `folder/manifest.csv` that int8 may learn from: all but those of split `listing`. Raises
    UsageError: there is no such photo, or no manifest."""
    table = read_manifest(folder)
    if "split" in table.columns:
        table = table[table["split"] != "listing"]
    there = tuple(file for path in table["path"] if (file := folder / path).is_file())
    if not there:
        raise UsageError(f"--calibrate {folder}: none of its photos is there")
    return there


def with_arithmetics(bundle: Bundle, making: Making, folder: Path, cache: Path) -> tuple[Bundle, set[Faster]]:
    """A copy of `bundle` in `folder` with the arithmetics asked for, without those that are `left_out`, and
    the names of those that are new: these have fp32's thresholds still. `cache`: folder of converted
    networks."""
    manifest: Entry = copy.deepcopy(bundle.manifest)
    new: set[Faster] = {name for name in making.arithmetics if name not in bundle.arithmetics}
    if making.calibration:
        new.add("int8")
    gone = {*new, *left_out(bundle.arithmetics, making.arithmetics)}
    folder.mkdir(parents=True)
    for name in manifest["files"]:
        shutil.copyfile(bundle.folder / name, folder / name)
    for member, entry in zip(bundle.members, manifest["members"], strict=True):
        entry.pop("bf16", None)  # of earlier versions
        specs = entry.setdefault("arithmetics", {})
        for name in gone & specs.keys():
            for old in specs.pop(name).get("files", {}).values():
                (folder / old).unlink()
                del manifest["files"][old]
        if not specs and not new:
            del entry["arithmetics"]
        for name in sorted(new):
            specs[name] = {"heads": copy.deepcopy(entry["heads"])}
        if "int8" in new:
            irs = _int8(bundle, member, making, cache)
            specs["int8"]["files"] = dict(zip(("ir", "weights"), irs, strict=True))
            for name, data in irs.items():
                (folder / name).write_bytes(data)
                manifest["files"][name] = hashlib.sha256(data).hexdigest()
    return write_manifest(folder, manifest), new


def _int8(bundle: Bundle, member: Member, making: Making, cache: Path) -> dict[str, bytes]:
    """The files of the member in int8, first what OpenVINO calls the IR, then its weights."""
    if making.origin is not None:
        theirs = making.origin.members[0].variants["int8"].ir
        assert theirs is not None
        return {name: (making.origin.folder / name).read_bytes() for name in (theirs.ir, theirs.weights)}
    pictures = sampled(making.calibration, member.preprocessing, making.seed)
    made = zip((".xml", ".bin"), quantize(bundle, member, pictures, cache), strict=True)
    stem = Path(member.weights).stem
    return {f"{stem}-int8{suffix}.gz": gzip.compress(data, mtime=0) for suffix, data in made}


@dataclass(frozen=True)
class Exact:
    """fp32 on the same photos."""

    logits: Mapping[str, Floats]
    """Head -> logits [photos, outputs], before temperature; NaN where there are none."""
    homes: Mapping[str, Mapping[str, Any]]
    """Binary head -> what holds precision and recall of homes: `Counts` as JSON, or figures of `measure`."""


def fit_each(
    draft: Bundle, new: Collection[Faster], exact: Exact, score: Callable[[Faster], Scored], fit: Fit
) -> tuple[list[Faster], list[str]]:
    """Fit all faster arithmetics of `draft`, each on what `score` has of the photos in it, and put what comes
    out into the draft's manifest; returns those fitted, and lines for people.

    What cannot be fitted stays as it was; one of the `new` that cannot be fitted for all heads is taken out.
    """
    fitted: list[Faster] = []
    lines: list[str] = []
    for name in (name for name in get_args(Faster) if name in draft.arithmetics):
        scored, left = score(name), 0
        photos, entries = scored.photos, dict[str, tuple[Entry, Entry]]()
        these = {"photos": len(photos), "photos_sha256": photos.digest}
        specs = [member["arithmetics"][name] for member in draft.manifest["members"]]
        for spec in specs:
            figures = spec.setdefault("figures", {**these, "heads": {}})
            entries |= {entry["name"]: (entry, figures["heads"]) for entry in spec["heads"]}
        for head, mine in zip(draft.heads, scored.bundle.heads, strict=True):
            found, line = fit(mine, scored) if head.name in photos.labels else ({}, "not labelled")
            lines.append(f"{name}, {head.name}: {line}")
            if found:
                entry, figures = entries[head.name]
                entry.update(found)
                figures[head.name] = asdict(_figures(head, scored, scored.logits(mine), exact, entry))
            else:
                left += 1
        for spec in () if left else specs:
            spec["figures"] |= these
        if name in new and left:
            lines.append(f"{name} is left out: no head of it may keep thresholds that were fitted in fp32")
            for member in draft.manifest["members"]:
                for file in member["arithmetics"].pop(name).get("files", {}).values():
                    del draft.manifest["files"][file]
        else:
            fitted.append(name)
    return fitted, lines


def offered(bundle: Bundle, names: Sequence[Faster]) -> list[str]:
    """A line for each of these arithmetics of the bundle: whether precision `auto` may take it."""
    flaws = {name: bundle.flaw(name) for name in names}
    return [
        f"{name}: not taken by precision auto: {flaw}"
        if flaw
        else f"{name}: as good as fp32 here, so precision auto may take it"
        for name, flaw in flaws.items()
    ]


def _figures(head: Head, scored: Scored, here: Floats, exact: Exact, entry: Entry) -> HeadFigures:
    """`head` is fp32's; `here` [photos, outputs]: the logits of the same head in this arithmetic, and `entry`
    what was fitted on them."""
    logits = exact.logits[head.name], here
    readable = np.isfinite(logits[0]).all(axis=1) & np.isfinite(here).all(axis=1)
    labels = scored.photos.labels[head.name]
    known = readable & (labels != UNLABELLED)
    before, after = (_average_precision(head, labels[known], one[known]) for one in logits)
    chances, moved = (head.probabilities(one[readable]) for one in logits)
    drift = np.abs(chances - moved).max(axis=1)
    true = entry["metrics"].get("true")
    return HeadFigures(
        here=_measured(after, true["cross_fitted"] if true else None),
        fp32=_measured(before, exact.homes.get(head.name)),
        drift=Drift(round(float(drift.max()), 4), round(float(np.quantile(drift, 0.999)), 4)),
        target=true["target"] if true else None,
    )


def _measured(average_precision: float, homes: Mapping[str, Any] | None) -> Measured:
    shares = [homes[part] for part in ("precision", "recall")] if homes else []
    return Measured(average_precision, *(Counted(share["hits"], share["of"]) for share in shares))


def _average_precision(head: Head, labels: NDArray[np.int64], logits: Floats) -> float:
    """Of photos; of a multiclass head the mean over the classes that it publishes, each against the rest."""
    published = {number for number, kind in enumerate(head.classes) if kind.publish}
    return round(macro_average_precision(labels, logits, np.ones(len(labels)), published or None), 4)
