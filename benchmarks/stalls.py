"""Whether the whole job ever stands still: many small runs, and the longest time without work in each.

    python benchmarks/stalls.py [--photos ../shared/photos] [--homes 5] [--runs 20]

Standing still is measured by the job's own CPU time, so that a busy machine, on which everything takes
longer, is told from a job that waits for nothing: a pause is a time in which the process used less than a
tenth of a core.
"""

import argparse
import statistics
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Event, Thread

from bench_database import server
from photo_host import photo_host
from pipeline import homes, say, whole_job

from enrich.settings import load_settings
from training.markdown import table

STEP = 0.05  # seconds between looks
BUSY = 0.1  # cores


@contextmanager
def longest_pause() -> Iterator[list[float]]:
    """The seconds of the longest pause within the block, once it is over."""
    done, longest = Event(), [0.0]

    def watch() -> None:
        used, at = time.process_time(), time.perf_counter()
        while not done.wait(STEP):
            now_used, now = time.process_time(), time.perf_counter()
            if now_used - used > BUSY * (now - at):
                used, at = now_used, now
            longest[0] = max(longest[0], now - at)

    watching = Thread(target=watch)
    watching.start()
    try:
        yield longest
    finally:
        done.set()
        watching.join()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--photos", type=Path, default=Path("../shared/photos"))
    parser.add_argument("--homes", type=int, default=5)
    parser.add_argument("--runs", type=int, default=20)
    options = parser.parse_args()
    root = options.photos.resolve()
    chosen = homes(root, options.homes)
    photos = sum(len(home.files) for home in chosen)
    settings = load_settings(allowed_private_hosts=("127.0.0.1",))
    walls, spent, pauses = [], [], []
    with server() as home, photo_host(root) as (url, _):
        whole_job(chosen, url, root, settings, home)  # converts the model and warms the caches
        for number in range(options.runs):
            with longest_pause() as pause:
                speed, cpu, _ = whole_job(chosen, url, root, settings, home)
            walls.append(photos / speed)
            spent.append(photos * cpu)
            pauses.append(pause[0])
            say(f"run {number + 1}: {walls[-1]:.2f} s, {spent[-1]:.2f} CPU-seconds, pause {pause[0]:.2f} s")
    print(f"{options.runs} runs of {photos} photos of {len(chosen)} homes\n")
    rows = [
        [name, *(f"{value:.2f}" for value in (min(found), statistics.median(found), max(found)))]
        for name, found in (("seconds", walls), ("CPU-seconds", spent), ("longest pause, s", pauses))
    ]
    print(table(["", "least", "median", "most"], rows))


if __name__ == "__main__":
    main()
