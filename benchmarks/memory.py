"""Peak memory of `enrich run` by the number of listings.

    python benchmarks/memory.py [--listings 1000 10000] [--photos 2]

Each run is a process of its own, on the starter bundle and the embedded index; photos are small, and every
listing has its own URLs for the same pictures, so that state, not the model, is what grows.
"""

import argparse
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from bench_database import fill, fresh_database, server
from photo_host import photo_host
from PIL import Image

from training.markdown import table


def peak_of(command: list[str], environment: dict[str, str]) -> tuple[float, float]:
    """Peak resident memory in MB, and seconds, of a command that must end well."""
    program = (
        "import resource, subprocess, sys;"
        "done = subprocess.run(sys.argv[1:], stdout=subprocess.DEVNULL);"
        "print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss);"
        "sys.exit(done.returncode)"
    )
    start = time.perf_counter()
    ran = subprocess.run(
        [sys.executable, "-c", program, *command],
        env=environment,
        check=True,
        stdout=subprocess.PIPE,
        text=True,
    )
    return int(ran.stdout.split()[-1]) / 1024, time.perf_counter() - start


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--listings", type=int, nargs="+", default=[1_000, 10_000])
    parser.add_argument("--photos", type=int, default=2)
    options = parser.parse_args()
    with server() as home, tempfile.TemporaryDirectory() as folder, photo_host(Path(folder)) as (host, _):
        for number in range(1, options.photos + 1):
            Image.effect_noise((320, 240), 60 + number).convert("RGB").save(Path(folder) / f"{number}.jpg")
        peaks, rows = [], []
        for listings in options.listings:
            url = fresh_database(home)
            fill(url, listings, options.photos, host + "/{photo}.jpg?listing={listing}")
            environment = {
                **os.environ,
                "DATABASE_URL": url,
                "ENRICH_ALLOWED_PRIVATE_HOSTS": "127.0.0.1",
                "ENRICH_INDEX": f"memory-{listings}",
            }
            environment.pop("ELASTICSEARCH_URL", None)
            peak, seconds = peak_of([sys.executable, "-m", "jobs.cli.commands", "run"], environment)
            peaks.append(peak)
            rows.append([f"{listings:,}", f"{listings * options.photos:,}", f"{peak:.0f}", f"{seconds:.0f}"])
        print(table(["listings", "photos", "peak MB", "seconds"], rows))
        print(f"\nlast against first: {peaks[-1] / peaks[0]:.2f}")


if __name__ == "__main__":
    main()
