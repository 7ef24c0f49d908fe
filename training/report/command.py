"""`enrich-train report`: the comparison as a page, with the thesis's figures beside ours.

Every figure and every verdict is computed from the results folders: the page cannot say more than they do.
"""

import os
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from enrich.errors import UsageError
from training import thesis
from training.report.confusion import confusions
from training.report.gathered import Gathered, gather
from training.report.page import Drawn, page
from training.report.plots import draw_confusions, draw_curves


@dataclass(frozen=True)
class Target:
    """Where the report goes: the page, and the folder of its figures."""

    page: Path
    figures: Path

    @classmethod
    def of(cls, out: Path) -> "Target":
        """`DIR`: DIR/report.md with its figures beside it. `FILE.md`: figures in a folder FILE beside it."""
        if out.suffix == ".md":
            return cls(out, out.with_suffix(""))
        return cls(out / "report.md", out)

    def link(self, file: str) -> str:
        return file if self.figures == self.page.parent else f"{self.figures.name}/{file}"


def report_command(
    results: Annotated[
        list[Path] | None, typer.Argument(metavar="RESULTS…", help="Folders that compare wrote; merged")
    ] = None,
    *,
    out: Annotated[Path, typer.Option(help="Folder for report.md and its figures, or the page FILE.md")],
    of_thesis: Annotated[bool, typer.Option("--thesis", help="The thesis's own figures, alone")] = False,
) -> None:
    """Write the comparison as a page: tables, figures, time ratios, and which findings of the thesis held."""
    if of_thesis == bool(results):
        raise UsageError("name the results folders, or --thesis for the thesis's own figures, not both")
    gathered = gather([thesis.FOLDER] if of_thesis else results or [])
    page = write_report(gathered, out, None if of_thesis else gather([thesis.FOLDER]))
    Console().print(
        f"{page} written: {len(gathered.runs)} runs, {len(gathered.timings)} timings", soft_wrap=True
    )


def write_report(gathered: Gathered, out: Path, reference: Gathered | None) -> Path:
    """Write the report and return the path of its page.

    `out`: see `Target.of`. `reference`: the thesis's runs; None leaves out what stands beside ours. All is
    made in a temporary folder first; nothing is replaced if that fails.

    Raises:
        UsageError: predictions do not fit, or `out` cannot be written.
    """
    target, found = Target.of(out), confusions(gathered)
    try:
        target.figures.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=target.figures, prefix=".report-") as made:
            drawn = Drawn(
                curves=_linked(draw_curves(gathered, Path(made)), target),
                matrices=_linked(draw_confusions(found, Path(made)), target),
            )
            text = page(gathered, reference, found, drawn)
            (Path(made) / target.page.name).write_text(text, encoding="utf-8")
            for file in sorted(Path(made).glob("*.png")):
                os.replace(file, target.figures / file.name)
            os.replace(Path(made) / target.page.name, target.page)
    except OSError as error:
        raise UsageError(f"--out {out} cannot be written: {error.strerror or error}") from None
    return target.page


def _linked(figures: dict[str, str], target: Target) -> tuple[tuple[str, str], ...]:
    return tuple((title, target.link(file)) for file, title in figures.items())
