"""Whether the job ever stands still: many small runs, each a process of its own, and their longest pauses.

    python benchmarks/stalls.py [--photos ../shared/photos] [--homes 5] [--runs 20]

Standing still is measured by the job's own CPU time, so that a busy machine, on which everything takes
longer, is told from a job that waits for nothing: a pause is a time in which the process used less than a
tenth of a core.
"""

import argparse
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path

import psutil
from bench_database import fresh_database, server
from photo_host import photo_host
from pipeline import homes, say, seeded

from training.markdown import table

STEP = 0.05  # seconds between looks
BUSY = 0.1  # cores
PATIENCE = 300.0  # seconds until a run counts as hung
ENRICH = [sys.executable, "-c", "from jobs.cli.commands import main; main()"]


def run(database_url: str) -> tuple[float, float, float]:
    """Seconds, CPU-seconds and the longest pause of `enrich run`."""
    settings = {"DATABASE_URL": database_url, "ENRICH_ALLOWED_PRIVATE_HOSTS": '["127.0.0.1"]'}
    start = at = time.perf_counter()
    spent = used = longest = 0.0
    with subprocess.Popen(
        [*ENRICH, "run"], env={**os.environ, **settings}, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    ) as process:
        watched = psutil.Process(process.pid)
        while process.poll() is None:
            now, times = time.perf_counter(), watched.cpu_times()
            spent = times.user + times.system
            if spent - used > BUSY * (now - at):
                used, at = spent, now
            longest = max(longest, now - at)
            if now - start > PATIENCE:
                process.kill()
            time.sleep(STEP)
    if process.returncode:
        raise SystemExit(f"a run ended with {process.returncode} after {time.perf_counter() - start:.0f} s")
    return time.perf_counter() - start, spent, longest


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--photos", type=Path, default=Path("../shared/photos"))
    parser.add_argument("--homes", type=int, default=5)
    parser.add_argument("--runs", type=int, default=20)
    options = parser.parse_args()
    root = options.photos.resolve()
    chosen = homes(root, options.homes)
    measured = []
    with server() as home, photo_host(root) as (url, _):
        for number in range(options.runs + 1):
            database_url = fresh_database(home)
            seeded(database_url, chosen, url, root)
            seconds, spent, pause = run(database_url)
            say(f"run {number}: {seconds:.2f} s, {spent:.2f} CPU-seconds, pause {pause:.2f} s")
            if number:  # the first one converts the model
                measured.append((seconds, spent, pause))
    print(f"{options.runs} runs of {sum(len(home.files) for home in chosen)} photos of {len(chosen)} homes\n")
    names = ("seconds", "CPU-seconds", "longest pause, s")
    rows = [
        [name, *(f"{value:.2f}" for value in (min(found), statistics.median(found), max(found)))]
        for name, found in zip(names, zip(*measured, strict=True), strict=True)
    ]
    print(table(["", "least", "median", "most"], rows))


if __name__ == "__main__":
    main()
