"""A bundle with thresholds from homes of one's own: the same weights, another manifest.

The weight files are copied as they are, so every model keeps its `model_id` and nothing is fetched or scored
again, but for nights in an arithmetic that is new. The faster arithmetics of the bundle, and those that are
added to it, are fitted by the same rules, each on what it says of the homes itself.
"""

import shutil
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from enrich.atomic import check_folder, new_folder
from enrich.errors import UsageError
from enrich.model.bundle import load_bundle
from enrich.model.head import Head, least_backing
from enrich.model.seen import distinct_views
from enrich.model.writing import write_manifest
from training.data.homes import MIN_PHOTOS, Homes, find_homes
from training.data.labels import UNLABELLED
from training.evaluate.faster import Exact, Making, fit_each, left_out, offered, with_arithmetics
from training.evaluate.measure import Measured
from training.evaluate.scored import Rows, Scored, score_all
from training.models.heads import FOLDS, site_folds
from training.thresholds.calibrate import Floats, Truth, fit_temperature
from training.thresholds.rules import FEWEST_HOMES, Entry, Targets, binary_fields, class_fields, in_words

FEWEST_PHOTOS = 20
"""Of each published class of a multiclass head."""


@dataclass(frozen=True)
class Asked:
    """What the new bundle is to be. `homes`: how paths of whole homes start; none: every group is one.
    `keep_thresholds`: fp32's thresholds stay as they are."""

    targets: Targets
    homes: tuple[str, ...]
    making: Making
    keep_thresholds: bool


def check_target(out: Path) -> None:
    """Refuse, with a UsageError, what is not a new or an empty folder, and a place that cannot be written."""
    check_folder(out, f"--rethreshold {out}")
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise UsageError(f"--rethreshold {out}: is in use; name a folder that is not there yet")


def rethreshold(
    scored: Scored, measured: Sequence[Measured], asked: Asked, out: Path, scratch: Path
) -> list[str]:
    """Write the bundle of `scored`, in fp32, with thresholds chosen on these photos to `out`; returns lines
    for people. `measured`: what came out of its labelled heads. Raises UsageError: no head has enough homes,
    or `out` is in use; nothing was written."""
    check_target(out)
    bundle, photos = scored.bundle, scored.photos
    draft, new = with_arithmetics(bundle, asked.making, scratch / "draft", scratch)
    homes = {
        one.head.name: one.figures["listings"]
        for one in measured
        if one.head.kind == "binary" and one.figures["listings"]["homes"]
    }
    entries = {entry["name"]: entry for member in draft.manifest["members"] for entry in member["heads"]}
    lines = [*left_out(bundle.arithmetics, asked.making.arithmetics).values()]
    changed: list[str] = []
    fit = partial(adjust, targets=asked.targets, prefixes=asked.homes)
    for head in () if asked.keep_thresholds else [one.head for one in measured]:
        fields, line = fit(head, scored)
        lines.append(f"{head.name}: {line}")
        if fields:
            changed.append(head.name)
            entries[head.name].update(fields)
        if fields and head.kind == "binary":
            homes[head.name] = fields["metrics"]["true"]["cross_fitted"]
    if not changed and not asked.keep_thresholds:
        raise UsageError("no new bundle: " + "; ".join(lines))
    exact = Exact({head.name: scored.logits(head) for head in bundle.heads}, homes)
    fitted, more = fit_each(
        draft, new, exact, lambda name: score_all(draft.at(name), photos, scored.device, scratch), fit
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
        "photos_sha256": photos.digest,
    }
    with new_folder(out) as made:
        for name in draft.manifest["files"]:
            shutil.copyfile(draft.folder / name, made / name)
        write_manifest(made, draft.manifest)
    written = load_bundle(out)
    told = "nothing is scored again"
    if again := " or ".join(name for name in fitted if name in new):
        told = f"but nights in {again} fetch and score all photos anew"
    elif bundle.arithmetics != ("fp32",):  # `auto` may take another one from now on
        told += " while nights stay in their arithmetic"
    named = f"bundle {written.bundle_id[:12]} written to {out}"
    return [*lines, *offered(written, fitted), f"{named}; weights as before, {told}"]


def adjust(head: Head, scored: Scored, targets: Targets, prefixes: Sequence[str]) -> tuple[Entry, str]:
    """Fields of a head's manifest entry, none where there is too little to choose them on, and a line for
    people. `prefixes`: how paths of whole homes start; none: every group with photos enough is a home."""
    labels = scored.photos.labels[head.name]
    homes = find_homes(scored.photos, (labels != UNLABELLED) & scored.readable, prefixes)
    by_kind = _adjust_binary if head.kind == "binary" else _adjust_classes
    return by_kind(scored, head, labels, homes, targets)


