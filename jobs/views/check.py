"""`enrich check`: a line for each thing verified."""

from collections.abc import Iterable

from rich.markup import escape

from jobs.check import Finding
from jobs.views import MARKS, console

_SIGNS = {True: MARKS[True], False: MARKS[False], None: "[yellow]-[/]"}


def show_checks(findings: Iterable[Finding]) -> int:
    """Print findings as they come; the exit code: 2 when something is wrong."""
    out = console()
    wrong = 0
    for finding in findings:
        wrong += finding.ok is False
        for line in finding.lines:
            out.print(f"{_SIGNS[finding.ok]} {finding.name:9} {escape(line)}", soft_wrap=True)
    out.print("all is well" if not wrong else f"{wrong} of the checks failed; nothing was written")
    return 2 if wrong else 0
