"""Daft: fetch, decode, resize and score. No state, no documents.

python daft_score.py URLS
"""

import json
import os
import sys
import time
from pathlib import Path
from typing import Any

import daft
from daft import DataType, Series, col
from daft.functions import decode_image, download, resize
from model import SIDE, Scorer

CORES = len(os.sched_getaffinity(0))


@daft.cls(max_concurrency=CORES, use_process=True)
class Score:
    def __init__(self) -> None:
        self.scorer = Scorer(threads=1)

    @daft.method.batch(return_dtype=DataType.list(DataType.float32()), batch_size=8)
    def __call__(self, images: Series) -> list[Any]:
        return [scores.tolist() for scores in self.scorer(images.to_pylist())]


def main() -> None:
    urls = Path(sys.argv[1]).read_text().split()
    start = time.perf_counter()
    score = Score()
    image = resize(decode_image(download(col("url"))), SIDE, SIDE)
    scored = daft.from_pydict({"url": urls}).select(col("url"), score(image).alias("scores")).collect()
    seconds = time.perf_counter() - start
    print(json.dumps({"photos": len(scored), "seconds": seconds, "version": daft.__version__}))


if __name__ == "__main__":
    main()
