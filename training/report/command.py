"""`enrich-train report`: the comparison as a page, with the thesis's figures beside ours.

Every figure and every verdict is computed from the results folders: the page cannot say more than they do.
"""

import os
import tempfile
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from enrich.errors import UsageError
from training import thesis
from training.report.confusion import confusions
from training.report.gathered import Gathered, gather
from training.report.page import page
from training.report.plots import draw_confusions, draw_curves


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

    `out`: a folder for report.md with its figures beside it, or the page FILE.md, with its figures in a
    folder FILE beside it. `reference`: the thesis's runs; None leaves out what stands beside ours. All is
    made in a temporary folder first; nothing is replaced if that fails.

    Raises:
        UsageError: predictions do not fit, or `out` cannot be written.
    """
    named = out.suffix == ".md"
    target, figures = (out, out.with_suffix("")) if named else (out / "report.md", out)
    link = f"{figures.name}/" if named else ""
    found = confusions(gathered)
    try:
        figures.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=figures, prefix=".report-") as made:
            curves = draw_curves(gathered, Path(made))
            matrices = draw_confusions(found, Path(made))
            links = [{title: link + file for file, title in each.items()} for each in (curves, matrices)]
            (Path(made) / target.name).write_text(page(gathered, reference, found, *links), encoding="utf-8")
            for file in sorted(Path(made).glob("*.png")):
                os.replace(file, figures / file.name)
            os.replace(Path(made) / target.name, target)
    except OSError as error:
        raise UsageError(f"--out {out} cannot be written: {error.strerror or error}") from None
    return target
