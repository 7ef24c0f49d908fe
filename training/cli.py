"""The `enrich-train` command: make a model bundle from labelled photos."""

import sys
from pathlib import Path
from typing import Annotated, Literal

import typer
from rich.console import Console

from enrich.errors import EnrichError
from training.card import write_card
from training.comparison.compare_command import compare_command
from training.comparison.prepare_command import prepare_command
from training.comparison.report import report_command
from training.evaluate import evaluate_command
from training.export import export_command
from training.features import VIEWS
from training.finetune import Recipe
from training.fit import FitOptions, fit
from training.judge import Targets

app = typer.Typer(
    name="enrich-train",
    help="Make and judge model bundles.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)


@app.callback()
def _commands() -> None:
    """Make and judge model bundles."""


@app.command("fit")
def fit_command(
    photos: Annotated[Path, typer.Argument(metavar="PHOTOS_DIR", help="Folder with manifest.csv and photos")],
    out: Annotated[Path, typer.Option(help="Folder of the bundle to write")],
    backbone: Annotated[str, typer.Option(help="timm:MODEL")] = FitOptions.backbone,
    weights: Annotated[str, typer.Option(help="package: from pip; none: untrained, for tests")] = "package",
    size: Annotated[
        int, typer.Option(min=0, max=1024, help="Side of the input in pixels; 0: the backbone's own")
    ] = FitOptions.size,
    seed: Annotated[int, typer.Option(help="Seed of the folds")] = 0,
    exclude: Annotated[list[str] | None, typer.Option(help="Leave out photos whose path starts so")] = None,
    finetune: Annotated[
        Literal["top", "none"], typer.Option(help="Whether the upper stages of the backbone learn, too")
    ] = FitOptions.finetune,
    samples: Annotated[int, typer.Option(min=64, help="Photos drawn in one finetuning")] = Recipe.samples,
    drawn: Annotated[
        int, typer.Option(min=0, max=9, help="Augmented views per photo that finetuning learns from")
    ] = FitOptions.drawn,
    view: Annotated[
        list[str] | None,
        typer.Option(help=f"Views that heads on a frozen backbone learn from: {', '.join(VIEWS)}"),
    ] = None,
    homes: Annotated[str, typer.Option(help="First folder of the photos of whole homes")] = Targets.homes,
    prevalence: Annotated[
        float | None,
        typer.Option(min=0.01, max=0.99, help="Share of homes with an attribute; default: as held out"),
    ] = Targets.prevalence,
    precision: Annotated[
        float, typer.Option(min=0.5, max=1.0, help="Listing-level precision that `true` must reach")
    ] = Targets.true_precision,
    cache: Annotated[Path, typer.Option(help="Folder of cached features")] = FitOptions.cache,
    card: Annotated[Path | None, typer.Option(help="Model card to write (Markdown)")] = None,
) -> None:
    """Fit heads on a backbone, choose thresholds on held-out homes, write the bundle."""
    targets = Targets(homes=homes, prevalence=prevalence, true_precision=precision)
    bundle = fit(
        FitOptions(
            photos=photos,
            out=out,
            backbone=backbone,
            weights=weights,
            size=size,
            seed=seed,
            finetune=finetune,
            drawn=drawn,
            recipe=Recipe(samples=samples),
            exclude=tuple(exclude or ()),
            views=tuple(view or FitOptions.views),
            cache=cache,
            targets=targets,
        )
    )
    if card is not None:
        write_card(bundle, card)
    console = Console()
    console.print(f"bundle {bundle.bundle_id[:12]} written to {out}")
    for head in bundle.heads:
        if head.kind == "binary":
            found = head.metrics["true"]["cross_fitted"]
            right, recall = found["precision"], found["recall"]
            console.print(
                f"{head.name}: true from {head.true_threshold:.3f}, false below {head.false_threshold:.3f}; "
                f"on held-out homes precision {right['hits']}/{right['of']}, "
                f"recall {recall['hits']}/{recall['of']}"
            )


app.command("evaluate")(evaluate_command)
app.command("export")(export_command)
app.command("prepare")(prepare_command)
app.command("compare")(compare_command)
app.command("report")(report_command)


def main() -> None:
    """Run the command; a mistake ends in one line and its exit code."""
    try:
        app()
    except EnrichError as error:
        print(f"enrich-train: {error}", file=sys.stderr)  # noqa: T201
        sys.exit(error.exit_code)
