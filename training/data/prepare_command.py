"""The command line of `enrich-train prepare`."""

from pathlib import Path
from typing import Annotated, Literal

import typer
from rich.console import Console
from rich.table import Table

from training.data.decide import Rules
from training.data.prepare import Outcome, PrepareOptions, prepare
from training.data.prepared import counted


def prepare_command(
    photos: Annotated[
        Path,
        typer.Argument(metavar="PHOTOS", help="Folder of <task>/<class>/ folders, or with manifest.csv"),
    ],
    out: Annotated[Path, typer.Option(help="Folder to write")],
    split: Annotated[
        Literal["thesis", "group"],
        typer.Option(help="thesis: first 80 % of each class trains; group: whole homes"),
    ] = "thesis",
    sizes: Annotated[
        Literal["all", "thesis"], typer.Option(help="thesis: draw classes down to the thesis's sizes")
    ] = "all",
    task: Annotated[list[str] | None, typer.Option(help="Only this task")] = None,
    exclude: Annotated[list[str] | None, typer.Option(help="Leave out photos whose path starts so")] = None,
    cap: Annotated[int, typer.Option(min=0, help="Photos per home and class at most; 0: all")] = 0,
    width: Annotated[int, typer.Option(min=32, help="Pixels wide that wider photos become")] = 500,
    min_width: Annotated[
        int | None, typer.Option(min=1, help="Narrower photos are dropped; default: --width")
    ] = None,
    near: Annotated[
        int,
        typer.Option(min=0, max=64, help="Photos that differ in at most as many of 128 bits are the same"),
    ] = Rules.near,
    seed: Annotated[int, typer.Option(min=0, help="Seed of what is drawn")] = 0,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace an earlier prepared folder")
    ] = False,
) -> None:
    """Clean labelled photos, drop duplicates, split them for `compare`."""
    options = PrepareOptions(
        photos=photos,
        out=out,
        rules=Rules(split, sizes, cap, near, seed),
        tasks=tuple(task or ()),
        exclude=tuple(exclude or ()),
        width=width,
        min_width=width if min_width is None else min_width,
        overwrite=overwrite,
    )
    outcome = prepare(options)
    kept = (outcome.table["reason"] == "").sum()
    console = Console()
    console.print(_table(outcome))
    for note in outcome.notes:
        console.print(note, highlight=False, soft_wrap=True, markup=False)
    console.print(f"{kept} photos prepared in {out}", soft_wrap=True, markup=False)


def _table(outcome: Outcome) -> Table:
    """Photos kept and dropped per task, class and reason."""
    counts = counted(outcome.table)
    table = Table("task", "class")
    for name in counts.columns:
        table.add_column(name.replace("_", " "), justify="right")
    for (task, label), figures in counts.iterrows():
        table.add_row(task, label, *(str(figure) if figure else "-" for figure in figures))
    return table
