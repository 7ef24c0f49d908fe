"""`enrich-train evaluate`: any bundle on any labelled photos, the way it is served."""

import tempfile
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

from rich.table import Table
from typer import Argument, Option

from enrich.errors import UsageError
from enrich.model.bundle import Bundle, load_bundle
from enrich.model.torch_engine import find_device
from training.data.homes import MIN_PHOTOS
from training.data.labels import pairs
from training.evaluate.faster import Making, calibration_paths, check_making, named
from training.evaluate.labelled import load_labelled
from training.evaluate.measure import Measured, measure
from training.evaluate.report import check_out, write_out
from training.evaluate.rethreshold import Asked, check_target, rethreshold
from training.evaluate.scored import Scored, score_all
from training.evaluate.trained_on import warnings
from training.markdown import number
from training.terminal import plain
from training.thresholds.rules import Targets


def evaluate_command(
    bundle: Annotated[Path, Argument(metavar="BUNDLE", help="Folder of the bundle")],
    photos: Annotated[Path, Argument(metavar="PHOTOS_DIR", help="Folder with manifest.csv and photos")],
    out: Annotated[Path, Option(help="Folder for report.md, metrics.json and the pictures")],
    split: Annotated[str | None, Option(help="Only rows of this split; default: all")] = None,
    homes: Annotated[
        list[str] | None,
        Option(help="Only photos whose path starts so make whole homes; default: all groups of 4 or more"),
    ] = None,
    head: Annotated[
        list[str] | None,
        Option(help="Labels of a head of your own, in a file: NAME=LABELS.csv (path, label)"),
    ] = None,
    exclude: Annotated[list[str] | None, Option(help="Leave out photos whose path starts so")] = None,
    device: Annotated[str, Option(help="auto, cpu, cuda or cuda:N")] = "auto",
    rethreshold_to: Annotated[
        Path | None,
        Option("--rethreshold", metavar="OUT_BUNDLE", help="Choose thresholds on these homes, write here"),
    ] = None,
    precision: Annotated[
        float | None,
        Option(
            min=0.5,
            max=1.0,
            help=f"With --rethreshold: precision of homes that are true; default: {Targets.precision}",
        ),
    ] = None,
    prevalence: Annotated[
        float | None,
        Option(min=0.01, max=0.99, help="With --rethreshold: share of homes with it; default: as here"),
    ] = None,
    arithmetic: Annotated[
        list[str] | None,
        Option(help="fp32, bf16 or int8: judge the bundle in it; with --rethreshold: add it (repeatable)"),
    ] = None,
    calibrate: Annotated[
        Path | None,
        Option(
            metavar="PHOTOS_DIR",
            help="With --rethreshold --arithmetic int8: photos like those that the bundle learnt from",
        ),
    ] = None,
    keep_thresholds: Annotated[
        bool, Option("--keep-thresholds", help="With --rethreshold: leave fp32's thresholds as they are")
    ] = False,
) -> None:
    """Judge a bundle on labelled photos and homes; with --rethreshold, choose its thresholds on them."""
    console = plain(highlight=False, soft_wrap=False)
    loaded, where = load_bundle(bundle), find_device(device, "--device ")
    making = Making(named(arithmetic or []), calibration_paths(calibrate) if calibrate else ())
    if rethreshold_to is not None:
        check_target(rethreshold_to)
        check_making(loaded.arithmetics, making)
        if keep_thresholds and not making.arithmetics and loaded.arithmetics == ("fp32",):
            raise UsageError("--keep-thresholds leaves nothing to fit: add --arithmetic bf16 or int8")
    elif calibrate or keep_thresholds or len(arithmetic or []) > 1:
        raise UsageError("--calibrate, --keep-thresholds and several --arithmetic belong to --rethreshold")
    elif precision is not None or prevalence is not None:
        raise UsageError("--precision and --prevalence belong to --rethreshold OUT_BUNDLE: add it")
    else:
        loaded = _in(loaded, making)
    files = {name: Path(file) for name, file in pairs("--head", head or ())}
    labelled, remarks = load_labelled(photos, loaded, split, exclude or (), files)
    check_out(out)
    prefixes = tuple(homes or ())
    for prefix in prefixes:
        if not any(path.startswith(prefix) for path in labelled.paths):
            raise UsageError(f"--homes {prefix}: no path of the chosen photos starts so")
    warned = warnings(loaded, labelled)
    for line in warned:
        console.print(f"Mind: {line}", style="yellow", soft_wrap=True)
    for line in remarks:
        console.print(line, soft_wrap=True)
    with tempfile.TemporaryDirectory() as scratch:
        scored = score_all(loaded, labelled, where, Path(scratch))
        measured = [measure(scored, one, prefixes) for one in loaded.heads if one.name in labelled.labels]
        rows = {"split": split, "exclude": exclude or []}
        described = _described(scored, rows, prefixes) | {"remarks": remarks, "warnings": warned}
        write_out(out, described, measured, labelled)
        console.print(_summary(measured))
        for one in measured:
            if (three := one.figures.get("three_rooms")) and three["of"]:
                told = f"{_short(three)} kitchens, bathrooms and bedrooms told from each other"
                console.print(f"{one.head.name}: {told}", soft_wrap=True)
        console.print(f"report, figures and pictures are in {out}", soft_wrap=True)
        if rethreshold_to is None:
            return
        asked = Asked(Targets(precision or Targets.precision, prevalence), prefixes, making, keep_thresholds)
        for line in rethreshold(scored, measured, asked, rethreshold_to, Path(scratch)):
            console.print(line, soft_wrap=True)


