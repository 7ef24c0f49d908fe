"""The command `enrich-train fit`."""

from pathlib import Path
from typing import Annotated, Literal, get_args

from typer import Argument, Option

from enrich.errors import UsageError
from enrich.model.arithmetic import Faster
from enrich.model.bundle import Bundle, Pool
from enrich.model.torch_engine import find_device
from training.data.decide import MOST_SEED
from training.data.labels import pairs
from training.evaluate.faster import FASTER, named, offered
from training.fit.card import check_card, write_card
from training.fit.fit import fit
from training.fit.options import FitOptions
from training.models.features import VIEWS
from training.terminal import plain
from training.thresholds.rules import Targets, in_words
from training.trainer.finetune import Recipe


def fit_command(
    photos: Annotated[Path, Argument(metavar="PHOTOS_DIR", help="Folder with manifest.csv and photos")],
    out: Annotated[Path, Option(help="Folder of the bundle to write")],
    backbone: Annotated[str, Option(help="timm:MODEL")] = FitOptions.backbone,
    weights: Annotated[
        str, Option(help="package: from pip; hub: timm's; none: untrained, for tests")
    ] = FitOptions.weights,
    size: Annotated[
        int, Option(min=0, max=1024, help="Side of the input in pixels; 0: the backbone's own")
    ] = FitOptions.size,
    pool: Annotated[
        str | None, Option(help=f"Pooling instead of the backbone's own: {', '.join(get_args(Pool))}")
    ] = FitOptions.pool,
    seed: Annotated[
        int, Option(min=0, max=MOST_SEED, help="Seed of the folds and of what is drawn")
    ] = FitOptions.seed,
    head: Annotated[
        list[str] | None,
        Option(help="An attribute of your own, yes/no or of classes: NAME=LABELS.csv (path, label)"),
    ] = None,
    label_fixes: Annotated[
        Path | None, Option(help="CSV file of corrected labels: path, label (balcony=1), why")
    ] = None,
    exclude: Annotated[list[str] | None, Option(help="Leave out photos whose path starts so")] = None,
    share: Annotated[
        list[str] | None,
        Option(help="How much photos of a first folder count in finetuning: FOLDER=NUMBER; default 1"),
    ] = None,
    finetune: Annotated[
        Literal["top", "all", "none"],
        Option(help="What learns beside the heads: upper stages of a Lite, all of any backbone, nothing"),
    ] = "none",
    frozen_on: Annotated[
        Path | None,
        Option(help="Folder of a bundle: fit heads on its backbone, as it is; `enrich rescore` rolls it out"),
    ] = None,
    samples: Annotated[int, Option(min=64, help="Photos drawn in one finetuning")] = Recipe.samples,
    learn_size: Annotated[
        int, Option(min=0, max=1024, help="Side of the pictures that finetuning learns from; 0: as --size")
    ] = Recipe.side,
    runs: Annotated[
        int, Option(min=1, max=9, help="Finetunings that differ in their seed and are averaged to one")
    ] = FitOptions.runs,
    device: Annotated[str, Option(help="Where to finetune and to score: auto, cpu, cuda or cuda:N")] = "auto",
    jobs: Annotated[
        int, Option(min=0, help="Finetunings side by side; 0: one per core, at most 4")
    ] = FitOptions.jobs,
    view: Annotated[
        list[str] | None, Option(help=f"Views that heads on a frozen backbone learn from: {', '.join(VIEWS)}")
    ] = None,
    arithmetic: Annotated[
        list[str] | None,
        Option(help="bf16 or int8: make it, with thresholds of its own on held-out photos (repeatable)"),
    ] = None,
    homes: Annotated[
        str, Option(help="First folder of the photos of whole homes; default: every group is a home")
    ] = FitOptions.homes,
    prevalence: Annotated[
        float | None,
        Option(
            min=0.01, max=0.99, help="Share of listings expected to have an attribute; default: as the homes"
        ),
    ] = Targets.prevalence,
    precision: Annotated[
        float, Option(min=0.5, max=1.0, help="Listing-level precision that `true` must reach")
    ] = Targets.precision,
    cache: Annotated[Path, Option(help="Folder of cached features and checkpoints")] = FitOptions.cache,
    name: Annotated[str, Option(help="Name of the bundle")] = FitOptions.name,
    notice: Annotated[
        str, Option(help="What each run of the bundle on a real database says once, such as its limits")
    ] = FitOptions.notice,
    card: Annotated[Path | None, Option(help="Model card to write (Markdown)")] = None,
) -> None:
    """Fit one backbone for all heads, choose thresholds on held-out homes, write the bundle."""
    if card is not None:
        check_card(card)  # before hours are spent
    bundle = fit(
        FitOptions(
            photos=photos,
            out=out,
            backbone=backbone,
            weights=weights,
            size=size,
            pool=_pool(pool),
            seed=seed,
            heads={name: Path(path) for name, path in pairs("--head", head or ())},
            label_fixes=label_fixes,
            exclude=tuple(exclude or ()),
            shares={name.rstrip("/"): _number(name, value) for name, value in pairs("--share", share or ())},
            frozen_on=frozen_on,
            recipe=Recipe(finetune, samples, learn_size),
            runs=runs,
            device=find_device(device, "--device "),
            jobs=jobs,
            views=tuple(view or FitOptions.views),
            arithmetics=named(arithmetic or ()),
            cache=cache,
            homes=homes.rstrip("/"),
            targets=Targets(precision, prevalence),
            name=name,
            notice=notice,
        )
    )
    if card is not None:
        write_card(bundle, card)
    _tell(bundle, out)


