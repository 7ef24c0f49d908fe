"""A bundle with thresholds from homes of one's own: the same weights, another manifest.

The weight files are copied as they are, so every model keeps its `model_id` and nothing is fetched or scored
again.
"""

import copy
import shutil
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from enrich.atomic import new_folder
from enrich.errors import UsageError
from enrich.model.bundle import Bundle, load_bundle
from enrich.model.writing import write_manifest
from training.evaluation.adjust import Aim, adjust_binary, adjust_classes
from training.evaluation.labelled import Labelled
from training.evaluation.scored import Scored
from training.evaluation.trained_on import digest


def check_target(out: Path) -> None:
    """Refuse a folder that is in use.

    Raises:
        UsageError: `out` exists and is not an empty folder.
    """
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise UsageError(f"--rethreshold {out}: is in use; name a folder that is not there yet")


def rethreshold(bundle: Bundle, labelled: Labelled, scored: Scored, aim: Aim, out: Path) -> list[str]:
    """Write `bundle` with thresholds chosen on these photos to `out`; returns a line for people per head.

    Raises:
        UsageError: no binary head has enough homes, or `out` is in use; nothing was written.
    """
    check_target(out)
    manifest = {key: copy.deepcopy(value) for key, value in bundle.manifest.items()}
    entries = {entry["name"]: entry for member in manifest["members"] for entry in member["heads"]}
    changed, lines = [], []
    for head in labelled.heads:
        adjust = adjust_binary if head.kind == "binary" else adjust_classes
        fields, line = adjust(bundle, labelled.photos, scored, head, aim)
        entries[head.name].update(fields)
        lines.append(f"{head.name}: {line}")
        if fields:
            changed.append(head.name)
    if not any(head.kind == "binary" for head in labelled.heads if head.name in changed):
        raise UsageError("no new bundle: " + "; ".join(lines))
    _scale_bf16(bundle, manifest)
    manifest["rethresholded"] = {
        "from_bundle": bundle.bundle_id,
        "date": datetime.now(UTC).date().isoformat(),
        "heads": changed,
        "aim": {**asdict(aim), "homes": list(aim.homes)},
        "photos": len(labelled.photos),
        "photos_sha256": digest(labelled.photos.sha256),
    }
    made = _write(bundle, manifest, out)
    return [
        *lines,
        f"bundle {made.bundle_id[:12]} written to {out}; weights as before, nothing is scored again",
    ]


def _scale_bf16(bundle: Bundle, manifest: dict[str, Any]) -> None:
    """A lower temperature makes more of the same change in a logit, so of what bf16 changes, too."""
    for member, entry in zip(bundle.members, manifest["members"], strict=True):
        if entry.get("bf16"):
            sharper = max(
                before.temperature / after["temperature"]
                for before, after in zip(member.heads, entry["heads"], strict=True)
            )
            delta = entry["bf16"]["delta_p999"] * max(1.0, sharper)
            entry["bf16"]["delta_p999"] = min(1.0, round(delta, 5))


def _write(bundle: Bundle, manifest: dict[str, Any], out: Path) -> Bundle:
    with new_folder(out) as made:
        for member in bundle.members:
            shutil.copyfile(bundle.folder / member.weights, made / member.weights)
        write_manifest(made, manifest)
    return load_bundle(out)
