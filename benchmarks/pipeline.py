"""Photos per second of the whole job, against its parts measured alone and against straightforward scripts.

    python benchmarks/pipeline.py [--photos ../shared/photos] [--homes 60]

Everything is compared within one run. The photos are real (whole homes), served over HTTP on loopback by
another process; Postgres is the embedded one; the index is `ELASTICSEARCH_URL`, else the embedded one.

`ideal` is cores ÷ CPU-seconds per photo, summed over the stages measured alone and over the photo host, which
runs on the same cores here. On CUDA the ideal is the slowest stage alone.
"""

import argparse
import asyncio
import csv
import os
import platform
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import uuid4

import numpy as np
import requests
import torch
from bench_database import fresh_database, server
from photo_host import photo_host
from PIL import Image
from sqlalchemy import create_engine, text
from torchvision import transforms

from enrich.model.aggregate import aggregate
from enrich.model.bundle import Bundle, load_bundle
from enrich.model.engine import lane_pool, scores_of
from enrich.model.open import choose, open_engine
from enrich.model.torch_engine import TorchEngine
from enrich.photos.decode import decode
from enrich.photos.http import HttpTransport
from enrich.records import Photo, PhotoResult, PhotoScore, PhotoStatus
from enrich.settings import STARTER_BUNDLE, Settings, load_settings
from enrich.state.database import parse_url
from jobs.run.nightly import RunOptions, run
from jobs.run.stop import Stop
from training.markdown import table

BATCH = 32
ON_TORCH: dict[str, dict[str, Any]] = {
    "whole job, ENRICH_ENGINE=torch": {"engine": "torch"},
    "whole job, ENRICH_ENGINE=torch ENRICH_PRECISION=fp32": {"engine": "torch", "precision": "fp32"},
}


@dataclass(frozen=True)
class Home:
    id: int
    files: tuple[Path, ...]


def homes(photos: Path, wanted: int) -> list[Home]:
    """Whole homes of the collection web_homes, of 4 photos and more."""
    by_group: dict[str, list[Path]] = {}
    with (photos / "manifest.csv").open(newline="") as file:
        for row in csv.DictReader(file):
            if row["path"].startswith("web_homes/"):
                by_group.setdefault(row["group"], []).append(photos / row["path"])
    whole = [Home(n, tuple(files)) for n, files in enumerate(by_group.values()) if len(files) >= 4]
    return whole[:wanted]


def say(step: str) -> None:
    """Progress, on stderr."""
    print(f"{time.strftime('%H:%M:%S')} {step}", file=sys.stderr, flush=True)


def cpu(work: Callable[[], Any]) -> tuple[float, float, Any]:
    """CPU-seconds and seconds of `work` in this process, and its outcome."""
    before, start = time.process_time(), time.perf_counter()
    outcome = work()
    return time.process_time() - before, time.perf_counter() - start, outcome


def stages_alone(
    chosen: list[Home], url: str, root: Path, settings: Settings, bundle: Bundle
) -> dict[str, Any]:
    """(CPU-seconds, seconds) per photo of each stage alone, and what they produced."""
    files = [file for home in chosen for file in home.files]
    urls = [f"{url}/{file.relative_to(root)}" for file in files]

    async def fetch() -> list[bytes]:
        async with HttpTransport(settings) as fetcher:
            answers = await asyncio.gather(*(fetcher.fetch(u) for u in urls))
        return [answer.body or b"" for answer in answers]

    scorer = open_engine(bundle, settings)
    fetch_cpu, fetch_wall, bodies = cpu(lambda: asyncio.run(fetch()))
    # As the job does it, on all cores: threads that share a core each take more CPU-seconds than one alone.
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        decode_cpu, decode_wall, decoded = cpu(
            lambda: list(pool.map(lambda b: decode(b, bundle.preprocessings, settings.max_pixels), bodies))
        )
    pixels = [d.pixels for d in decoded]
    scorer.score(pixels[:BATCH])  # warm
    size = scorer.batch_size
    batches = [pixels[i : i + size] for i in range(0, len(pixels), size)]
    with lane_pool(scorer) as pool:
        score_cpu, score_wall, scored = cpu(lambda: list(pool.map(scorer.score, batches)))
    scores = [s for batch in scored for s in batch]
    results = [
        PhotoResult(Photo(n, u, str(n), u), PhotoStatus.OK, str(n), PhotoScore(str(n), d.dhash, scores_of(s)))
        for n, (u, d, s) in enumerate(zip(urls, decoded, scores, strict=True))
    ]
    by_home: list[list[PhotoResult]] = []
    start = 0
    for home in chosen:
        by_home.append(results[start : start + len(home.files)])
        start += len(home.files)
    aggregate_cpu, aggregate_wall, _ = cpu(
        lambda: [aggregate(bundle, r, settings.min_photos_false) for r in by_home]
    )
    count = len(files)
    return {
        "fetch": (fetch_cpu / count, fetch_wall / count),
        "decode": (decode_cpu / count, decode_wall / count),
        "score": (score_cpu / count, score_wall / count),
        "aggregate": (aggregate_cpu / count, aggregate_wall / count),
    }


