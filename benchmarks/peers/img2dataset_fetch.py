"""img2dataset: fetch, decode, resize and write tar files. No model.

python img2dataset_fetch.py URLS OUT
"""

import json
import math
import os
import sys
import time
from importlib.metadata import version
from pathlib import Path

from img2dataset import download

STARTER = Path(__file__).resolve().parents[2] / "enrich" / "model" / "starter" / "manifest.json"


def main() -> None:
    urls, out = Path(sys.argv[1]), Path(sys.argv[2])
    cores = len(os.sched_getaffinity(0))
    count = len(urls.read_text().split())
    start = time.perf_counter()
    download(
        url_list=str(urls),
        output_folder=str(out),
        output_format="webdataset",
        image_size=json.loads(STARTER.read_text())["members"][0]["preprocessing"]["size"][0],
        processes_count=cores,
        thread_count=64,
        # A shard is what a process takes at once: enough of them to keep all processes busy.
        number_sample_per_shard=math.ceil(count / (4 * cores)),
    )
    seconds = time.perf_counter() - start
    done = sum(json.loads(stats.read_text())["successes"] for stats in out.glob("*_stats.json"))
    print(json.dumps({"photos": done, "seconds": seconds, "version": version("img2dataset")}))


if __name__ == "__main__":
    main()
