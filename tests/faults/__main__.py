"""Runs the fault tests and writes docs/reliability.md from what they counted.

    python -m tests.faults [--soak]

Where a test fails the page stays as it was. Other arguments go to pytest.
"""

import json
import os
import platform
import sys
import tempfile
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from PIL import __version__ as pillow

FOLDER = Path(__file__).parent
PAGE = FOLDER.parents[1] / "docs" / "reliability.md"
HEAD = """# Reliability

`{command}` runs the fault tests and writes this page from what they counted: nothing here is typed.
They give the job bad input on purpose, and each case has its end: a broken photo its status,
a forbidden URL its refusal, an odd listing its document. They kill and freeze it, and make servers fail
beside it; the next run ends with the documents of an undisturbed one. The tests are in `tests/faults/`.
`make test` runs them too, and `make soak` tries far more, some photos of it made by a fuzzer.

{date}, Python {python}, Pillow {pillow}, {system}, {cores} cores:

| what was tried | cases | what went wrong |
| --- | ---: | --- |
"""


def page(records: list[dict[str, Any]], command: str) -> str:
    """The whole page."""
    rows = [
        f"| {found['tried']} | {found['cases']:,} | {_told(found['failures'])} |\n"
        for found in sorted(records, key=lambda found: str(found["tried"]))
    ]
    cases = sum(found["cases"] for found in records)
    wrong = sum(sum(found["failures"].values()) for found in records)
    head = HEAD.format(
        command=command,
        date=f"{datetime.now(UTC):%Y-%m-%d}",
        python=platform.python_version(),
        pillow=pillow,
        system=f"{platform.system()} on {platform.machine()}",
        cores=len(os.sched_getaffinity(0)),
    )
    return head + "".join(rows) + f"| **all** | **{cases:,}** | **{wrong}** |\n"


def _told(failures: dict[str, int]) -> str:
    return ", ".join(f"{name.replace('_', ' ')}: {count}" for name, count in failures.items())


def main(arguments: list[str]) -> int:
    with tempfile.TemporaryDirectory() as counts:
        code = int(pytest.main([str(FOLDER), "--reliability", counts, *arguments]))
        if code:
            sys.stderr.write(f"a fault test failed, so {PAGE.name} stays as it was\n")
            return code
        records = [json.loads(path.read_text()) for path in Path(counts).glob("*.json")]
        command = "python -m tests.faults --soak" if "--soak" in arguments else "make reliability"
        PAGE.write_text(page(records, command))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
