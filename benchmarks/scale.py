"""Photos per second of `enrich backfill --ray` at 1, 2, 4 and 8 nodes; bytes of state per photo and listing.

    python benchmarks/scale.py [--seconds 8]
    python benchmarks/scale.py --rows

The nodes are simulated on one machine: each has its fetcher and its scorer, in processes of their own. So
that the machine's cores are not what is measured, the photo host is slow (fetch-bound), or the engine sleeps
(score-bound); all else is as it is: Ray, transports, decoding, Postgres. The rate is taken from the first
save to the last, without the start of the actors.
"""

import argparse
import asyncio
import io
import os
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from random import Random

from bench_database import execute, fill, fresh_database, server
from completing import ADD, claims, result
from PIL import Image
from sqlalchemy import text

from enrich.model.bundle import Bundle, load_bundle
from enrich.model.engine import Pixels
from enrich.records import ListingResult, PhotoScore, Scores
from enrich.settings import STARTER_BUNDLE, Settings, load_settings
from enrich.source.discover import discover
from enrich.state.database import Database
from enrich.state.listings import Listings
from jobs.run.ahead import ScoredAhead
from jobs.run.cluster.connect import connected
from jobs.run.cluster.drive import score_ahead
from jobs.run.services import open_services
from jobs.run.stop import Stop
from training.markdown import table

NODES = (1, 2, 4, 8)
HOSTS = 16  # names of the photo host, so that they can be shared out
PER_NODE = 32.0  # photos/s that the slow part allows a node
REQUESTS = 16  # under way at once per node
BATCH = 8
SMALL = {"object_store_memory": 100_000_000, "include_dashboard": False}
# A save is of many photos: those of the first one came before the clock started.
RATE = text("""
    SELECT count(*) FILTER (WHERE checked_at > began) / extract(epoch FROM max(checked_at) - min(began))
    FROM photo, (SELECT min(checked_at) AS began FROM photo) AS first
""")


@dataclass(frozen=True)
class Sleeping:
    """An engine that takes its time and no core."""

    bundle: Bundle
    seconds: float
    lanes: int = 1
    batch_size: int = BATCH

    def start_lane(self) -> None: ...

    def score(self, batch: Sequence[Pixels]) -> list[dict[str, Scores]]:
        time.sleep(self.seconds * len(batch) / self.batch_size)
        return [
            {m.model_id: {head.name: (0.0,) * head.outputs for head in m.heads} for m in self.bundle.members}
            for _ in batch
        ]


def slow_engine(bundle: Bundle, settings: Settings) -> Sleeping:
    return Sleeping(bundle, BATCH / PER_NODE)


def fast_engine(bundle: Bundle, settings: Settings) -> Sleeping:
    return Sleeping(bundle, 0.0)


async def serve(delay: float) -> None:
    """A photo under every path, other bytes under each, `delay` seconds late; on 127.0.0.1 and following."""
    from aiohttp import web

    picture = io.BytesIO()
    Image.new("RGB", (160, 120), "white").save(picture, "JPEG")

    async def photo(request: web.Request) -> web.Response:
        await asyncio.sleep(delay)
        return web.Response(body=picture.getvalue() + str(request.url).encode(), content_type="image/jpeg")

    app = web.Application()
    app.router.add_get("/{path:.*}", photo)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    port = 0
    for number in range(1, HOSTS + 1):
        await web.TCPSite(runner, f"127.0.0.{number}", port).start()
        port = runner.addresses[0][1]
    print(port, flush=True)
    await asyncio.to_thread(sys.stdin.readline)


