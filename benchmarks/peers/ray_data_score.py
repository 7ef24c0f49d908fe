"""Ray Data: fetch, decode, resize and score. No state, no documents.

python ray_data_score.py URLS
"""

import json
import os
import sys
import time
from pathlib import Path
from typing import Any

import ray
from model import Scorer, ready
from ray.data.expressions import download

CORES = len(os.sched_getaffinity(0))


def decode(row: dict[str, Any]) -> dict[str, Any]:
    return {"url": row["url"], "image": ready(row["bytes"])}


class Score:
    def __init__(self) -> None:
        self.scorer = Scorer(threads=1)

    def __call__(self, batch: dict[str, Any]) -> dict[str, Any]:
        return {"url": batch["url"], "scores": self.scorer(batch["image"])}


def main() -> None:
    urls = Path(sys.argv[1]).read_text().split()
    # One of its own: without these two it would join a cluster that happens to run here, or others its own.
    options = {"_temp_dir": sys.argv[2], "log_to_driver": False, "include_dashboard": False}
    # Its CPUs are places for tasks: each stage needs one, and where there are too few they wait for ever.
    ray.init("local", num_cpus=CORES + 3, **options)
    start = time.perf_counter()
    scored = (
        ray.data.from_items([{"url": url} for url in urls])
        .with_column("bytes", download("url"))
        .map(decode)
        # From one actor on: actors on every core would leave none to fetch and decode.
        .map_batches(Score, batch_size=8, compute=ray.data.ActorPoolStrategy(min_size=1, max_size=CORES))
        .materialize()
    )
    seconds = time.perf_counter() - start
    print(json.dumps({"photos": scored.count(), "seconds": seconds, "version": ray.__version__}))


if __name__ == "__main__":
    main()
