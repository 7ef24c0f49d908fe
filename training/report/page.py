"""The page of a comparison: the template report.md.jinja, filled with what was gathered and computed."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from training import markdown, thesis
from training.report.confusion import Confusion, class_tables
from training.report.findings import Finding, accuracy_findings, time_findings
from training.report.gathered import KINDS, SCRATCH, UNSTATED, Gathered
from training.report.provenance import commands, missing, option_table, photo_table, run_table
from training.report.ratios import epoch_table, ratio_tables, times_of
from training.report.tables import best_models, result_tables

TEMPLATE = Path(__file__).with_name("report.md.jinja")


def page(
    gathered: Gathered,
    reference: Gathered | None,
    found: Sequence[Confusion] = (),
    curves: Mapping[str, str] | None = None,
    matrices: Mapping[str, str] | None = None,
) -> str:
    """The whole page, in Markdown.

    `reference`: the thesis's runs, set beside ours; None where `gathered` is the thesis itself. `curves` and
    `matrices`: title of each figure -> its link.
    """
    return markdown.page(
        TEMPLATE,
        thesis=thesis,
        gathered=gathered,
        runs=gathered.runs,
        reference=reference,
        found=found,
        curves=curves,
        matrices=matrices or {},
        times=times_of(gathered),
        their_times=times_of(reference)[0] if reference else None,
        kinds={kind: int((gathered.runs["kind"] == kind).sum()) for kind in KINDS},
        not_run=[task for task in thesis.TASKS if task not in gathered.tasks()],
        repeating=commands(gathered),
        photos=photo_table(gathered, found),
        options=option_table(gathered),
        missing=missing(gathered, found),
        **_FUNCTIONS,
    )


def findings_table(findings: Sequence[Finding]) -> str:
    """The findings as Markdown."""
    rows = [finding._replace(verdict=f"**{finding.verdict}**") for finding in findings]
    return markdown.table(["finding", "thesis says", "figures say", "verdict"], rows)


_FUNCTIONS = {
    "KINDS": KINDS,
    "SCRATCH": SCRATCH,
    "UNSTATED": UNSTATED,
    "findings_table": findings_table,
    "accuracy_findings": accuracy_findings,
    "time_findings": time_findings,
    "run_table": run_table,
    "best_models": best_models,
    "result_tables": result_tables,
    "epoch_table": epoch_table,
    "ratio_tables": ratio_tables,
    "class_tables": class_tables,
}
