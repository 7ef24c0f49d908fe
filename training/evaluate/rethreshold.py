"""A bundle with thresholds from homes of one's own: the same weights, another manifest.

The weight files are copied as they are, so every model keeps its `model_id` and nothing is fetched or scored
again. The faster arithmetics of the bundle, and those that are added to it, are fitted by the same rules,
each on what it says of the homes itself.
"""

import copy
import shutil
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from rich.console import Console

from enrich.atomic import new_folder
from enrich.errors import UsageError
from enrich.model.arithmetic import Counted
from enrich.model.bundle import Bundle, load_bundle
from enrich.model.writing import write_manifest
from training.evaluate.adjust import adjust
from training.evaluate.classes import ClassesMeasured
from training.evaluate.faster import Exact, Making, fit_each, of_homes, offered, with_arithmetics
from training.evaluate.labelled import Labelled
from training.evaluate.measure import BinaryMeasured
from training.evaluate.scored import Scored, score_all
from training.evaluate.trained_on import digest
from training.thresholds.rules import Targets

Entry = dict[str, Any]


@dataclass(frozen=True)
class Asked:
    """What the new bundle is to be. `homes`: how paths of whole homes start; none: every group is one.
    `keep_thresholds`: fp32's thresholds stay as they are."""

    targets: Targets = field(default_factory=Targets)
    homes: tuple[str, ...] = ()
    making: Making = field(default_factory=Making)
    keep_thresholds: bool = False


@dataclass(frozen=True)
class Seen:
    """What the bundle makes of the photos in fp32, and where other arithmetics are run."""

    labelled: Labelled
    scored: Scored
    measured: Sequence[BinaryMeasured | ClassesMeasured]
    device: str
    console: Console
    scratch: Path


def check_target(out: Path) -> None:
    """Refuse a folder that is in use.

    Raises:
        UsageError: `out` exists and is not an empty folder.
    """
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise UsageError(f"--rethreshold {out}: is in use; name a folder that is not there yet")


def rethreshold(bundle: Bundle, seen: Seen, asked: Asked, out: Path) -> list[str]:
    """Write `bundle` with thresholds chosen on these photos to `out`; returns lines for people.

    Raises:
        UsageError: no head has enough homes, or `out` is in use; nothing was written.
    """
    check_target(out)
    draft, new = with_arithmetics(bundle, asked.making, seen.scratch / "draft", seen.scratch)
    manifest: Entry = copy.deepcopy(draft.manifest)
    homes = {one.head.name: of_homes(one.figures["listings"]) for one in seen.measured if _tried(one)}
    lines: list[str] = []
    changed: list[str] = []
    if not asked.keep_thresholds:
        homes |= _fit_exact(draft, manifest, seen, asked, changed, lines)
    exact = Exact({head.name: seen.scored.logits(bundle, head) for head in bundle.heads}, homes)
    fitted, more = fit_each(
        draft,
        new,
        manifest,
        seen.labelled,
        exact,
        lambda name: score_all(draft.at(name), seen.labelled.photos, seen.device, seen.console, seen.scratch),
        lambda here, head, scored: adjust(
            here, seen.labelled.photos, scored, head, asked.targets, asked.homes
        ),
    )
    lines += more
    if not changed and not fitted:
        raise UsageError("no new bundle: " + "; ".join(lines))
    manifest["rethresholded"] = {
        "from_bundle": bundle.bundle_id,
        "date": datetime.now(UTC).date().isoformat(),
        "heads": changed,
        "arithmetics": fitted,
        "targets": {**asdict(asked.targets), "homes": list(asked.homes)},
        "photos": len(seen.labelled.photos),
        "photos_sha256": digest(seen.labelled.photos.sha256),
    }
    written = _write(draft, manifest, out)
    return [
        *lines,
        *offered(written, fitted),
        f"bundle {written.bundle_id[:12]} written to {out}; weights as before, nothing is scored again",
    ]


def _tried(measured: BinaryMeasured | ClassesMeasured) -> bool:
    return isinstance(measured, BinaryMeasured) and measured.figures["listings"]["homes"] > 0


def _fit_exact(
    bundle: Bundle, manifest: Entry, seen: Seen, asked: Asked, changed: list[str], lines: list[str]
) -> dict[str, tuple[Counted, Counted]]:
    """Choose fp32's thresholds anew; returns cross-fitted precision and recall of homes by binary head."""
    entries = {entry["name"]: entry for member in manifest["members"] for entry in member["heads"]}
    fair = {}
    for head in seen.labelled.heads:
        fields, line = adjust(bundle, seen.labelled.photos, seen.scored, head, asked.targets, asked.homes)
        entries[head.name].update(fields)
        lines.append(f"{head.name}: {line}")
        if fields:
            changed.append(head.name)
        if fields and head.kind == "binary":
            fair[head.name] = of_homes(fields["metrics"]["true"]["cross_fitted"])
    if not changed:
        raise UsageError("no new bundle: " + "; ".join(lines))
    return fair


def _write(draft: Bundle, manifest: Entry, out: Path) -> Bundle:
    with new_folder(out) as made:
        for name in manifest["files"]:
            shutil.copyfile(draft.folder / name, made / name)
        write_manifest(made, manifest)
    return load_bundle(out)
