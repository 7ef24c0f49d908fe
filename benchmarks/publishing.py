"""Documents per second of publishing, against `elasticsearch.helpers.parallel_bulk` with the same documents.

    python benchmarks/publishing.py [--documents 20000] [--repeat 5]

Both fill an index of their own with the same mapping and settings, in turns within one run, on a real
Elasticsearch (`ELASTICSEARCH_URL`, else a server of the benchmark's own). `parallel_bulk` gets the documents
ready made in memory, with its own defaults (four threads, 500 documents a bulk) and external versions;
publishing reads them from the outbox in Postgres, makes them, and records what came of each.
"""

import argparse
import gc
import os
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from uuid import uuid4

from bench_database import cpu_seconds, execute, fresh_database, server
from elasticsearch import Elasticsearch
from elasticsearch.helpers import parallel_bulk

from enrich.index.document import build
from enrich.index.elastic.own import OwnIndex
from enrich.index.open import connect
from enrich.index.publish import Publisher
from enrich.model.bundle import load_bundle
from enrich.settings import STARTER_BUNDLE, load_settings
from enrich.state.database import Database
from enrich.state.outbox import Outbox
from training.markdown import table

COPIED = {"city": "keyword", "price": "long", "area": "double", "listed_on": "date"}
ENRICHED = """
INSERT INTO enrichment.listing
  (id, photo_fp, doc_fp, status, bundle_id, enriched_at, revision, columns, attributes)
SELECT n::text, md5(n::text), md5(n::text), 'done', md5('bundle'), now(), 1700000000000000 + n,
  jsonb_build_object('city', 'Town ' || n % 300, 'price', 1000000 + n, 'area', 40 + n % 100 + .5,
    'listed_on', '2026-11-01T08:00:00Z'),
  jsonb_build_object(
    'fields', jsonb_build_object('has_balcony', n % 3 = 0, 'balcony_confidence', n % 997 / 997.0,
      'has_fireplace', n % 7 = 0, 'fireplace_confidence', n % 991 / 991.0,
      'room_types', jsonb_build_array('kitchen', 'bathroom', 'bedroom')),
    'evidence', jsonb_build_object(
      'balcony', jsonb_build_object('url', 'https://img.example/' || n || '/1.jpg', 'position', 1,
        'confidence', n % 997 / 997.0),
      'fireplace', jsonb_build_object('url', 'https://img.example/' || n || '/2.jpg', 'position', 2,
        'confidence', n % 991 / 991.0)),
    'counts', jsonb_build_object('room_counts', jsonb_build_object('kitchen', 2, 'bathroom', 1)),
    'photo_count', 25, 'photos_seen', 24, 'photos_failed', 1)
FROM generate_series(1, {documents}) n
"""


@contextmanager
def elasticsearch() -> Iterator[str]:
    """The URL of a server."""
    if url := os.environ.get("ELASTICSEARCH_URL"):
        yield url
        return
    sys.path.append(str(Path(__file__).resolve().parents[1]))
    from tests.support.search_server import VERSIONS, ElasticsearchServer

    own = ElasticsearchServer(VERSIONS[0])
    try:
        own.start()
        yield own.url
    finally:
        own.close()


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--documents", type=int, default=20_000)
    parser.add_argument("--repeat", type=int, default=5)
    options = parser.parse_args()
    bundle = load_bundle(STARTER_BUNDLE)
    with server() as home, elasticsearch() as elasticsearch_url:
        url = fresh_database(home)
        execute(url, ENRICHED.format(documents=options.documents), "ANALYZE")
        settings = load_settings(database_url=url, elasticsearch_url=elasticsearch_url)
        database, client = Database(url), Elasticsearch(elasticsearch_url, request_timeout=60)
        version = client.cluster.stats()["nodes"]["versions"][0]

        def fresh(name: str) -> tuple[OwnIndex, Outbox]:
            """A new, empty index that everything waits for."""
            index, outbox = OwnIndex(connect(settings), name, bundle.heads, COPIED), Outbox(database)
            outbox.set_target(name, "own", index.prepare())
            execute(url, "ANALYZE enrichment.publication")
            return index, outbox

        def ours() -> Callable[[], None]:
            name = f"ours-{uuid4().hex[:8]}"
            index, outbox = fresh(name)
            publisher = Publisher(outbox, index, bundle, settings.model_copy(update={"index": name}))

            def work() -> None:
                publisher.publish()
                assert publisher.figures.written == options.documents, publisher.figures

            return work

        def theirs() -> Callable[[], None]:
            name = f"theirs-{uuid4().hex[:8]}"
            fresh(name)

            def work() -> None:
                done = parallel_bulk(client, ({"_index": name, **action} for action in actions))
                assert sum(ok for ok, _ in done) == options.documents

            return work

        _, outbox = fresh("documents")
        rows = outbox.unpublished(None, options.documents)
        actions: list[dict[str, Any]] = [
            {"_id": r.id, "version": r.revision, "version_type": "external"}
            | {"_source": build(r, bundle.heads, "own")}
            for r in rows
        ]
        del rows
        gc.collect()
        gc.freeze()  # no collection of either walks through the documents that are held ready
        spent: dict[str, list[tuple[float, float]]] = {"publishing": [], "parallel_bulk": []}
        for turn in range(options.repeat + 1):
            for name, prepare in (("publishing", ours), ("parallel_bulk", theirs)):
                work = prepare()
                cpu, start = cpu_seconds(home), time.perf_counter()
                work()
                if turn:  # the first warms Elasticsearch up
                    spent[name].append((time.perf_counter() - start, cpu_seconds(home) - cpu))
                client.indices.delete(index=list(client.indices.get(index="ours-*,theirs-*")))
        database.close()
        client.close()
    print(f"{options.documents:,} documents, Elasticsearch {version}, {os.cpu_count()} cores\n")
    medians = {
        name: [statistics.median(each) for each in zip(*all, strict=True)] for name, all in spent.items()
    }
    best = medians["parallel_bulk"][0]
    print(
        table(
            ["", "documents/s", "CPU ms per document", "speed against parallel_bulk"],
            [
                [
                    name,
                    f"{options.documents / s:,.0f}",
                    f"{1000 * cpu / options.documents:.2f}",
                    f"{best / s:.2f}",
                ]
                for name, (s, cpu) in medians.items()
            ],
        )
    )


if __name__ == "__main__":
    main()
