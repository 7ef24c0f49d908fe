"""`enrich-train report`: the comparison as a page, with the thesis's figures beside ours.

Every figure and every verdict is computed from the results folders: the page cannot say more than they do.
"""

import os
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated

from typer import Argument, Option

from enrich.atomic import writing
from enrich.errors import UsageError
from training import markdown, thesis
from training.report import confusion, findings, gathered, plots, provenance, tables
from training.report.confusion import Confusion
from training.report.gathered import Gathered, gather
from training.terminal import plain

TEMPLATE = Path(__file__).with_name("report.md.jinja")


def report_command(
    results: Annotated[
        list[Path] | None, Argument(metavar="RESULTS…", help="Folders that compare wrote; merged")
    ] = None,
    *,
    out: Annotated[Path, Option(help="Folder for report.md and its figures, or the page FILE.md")],
    of_thesis: Annotated[bool, Option("--thesis", help="The thesis's own figures, alone")] = False,
) -> None:
    """Write the comparison as a page: tables, figures, time ratios, and which findings of the thesis held."""
    if of_thesis == bool(results):
        raise UsageError("name the results folders, or --thesis for the thesis's own figures, not both")
    ours = gather([thesis.FOLDER] if of_thesis else results or [])
    written = write_report(ours, out, None if of_thesis else gather([thesis.FOLDER]))
    told = f"{written} written: {len(ours.runs)} runs, {len(ours.timings)} timings"
    plain().print(told)


def write_report(ours: Gathered, out: Path, reference: Gathered | None) -> Path:
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
    found = confusion.confusions(ours)
    with writing(f"--out {out}"):
        figures.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=figures, prefix=".report-") as made:
            drawn = plots.draw_curves(ours, Path(made)), plots.draw_confusions(found, Path(made))
            links = [{title: link + file for file, title in each.items()} for each in drawn]
            (Path(made) / target.name).write_text(page(ours, reference, found, *links), encoding="utf-8")
            for file in sorted(Path(made).glob("*.png")):
                os.replace(file, figures / file.name)
            os.replace(Path(made) / target.name, target)
    return target


def page(
    ours: Gathered,
    reference: Gathered | None,
    found: Sequence[Confusion] = (),
    curves: Mapping[str, str] | None = None,
    matrices: Mapping[str, str] | None = None,
) -> str:
    """The whole page, in Markdown.

    `reference`: the thesis's runs, set beside ours; None where `ours` is the thesis itself. `curves` and
    `matrices`: title of each figure -> its link.
    """
    return markdown.page(
        TEMPLATE,
        thesis=thesis,
        ours=ours,
        runs=ours.runs,
        reference=reference,
        found=found,
        curves=curves or {},
        matrices=matrices or {},
        times=tables.times_of(ours),
        their_ratios=tables.times_of(reference)[0].ratios() if reference else {},
        gathered=gathered,
        confusion=confusion,
        findings=findings,
        provenance=provenance,
        tables=tables,
    )