def seeded(database_url: str, chosen: list[Home], url: str, root: Path) -> None:
    """Fill the portal's tables with these homes."""
    engine = create_engine(parse_url(database_url))
    rows = [
        {"id": home.id, "position": n, "url": f"{url}/{file.relative_to(root)}"}
        for home in chosen
        for n, file in enumerate(home.files)
    ]
    with engine.begin() as connection:
        connection.execute(
            text("INSERT INTO listings VALUES (:id, now())"), [{"id": home.id} for home in chosen]
        )
        connection.execute(text("INSERT INTO listing_images VALUES (:id, :position, :url)"), rows)
    engine.dispose()


def straightforward(
    chosen: list[Home], url: str, root: Path, settings: Settings, bundle: Bundle, batch: int
) -> float:
    """Photos per second of the script that one would write first: download, transform, score, write, next.

    In fp32; one photo at a time with `batch` 1, else batches of one home's photos. It writes one document at
    a time, and knows no retries, no state and no near-duplicates.
    """
    bundle = bundle.at("fp32")
    member = bundle.members[0]
    spec = member.preprocessing
    transform = transforms.Compose(
        [
            transforms.Resize(spec.size, interpolation=transforms.InterpolationMode.BICUBIC),
            transforms.ToTensor(),
        ]
    )
    scorer = TorchEngine(bundle, settings.device)
    write = _document_writer(settings)
    session = requests.Session()
    start, photos = time.perf_counter(), 0
    for home in chosen:
        scores: list[dict[str, Any]] = []
        pending: list[tuple[np.ndarray[Any, Any]]] = []
        for n, file in enumerate(home.files):
            answer = session.get(f"{url}/{file.relative_to(root)}", timeout=30)
            with tempfile.TemporaryFile() as copy:
                copy.write(answer.content)
                picture = Image.open(copy).convert("RGB")
                tensor = transform(picture)
            pending.append(((tensor * 255).round().to(torch.uint8).permute(1, 2, 0).contiguous().numpy(),))
            if len(pending) == batch or n == len(home.files) - 1:
                scores += scorer.score(pending)
                pending = []
            photos += 1
        best = {
            head.name: max(float(head.probabilities(s[member.model_id].scores[head.name])[0]) for s in scores)
            for head in member.heads
            if head.kind == "binary"
        }
        write(str(home.id), {f"has_{name}": chance > 0.5 for name, chance in best.items()})
    return photos / (time.perf_counter() - start)


def _document_writer(settings: Settings) -> Callable[[str, dict[str, Any]], None]:
    if settings.elasticsearch_url is None:
        return lambda id, document: None
    from elasticsearch import Elasticsearch

    client = Elasticsearch(settings.elasticsearch_url.get_secret_value())
    name = f"straightforward-{uuid4().hex[:8]}"
    return lambda id, document: client.index(index=name, id=id, document=document) and None


