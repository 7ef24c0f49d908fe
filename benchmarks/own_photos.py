"""From a folder of own photos to a bundle in use: how long it takes.

python benchmarks/own_photos.py [--photos ../shared/photos] [--count 300]

Whole homes of the labelled photos stand for a portal's own: homes with a balcony, with a fireplace and with
neither in turn, until there are enough photos. Heads are learnt on the starter bundle's backbone, thresholds
chosen on held-out homes, and the demo's homes enriched with the bundle. The starter learnt from these photos,
so what comes out says nothing of quality here.
"""

import argparse
import csv
import os
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from itertools import chain, zip_longest
from pathlib import Path

from enrich.settings import STARTER_BUNDLE

HOMES = "web_homes/"


def own_folder(photos: Path, count: int, folder: Path) -> int:
    """Link whole homes of `photos` into `folder`, with a manifest.csv; returns how many photos."""
    with (photos / "manifest.csv").open(newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["path"].startswith(HOMES)]
    homes: dict[str, list[dict[str, str]]] = defaultdict(list)
    for row in rows:
        homes[row["group"]].append(row)
    kinds: dict[tuple[bool, bool], list[list[dict[str, str]]]] = defaultdict(list)
    for home in homes.values():
        if 4 <= len(home) <= 15:
            shows = tuple(any(row[name] == "1" for row in home) for name in ("balcony", "fireplace"))
            kinds[shows[0], shows[1]].append(home)
    taken: list[dict[str, str]] = []
    for home in chain.from_iterable(zip_longest(*kinds.values(), fillvalue=[])):
        if len(taken) < count:
            taken += home
    for row in taken:
        link = folder / row["path"]
        link.parent.mkdir(parents=True, exist_ok=True)
        link.symlink_to((photos / row["path"]).resolve())
    with (folder / "manifest.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, list(taken[0]))
        writer.writeheader()
        writer.writerows(taken)
    return len(taken)


def timed(what: str, command: list[str], **environment: str) -> float:
    """Run a command; prints and returns its seconds."""
    began = time.monotonic()
    done = subprocess.run(
        command,
        env={**os.environ, **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    seconds = time.monotonic() - began
    if done.returncode:
        sys.exit(f"{what} ended with exit code {done.returncode}:\n{done.stdout[-2000:]}")
    print(f"{what}: {seconds:.0f} s")
    return seconds


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--photos", type=Path, default=Path("../shared/photos"))
    parser.add_argument("--count", type=int, default=300)
    options = parser.parse_args()
    here = Path(sys.executable).parent
    with tempfile.TemporaryDirectory() as name:
        folder, bundle = Path(name) / "own", Path(name) / "bundle"
        count = own_folder(options.photos, options.count, folder)
        fit = [str(here / "enrich-train"), "fit", str(folder), "--out", str(bundle)]
        fit += ["--frozen-on", str(STARTER_BUNDLE), "--cache", str(Path(name) / "cache")]
        total = timed(f"fit on {count} photos", fit)
        total += timed("demo with the bundle", [str(here / "enrich"), "demo"], ENRICH_BUNDLE=str(bundle))
        print(f"from photos to a bundle in use: {total / 60:.1f} minutes")


if __name__ == "__main__":
    main()
