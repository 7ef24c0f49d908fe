"""Runs the benchmarks one after another and writes what they print into docs/benchmarks.md.

    python benchmarks [--photos ../shared/photos] [--only WORD]

Each one's output stands in the page between `<!-- measured: TITLE -->` and `<!-- end -->`, with its command,
date and machine. What has no such place yet gets a section at the end. A benchmark that fails leaves what the
page said, and the others go on.
"""

import argparse
import os
import re
import shlex
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from pipeline import processor  # noqa: E402

PAGE = ROOT / "docs" / "benchmarks.md"

BENCHMARKS = [
    ("The whole job", "benchmarks/pipeline.py --photos {photos} --homes 25 --slow-homes 4 --repeat 3"),
    ("Beside other tools", "benchmarks/peers --photos {photos} --homes 25 --repeat 3"),
    ("Discovery over unchanged listings", "benchmarks/discovery.py"),
    (
        "Discovery of a million listings",
        "benchmarks/discovery.py --listings 1000000 --urls plain --repeat 1 --plans",
    ),
    ("Publishing", "benchmarks/publishing.py"),
    ("The page", "benchmarks/page.py"),
    ("The review queue", "benchmarks/review.py"),
    ("Reconciling", "benchmarks/reconcile.py"),
    ("Memory", "benchmarks/memory.py --listings 1000 10000 100000"),
    ("Completing listings", "benchmarks/completing.py"),
    ("Where the time goes", "benchmarks/cpu_profile.py --photos {photos} --homes 60"),
    ("Standing still", "benchmarks/stalls.py --photos {photos} --runs 20"),
    ("Rescoring", "benchmarks/rescore.py --photos {photos}"),
    ("Kept features", "benchmarks/embeddings.py --photos {photos}"),
    ("Nodes of a cluster", "benchmarks/scale.py"),
    ("Rows of state", "benchmarks/scale.py --rows"),
    ("Photos, crops and backbones", "benchmarks/ablations.py --photos {photos}"),
    ("A price model", "benchmarks/price_model.py --photos {photos}"),
]


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("--photos", default="../shared/photos")
    parser.add_argument("--only", default="", help="those whose title has this in it")
    options = parser.parse_args()
    failed = []
    for title, command in BENCHMARKS:
        if options.only.lower() not in title.lower():
            continue
        arguments = command.format(photos=options.photos)
        print(f"{title}: python {arguments}", file=sys.stderr, flush=True)
        variables = {**os.environ, "PYTHONPATH": str(ROOT)}
        ran = subprocess.run(
            [sys.executable, *shlex.split(arguments)],
            cwd=ROOT,
            env=variables,
            stdout=subprocess.PIPE,
            text=True,
        )
        if ran.returncode:
            failed.append(title)
            continue
        cores = len(os.sched_getaffinity(0))
        machine = f"{cores} cores of {processor()}, load {os.getloadavg()[0]:.1f} at the end"
        head = f"`python {arguments}`, {datetime.now(UTC):%Y-%m-%d}, {machine}:"
        PAGE.write_text(placed(PAGE.read_text(), title, f"{head}\n\n{ran.stdout.strip()}"))
    if failed:
        print(f"failed, and left as they were: {', '.join(failed)}", file=sys.stderr)
    return 1 if failed else 0


def placed(page: str, title: str, measured: str) -> str:
    """The page with what was measured in its place."""
    start, end = f"<!-- measured: {title} -->", "<!-- end -->"
    block = f"{start}\n{measured}\n{end}"
    place = re.compile(re.escape(start) + r".*?" + re.escape(end), re.DOTALL)
    if place.search(page):
        return place.sub(lambda _: block, page)
    return f"{page.rstrip()}\n\n## {title}\n\n{block}\n"


if __name__ == "__main__":
    sys.exit(main())