@contextmanager
def photo_host(delay: float) -> Iterator[int]:
    """The port of a photo host in a process of its own."""
    command = [sys.executable, __file__, "--serve", str(delay)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdin is not None and process.stdout is not None
        try:
            yield int(process.stdout.readline())
        finally:
            process.stdin.close()


def photos_per_second(address: str, settings: Settings, engine: object, listings: int, port: int) -> float:
    """The rate for listings with a photo at each of the hosts."""
    url = settings.database_url.get_secret_value()  # type: ignore[union-attr]
    execute(url, "TRUNCATE listings, listing_images")
    execute(url, "TRUNCATE enrichment.listing, enrichment.photo, enrichment.photo_score CASCADE")
    fill(url, listings, HOSTS, rf"http://127.0.0.{{photo}}\:{port}/{{listing}}.jpg")
    with open_services(settings, "backfill") as services:
        run_id = services.runs.start_run("backfill", services.bundle.bundle_id)
        discover(services.source, services.database, settings, run_id)
        report = ScoredAhead()
        with connected(address) as ray:
            score_ahead(ray, address, services, report, Stop(), engine=engine)  # type: ignore[arg-type]
        assert report.figures.fetched == report.figures.scored == listings * HOSTS, report.as_json()
        return float(services.database.run(lambda connection: connection.execute(RATE).scalar_one()))


def throughput(seconds: float) -> None:
    """Print photos per second at each number of nodes, fetch-bound and score-bound."""
    from ray.cluster_utils import Cluster

    cluster = Cluster(initialize_head=True, head_node_args={**SMALL, "num_cpus": 0})
    rows: list[list[str]] = []
    first: dict[str, float] = {}
    with server() as home, photo_host(REQUESTS / PER_NODE) as slow_port, photo_host(0.0) as fast_port:
        settings = load_settings(
            database_url=fresh_database(home),
            elasticsearch_url=None,
            allowed_private_hosts=("127.0.0.0/8",),
            fetch_concurrency=REQUESTS,
            fetch_per_host=REQUESTS,
            decode_threads=1,
            log_interval=3600.0,
        )
        cases = {"fetch-bound": (fast_engine, slow_port), "score-bound": (slow_engine, fast_port)}
        for nodes in NODES:
            while len(cluster.worker_nodes) < nodes:
                cluster.add_node(**SMALL, num_cpus=1)
            row = [str(nodes)]
            for case, (engine, port) in cases.items():
                listings = int(nodes * PER_NODE * seconds / HOSTS)
                rate = photos_per_second(cluster.address, settings, engine, listings, port)
                first.setdefault(case, rate)
                row += [f"{rate:.1f}", f"{rate / first[case]:.2f}", f"{rate / (nodes * PER_NODE):.2f}"]
            rows.append(row)
            print(table(HEADER, rows) + "\n", flush=True)
    cluster.shutdown()


HEADER = [
    "nodes",
    *(f"{case}: {what}" for case in ("fetch", "score") for what in ("photos/s", "x", "of ideal")),
]


def with_scores_of(bundle: Bundle, completed: ListingResult, random: Random) -> ListingResult:
    """A listing's result with scores as a bundle makes them."""
    results = []
    for each in completed.results:
        scores = {
            member.model_id: {
                head.name: tuple(random.gauss(0, 4) for _ in range(head.outputs)) for head in member.heads
            }
            for member in bundle.members
        }
        score = PhotoScore(each.sha256 or "", random.getrandbits(63), scores)
        results.append(replace(each, score=score))
    return replace(completed, results=tuple(results))


def bytes_of_state(listings: int, photos: int) -> None:
    """Print bytes per photo and per listing of our tables, indexes included, as completions leave them."""
    random, bundle = Random(0), load_bundle(STARTER_BUNDLE)
    with server() as home:
        url = fresh_database(home)
        execute(url, ADD.format(listings))
        database = Database(url)
        state = Listings(database, lease_seconds=86_400, max_attempts=5)
        for claim in list(claims(state)):
            assert state.complete([with_scores_of(bundle, result(claim, photos, 0), random)])
        execute(url, "ANALYZE")
        per = {
            "photo": photos,
            "photo_score": photos,
            "listing_photo": photos,
            "listing": 1,
            "publication": 1,
        }
        rows = []
        for name, count in per.items():
            size = text(
                f"SELECT pg_total_relation_size('enrichment.{name}'), count(*) FROM enrichment.{name}"
            )
            total, found = database.run(lambda connection, size=size: connection.execute(size).one())
            rows.append([f"`{name}`", str(found), f"{total / (listings * count):.0f}"])
        database.close()
    print(f"{listings:,} listings x {photos} photos\n")
    print(table(["table", "rows", "bytes per photo or listing"], rows))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--seconds", type=float, default=8.0, help="about how long each measurement works")
    parser.add_argument("--rows", action="store_true", help="measure bytes of state instead")
    parser.add_argument("--serve", type=float, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.serve is not None:
        asyncio.run(serve(options.serve))
    elif options.rows:
        bytes_of_state(1_000, 25)
    else:
        os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
        throughput(options.seconds)


if __name__ == "__main__":
    main()