def _pool(name: str | None) -> Pool | None:
    for pool in get_args(Pool):
        if pool == name:
            return pool  # type: ignore[no-any-return]
    if name is not None:
        raise UsageError(f"--pool {name}: use one of {', '.join(get_args(Pool))}, or leave it out")
    return None


def _number(name: str, value: str) -> float:
    try:
        share = float(value)
    except ValueError:
        share = -1.0
    if not 0 <= share <= 100:
        raise UsageError(f"--share {name}={value}: write a number from 0 to 100")
    return share


def _tell(bundle: Bundle, out: Path) -> None:
    console = plain()
    console.print(f"bundle {bundle.bundle_id[:12]} written to {out}")
    if rare := bundle.manifest["training"]["classes_left_out"]:
        console.print(f"left out, with training photos of fewer than 2 sites: {', '.join(rare)}")
    base = bundle.manifest["training"].get("frozen_on", {})
    for head_name in base.get("heads_left_out", ()):
        console.print(
            f"left out: the head {head_name} of the bundle of --frozen-on; to keep it, fit again, with "
            f"--head {head_name}=LABELS.csv"
        )
    for line in base.get("learnt", ()):
        console.print(f"not held out: the backbone may have seen photos of this fit; {line}", style="bold")
    for head in bundle.heads:
        if head.kind == "binary":
            found = head.metrics["true"]["cross_fitted"]
            right, recall = found["precision"], found["recall"]
            console.print(
                f"{head.name}: {in_words(head.true_threshold, head.false_threshold)}; "
                f"on held-out homes precision {right['hits']}/{right['of']}, "
                f"recall {recall['hits']}/{recall['of']}"
            )
        else:
            shown, kept = (
                ", ".join(kind.name for kind in head.classes if kind.publish is publish) or "none"
                for publish in (True, False)
            )
            console.print(f"{head.name}: published: {shown}; not published: {kept}")
    faster = [name for name in get_args(Faster) if name in bundle.arithmetics]
    for line in (*bundle.manifest["training"]["arithmetics"], *offered(bundle, faster)):
        console.print(line)
    if not faster:
        console.print(FASTER)
