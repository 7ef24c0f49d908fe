"""A bundle with thresholds from homes of one's own: the same weights, another manifest.

The weight files are copied as they are, so every model keeps its `model_id` and nothing is fetched or scored
again. The faster arithmetics of the bundle, and those that are added to it, are fitted by the same rules,
each on what it says of the homes itself.
"""

import shutil
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path

from enrich.atomic import check_folder, new_folder
from enrich.errors import UsageError
from enrich.model.bundle import load_bundle
from enrich.model.writing import write_manifest
from training.evaluate.adjust import adjust
from training.evaluate.faster import (
    Exact,
    Making,
    fit_each,
    left_out,
    of_homes,
    offered,
    with_arithmetics,
)
from training.evaluate.measure import BinaryMeasured
from training.evaluate.report import Measured
from training.evaluate.scored import Scored, score_all
from training.evaluate.trained_on import digest
from training.thresholds.rules import Targets


@dataclass(frozen=True)
class Asked:
    """What the new bundle is to be. `homes`: how paths of whole homes start; none: every group is one.
    `keep_thresholds`: fp32's thresholds stay as they are."""

    targets: Targets
    homes: tuple[str, ...]
    making: Making
    keep_thresholds: bool


def check_target(out: Path) -> None:
    """Refuse a folder that is in use, and a place that cannot be written.

    Raises:
        UsageError: `out` exists and is not an empty folder, or it cannot be written.
    """
    check_folder(out, f"--rethreshold {out}")
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise UsageError(f"--rethreshold {out}: is in use; name a folder that is not there yet")


def rethreshold(
    scored: Scored, measured: Sequence[Measured], asked: Asked, out: Path, scratch: Path
) -> list[str]:
    """Write the bundle of `scored`, in fp32, with thresholds chosen on these photos to `out`; returns lines
    for people. `measured`: what came out of its labelled heads.

    Raises:
        UsageError: no head has enough homes, or `out` is in use; nothing was written.
    """
    check_target(out)
    bundle, photos = scored.bundle, scored.photos
    draft, new = with_arithmetics(bundle, asked.making, scratch / "draft", scratch)
    homes = {
        one.head.name: of_homes(one.figures["listings"])
        for one in measured
        if isinstance(one, BinaryMeasured) and one.figures["listings"]["homes"]
    }
    entries = {entry["name"]: entry for member in draft.manifest["members"] for entry in member["heads"]}
    lines = [*left_out(bundle.arithmetics, asked.making.arithmetics).values()]
    changed: list[str] = []
    for head in () if asked.keep_thresholds else [one.head for one in measured]:
        fields, line = adjust(scored, head, asked.targets, asked.homes)
        lines.append(f"{head.name}: {line}")
        if fields:
            changed.append(head.name)
            entries[head.name].update(fields)
        if fields and head.kind == "binary":
            homes[head.name] = of_homes(fields["metrics"]["true"]["cross_fitted"])
    if not changed and not asked.keep_thresholds:
        raise UsageError("no new bundle: " + "; ".join(lines))
    exact = Exact({head.name: scored.logits(head) for head in bundle.heads}, homes)
    fitted, more = fit_each(
        draft,
        new,
        exact,
        lambda name: score_all(draft.at(name), photos, scored.device, scratch),
        lambda head, here: adjust(here, head, asked.targets, asked.homes),
    )
    lines += more
    if not changed and not fitted:
        raise UsageError("no new bundle: " + "; ".join(lines))
    draft.manifest["rethresholded"] = {
        "from_bundle": bundle.bundle_id,
        "date": datetime.now(UTC).date().isoformat(),
        "heads": changed,
        "arithmetics": fitted,
        "targets": {**asdict(asked.targets), "homes": list(asked.homes)},
        "photos": len(photos),
        "photos_sha256": digest(photos.sha256),
    }
    with new_folder(out) as made:
        for name in draft.manifest["files"]:
            shutil.copyfile(draft.folder / name, made / name)
        write_manifest(made, draft.manifest)
    written = load_bundle(out)
    return [
        *lines,
        *offered(written, fitted),
        f"bundle {written.bundle_id[:12]} written to {out}; weights as before, nothing is scored again",
    ]