def _in(bundle: Bundle, making: Making) -> Bundle:
    """The bundle in the one arithmetic that was named; fp32 where none was."""
    if not making.arithmetics:
        return bundle
    (name,) = making.arithmetics
    if name not in bundle.arithmetics:
        raise UsageError(f"--arithmetic {name}: the bundle has no thresholds for it; add --rethreshold OUT")
    check_making((name,), making)
    return bundle.at(name)


def _described(scored: Scored, rows: dict[str, Any], prefixes: Sequence[str]) -> dict[str, Any]:
    """What was evaluated on what, for metrics.json."""
    bundle, photos = scored.bundle, scored.photos
    unreadable = Counter(result.status.value for result in scored.results if not result.status.ok)
    return {
        "bundle": {"name": bundle.name, "bundle_id": bundle.bundle_id},
        "photos": {
            "photos": len(photos),
            "groups": len(set(photos.group)),
            "sites": len(set(photos.site)),
            "chosen": rows,
            "homes": list(prefixes),
            "least_photos": MIN_PHOTOS,
            "unreadable": dict(unreadable),
            "photos_sha256": photos.digest,
        },
        "device": str(scored.device),
        "precision": bundle.arithmetic,
        "thresholds": {
            head.name: {
                "true": head.true_threshold,
                "false": head.false_threshold,
                **asdict(head.aggregation),
            }
            for head in bundle.heads
            if head.kind == "binary" and head.name in photos.labels
        },
    }


def _summary(measured: Sequence[Measured]) -> Table:
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    for column in ("head", "photos\n(with)", "\nAP", "homes\n(with)", "\nprecision", "\nrecall"):
        table.add_column(column, no_wrap=True)
    for one in measured:
        figures = one.figures
        if one.head.kind != "binary":
            right = figures["accuracy"]
            told = f"{right['value']:.1%} right" if right["of"] else ""
            table.add_row(one.head.name, str(figures["photos"]), "", "", "", told)
            continue
        photos, listings = figures["photos"], figures["listings"]
        row = [f"{photos['photos']} ({photos['with']})", number(photos["average_precision"])]
        if listings["homes"]:
            row.append(f"{listings['homes']} ({listings['with']})")
            row += [_short(listings["precision"]), _short(listings["recall"])]
        table.add_row(one.head.name, *row)
    return table


def _short(figure: dict[str, Any]) -> str:
    if not figure["of"]:
        return "0/0"
    return f"{figure['hits']}/{figure['of']} [{figure['low']:.2f}, {figure['high']:.2f}]"
