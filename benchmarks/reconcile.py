"""Seconds and memory of `enrich reconcile` over an index in which all is well but a few documents.

    python benchmarks/reconcile.py [--listings 20000 100000]

For each size: a portal with two photos per listing, a state in which all are enriched, and a real
Elasticsearch (`ELASTICSEARCH_URL`, else a server of the benchmark's own), filled by publishing. Then two
documents are deleted, two altered, and two are added that no listing owns. Each reconcile is a process of its
own, so its peak of memory is its own; the line beside it is publishing's, in the same run.
"""

import argparse
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from bench_database import execute, fill, fresh_database, server
from elasticsearch import Elasticsearch
from publishing import elasticsearch

from enrich.settings import load_settings
from enrich.source.discover import discover
from enrich.source.portal import Source
from enrich.state.database import Database
from training.markdown import table

ENRICHED = """
UPDATE enrichment.listing SET status = 'done', photo_fp_done = photo_fp, updated_at_done = updated_at,
  bundle_id = md5('bundle'), enriched_at = now(), revision = 1700000000000000 + id::bigint, priority = 0,
  attributes = jsonb_build_object(
    'fields', jsonb_build_object(
      'has_balcony', id::bigint % 3 = 0, 'balcony_confidence', id::bigint % 997 / 997.0,
      'has_fireplace', id::bigint % 7 = 0, 'fireplace_confidence', id::bigint % 991 / 991.0,
      'room_types', jsonb_build_array('bathroom', 'bedroom', 'kitchen')),
    'evidence', jsonb_build_object('balcony', jsonb_build_object(
      'url', 'https://img.example/' || id || '/1.jpg', 'position', 1,
      'confidence', id::bigint % 997 / 997.0)),
    'counts', jsonb_build_object('room_counts', jsonb_build_object('kitchen', 2, 'bathroom', 1)),
    'photo_count', 25, 'photos_seen', 24, 'photos_failed', 1)
"""
MEASURED = """
import resource, sys
from jobs.cli.guard import guarded
from jobs.cli.commands import app
code = guarded(app)
peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
sys.stderr.write(f"peak {peak // 1024}")
sys.exit(code)
"""


def enrich(environment: dict[str, str], *arguments: str) -> tuple[dict[str, Any], float, int]:
    """What a command printed with --json, its seconds and its peak of memory in MB."""
    start = time.perf_counter()
    command = [sys.executable, "-c", MEASURED, *arguments, "--json"]
    ran = subprocess.run(command, env=environment, capture_output=True, text=True)
    seconds = time.perf_counter() - start
    if ran.returncode not in (0, 1):
        sys.exit(ran.stderr)
    peak = int(ran.stderr.rpartition("peak ")[2])
    print(f"{' '.join(arguments)}: {seconds:.1f} s, {peak} MB", file=sys.stderr, flush=True)
    return json.loads(ran.stdout), seconds, peak


def measured(home: Path, elasticsearch_url: str, listings: int) -> list[list[str]]:
    url = fresh_database(home)
    fill(url, listings, 2, "https://img.example/{listing}/{photo}.jpg")
    index = f"bench-{listings}"
    given = {"DATABASE_URL": url, "ELASTICSEARCH_URL": elasticsearch_url, "ENRICH_INDEX": index}
    environment = {**os.environ, **given, "ENRICH_INDEX_COLUMNS": "city,price"}
    settings = load_settings(database_url=url, index_columns=("city", "price"))
    database = Database(url)
    discover(Source(database, settings), database, settings, 1)
    database.close()
    execute(url, ENRICHED, "ANALYZE")
    published, publishing_seconds, publishing_peak = enrich(environment, "publish")
    assert published["documents"]["written"] == listings
    client = Elasticsearch(elasticsearch_url, request_timeout=60)
    for id in (1, listings // 2):
        client.delete(index=index, id=str(id))
    for id in (2, listings - 1):
        client.update(index=index, id=str(id), doc={"has_balcony": None})
    for id in ("x", "y"):
        client.index(index=index, id=id, document={"city": "Nowhere"})
    found, seconds, peak = enrich(environment, "reconcile")
    kinds = {kind: found["reconciled"][kind]["count"] for kind in ("missing", "stale", "orphaned", "altered")}
    assert kinds == {"missing": 2, "stale": 0, "orphaned": 2, "altered": 2}, kinds
    _, fix_seconds, fix_peak = enrich(environment, "reconcile", "--fix")
    well, again, again_peak = enrich(environment, "reconcile")
    assert well["reconciled"]["missing"]["count"] == 0
    client.indices.delete(index=next(iter(client.indices.get(index=index))))
    client.close()
    return [
        [
            f"{listings:,}",
            what,
            f"{its:.1f}",
            f"{listings / its:,.0f}",
            f"{its / publishing_seconds:.2f}",
            f"{memory}",
        ]
        for what, its, memory in (
            ("publishing all of it", publishing_seconds, publishing_peak),
            ("reconcile, six documents differ", seconds, peak),
            ("reconcile --fix", fix_seconds, fix_peak),
            ("reconcile, all is well", again, again_peak),
        )
    ]


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--listings", type=int, nargs="+", default=[20_000, 100_000])
    options = parser.parse_args()
    rows: list[list[str]] = []
    with server() as home, elasticsearch() as elasticsearch_url:
        for listings in options.listings:
            rows += measured(home, elasticsearch_url, listings)
    heads = ["listings", "", "seconds", "listings/s", "seconds against publishing", "peak memory, MB"]
    print(f"{os.cpu_count()} cores\n")
    print(table(heads, rows))


if __name__ == "__main__":
    main()