def _adjust_binary(
    scored: Scored, head: Head, labels: NDArray[np.int64], rows: list[Rows], targets: Targets
) -> tuple[Entry, str]:
    truth = np.array([(labels[home] == 1).any() for home in rows], dtype=bool)
    having, lacking = int(truth.sum()), int((~truth).sum())
    if min(having, lacking) < FEWEST_HOMES:
        return {}, (
            f"thresholds left as they were: {having} homes with it and {lacking} without "
            f"(of {MIN_PHOTOS} labelled photos or more), {FEWEST_HOMES} of each are needed; label more homes"
        )
    site = np.array([scored.photos.site[home[0]] for home in rows], dtype=str)
    fold, folds_of = _folds(truth, site)
    homes = Homes(tuple(rows), truth, fold, site)
    logits, (in_homes, weight) = scored.logits(head)[:, 0], homes.photos
    temperature = fit_temperature(logits[in_homes], labels[in_homes] == 1, weight)
    scaled = logits / temperature
    with np.errstate(invalid="ignore"):  # NaN where a photo was not read, or not held out
        chances = head.rules.chances(scaled)  # to the last digit what serving compares with the thresholds
    fields = binary_fields(homes, chances, [_views(scored, scaled, home) for home in rows], targets)
    fields["temperature"] = temperature
    fields["metrics"]["homes"]["folds_of"] = folds_of
    return fields, _line(head, fields)


def _line(head: Head, fields: Entry) -> str:
    thresholds, fair = fields["thresholds"], fields["metrics"]["true"]["cross_fitted"]
    found, proof = fair["precision"]["of"], ""
    if found < (least := least_backing(fields["metrics"]["true"]["target"])):
        proof = f" (an estimate: fewer than {least} homes were found)"
    return (
        f"{in_words(thresholds['true'], thresholds['false'])} "
        f"(before: {in_words(head.true_threshold, head.false_threshold)}); "
        f"cross-fitted precision {fair['precision']['hits']} of {found}, "
        f"recall {fair['recall']['hits']} of {fair['recall']['of']}{proof}"
    )


def _folds(truth: Truth, site: NDArray[np.str_]) -> tuple[NDArray[np.int64], str]:
    """Folds of whole sites; of single homes where sites are too few or uneven to leave one out."""
    labels = truth.astype(np.int64)
    if len(np.unique(site)) >= FOLDS:
        fold = site_folds(labels, site, seed=0)
        if all(np.ptp(labels[fold != one]) for one in np.unique(fold)):
            return fold, "site"
    return site_folds(labels, np.arange(len(truth)).astype(str), seed=0), "home"


def _views(scored: Scored, scaled: Floats, rows: Rows) -> Floats:
    """The highest logit of each view of a home, as `aggregate` pools them."""
    seen = [scored.results[row].score for row in rows]
    views = distinct_views([score.dhash for score in seen if score])
    highest = np.full(max(views) + 1, -np.inf)
    np.maximum.at(highest, views, scaled[rows])
    return np.asarray(highest[np.isfinite(highest)])


def _adjust_classes(
    scored: Scored, head: Head, labels: NDArray[np.int64], homes: list[Rows], targets: Targets
) -> tuple[Entry, str]:
    if not homes:
        return {}, f"left as it was: no home has {MIN_PHOTOS} labelled photos"
    rows = np.concatenate(homes)
    for number, kind in enumerate(head.classes):
        count = int((labels[rows] == number).sum())
        if kind.publish and count < FEWEST_PHOTOS:
            return {}, f"left as it was: {count} photos of {kind.name} in homes, {FEWEST_PHOTOS} are needed"
    fields = class_fields(
        scored.logits(head)[rows],
        labels[rows],
        np.repeat(np.arange(len(homes)), [len(home) for home in homes]),
        {kind.name: kind.publish for kind in head.classes},
        targets.class_precision,
    )
    counted = {"photos": len(rows), "homes": len(homes), "target": targets.class_precision}
    fields["metrics"]["photos"] = counted
    published = ", ".join(kind["name"] for kind in fields["classes"] if kind["publish"])
    return fields, f"{len(rows)} photos of {len(homes)} homes; published: {published or 'none'}"