def whole_job(
    chosen: list[Home], url: str, root: Path, base: Settings, home: Path
) -> tuple[float, float, Any]:
    """Photos per second of a whole run (discovery, model loading and publishing included)."""
    database_url = fresh_database(home)
    seeded(database_url, chosen, url, root)
    settings = load_settings(
        **base.model_dump(exclude={"database_url", "index"}),
        database_url=database_url,
        index=f"bench-{uuid4().hex[:8]}",
    )
    spent, wall, report = cpu(lambda: run(settings, RunOptions(), Stop()))
    assert report.exit_code == 0 and report.figures.failures.total() == 0, report.as_json()
    return report.figures.photos / wall, spent / report.figures.photos, report


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--photos", type=Path, default=Path("../shared/photos"))
    parser.add_argument("--homes", type=int, default=60)
    parser.add_argument("--slow-homes", type=int, default=12, help="homes for the one-at-a-time script")
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--bundle", type=Path, default=STARTER_BUNDLE)
    options = parser.parse_args()
    root = options.photos.resolve()
    chosen = homes(root, options.homes)
    count = sum(len(home.files) for home in chosen)
    cores = len(os.sched_getaffinity(0))
    settings = load_settings(bundle=options.bundle, allowed_private_hosts=("127.0.0.1",))
    bundle = choose(load_bundle(options.bundle), settings).bundle
    cuda = torch.cuda.is_available()
    with server() as home, photo_host(root) as (url, host_cpu):
        before = host_cpu()
        say(f"{count} photos: stages alone")
        alone = stages_alone(chosen, url, root, settings, bundle)
        host = (host_cpu() - before) / count
        say("the whole job")
        variants = [settings] + [settings.model_copy(update=update) for update in ON_TORCH.values()]
        rounds = [
            [whole_job(chosen, url, root, each, home) for each in variants] for _ in range(options.repeat)
        ]
        jobs = [
            [statistics.median(each) for each in zip(*(one[n][:2] for one in rounds), strict=True)]
            for n in range(len(variants))
        ]
        say("straightforward scripts")
        slow = straightforward(chosen[: options.slow_homes], url, root, settings, bundle, 1)
        batched = straightforward(chosen, url, root, settings, bundle, BATCH)
    per_photo = sum(c for c, _ in alone.values()) + host
    ideal = 1 / max(w for _, w in alone.values()) if cuda else cores / per_photo
    print(
        f"{count} photos of {len(chosen)} homes; {cores} cores; {processor()}; {'CUDA' if cuda else 'CPU'}, "
    )
    engine = f"{type(open_engine(bundle, settings)).__name__} in {bundle.arithmetic}"
    print(f"{engine}; load before: {os.getloadavg()[0]:.1f}\n")
    stages = [[name, f"{1000 * used:.2f}", f"{1000 * wall:.2f}"] for name, (used, wall) in alone.items()]
    stages.append(["(photo host)", f"{1000 * host:.2f}", ""])
    print(table(["stage alone", "CPU ms per photo", "ms per photo"], stages) + "\n")
    (speed, spent), *on_torch = jobs
    others = {
        **{name: (s, f"{1000 * used:.1f}") for name, (s, used) in zip(ON_TORCH, on_torch, strict=True)},
        "ideal": (ideal, ""),
        "straightforward, one at a time, fp32": (slow, ""),
        "straightforward, batched": (batched, ""),
    }
    rows = [[f"whole job (median of {options.repeat})", f"{speed:.1f}", f"{1000 * spent:.1f}", ""]]
    rows += [[name, f"{s:.1f}", used, f"{speed / s:.2f}"] for name, (s, used) in others.items()]
    print(table(["", "photos/s", "CPU ms per photo", "whole job against it"], rows))


def processor() -> str:
    flags = ""
    info = Path("/proc/cpuinfo")
    name = platform.processor() or "unknown CPU"
    if info.exists():
        content = info.read_text()
        names = [
            line.split(":", 1)[1].strip() for line in content.splitlines() if line.startswith("model name")
        ]
        name = names[0] if names else name
        known = [flag for flag in ("amx_bf16", "avx512_bf16", "avx512f", "avx2") if flag in content.split()]
        flags = f" ({', '.join(known)})"
    return name + flags


if __name__ == "__main__":
    main()
