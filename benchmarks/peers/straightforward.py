"""The script that one would write first: fetch, decode, score in fp32, one photo after another.

python straightforward.py URLS
"""

import json
import sys
import time
from pathlib import Path

import requests
import torch
from model import Scorer, ready


def main() -> None:
    urls = Path(sys.argv[1]).read_text().split()
    start = time.perf_counter()
    scorer = Scorer(threads=torch.get_num_threads())
    session = requests.Session()
    scores = [scorer([ready(session.get(url, timeout=30).content)]) for url in urls]
    seconds = time.perf_counter() - start
    print(json.dumps({"photos": len(scores), "seconds": seconds, "version": torch.__version__.split("+")[0]}))


if __name__ == "__main__":
    main()
