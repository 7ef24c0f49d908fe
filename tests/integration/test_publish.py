"""Publishing on a real Postgres and a real Elasticsearch: what is sent how often in a run, and the next."""

import json
import logging
import re
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from threading import Barrier
from typing import Any

import pytest
from elasticsearch import Elasticsearch

from enrich.errors import IndexSetupError
from enrich.index.elastic.own import OwnIndex
from enrich.index.publish import Publisher
from enrich.model.bundle import load_bundle
from enrich.records import DocumentWrite, WriteStatus
from enrich.settings import load_settings
from enrich.state.database import Database
from enrich.state.outbox import Outbox, Refusal
from enrich.state.summary import summary
from tests.support.elasticsearch import reached
from tests.support.postgres import Portal, enqueue_moved
from tests.support.proxy import Answer, Proxy, Request

HOMES = 10_000
REFUSED = 100


@pytest.fixture
def index(elasticsearch_proxy: Proxy, index_name: str, tiny_bundle: Path) -> Iterator[OwnIndex]:
    heads = load_bundle(tiny_bundle).heads
    index = OwnIndex(reached(elasticsearch_proxy.url), index_name, heads, {"price": "long"})
    yield index
    index.close()


@pytest.fixture
def a_run(database: Database, index: OwnIndex, index_name: str, tiny_bundle: Path) -> Callable[[], Publisher]:
    """Makes the publisher of one run."""
    settings = load_settings(index=index_name, outage_seconds=30.0, _env_file=None)
    return lambda: Publisher(Outbox(database), index, load_bundle(tiny_bundle), settings)


def enriched(portal: Portal, count: int, wrong: int) -> None:
    """So many enriched listings, of which so many have a price that the mapping refuses."""
    portal.execute(
        "INSERT INTO enrichment.listing (id, photo_fp, doc_fp, status, attributes, columns, revision)"
        " SELECT 'home-' || n, '', '', 'done', '{\"fields\": {}}', jsonb_build_object('price',"
        " CASE WHEN n <= :wrong THEN to_jsonb('dear ' || n) ELSE to_jsonb(n) END), 1000 + n"
        " FROM generate_series(1, :count) n",
        count=count,
        wrong=wrong,
    )


def sent(proxy: Proxy) -> Counter[str]:
    """How often each document was sent since the proxy was asked last."""
    counted: Counter[str] = Counter()
    for request in proxy.sent("_bulk"):
        lines = [json.loads(line) for line in request.body.splitlines()]
        counted.update(line["index"]["_id"] for line in lines if "index" in line)
    proxy.requests.clear()
    return counted


def test_a_refused_document_is_sent_and_told_of_once_in_a_run(
    migrated: Portal,
    database: Database,
    elasticsearch_proxy: Proxy,
    a_run: Callable[[], Publisher],
    caplog: pytest.LogCaptureFixture,
) -> None:
    enriched(migrated, HOMES, REFUSED)
    with caplog.at_level(logging.INFO, "enrich"):
        publisher = a_run()
        for _ in range(4):
            publisher.publish()
        publisher.refusals.warn()
    counted = sent(elasticsearch_proxy)
    assert (len(counted), set(counted.values())) == (HOMES, {1})
    assert (publisher.figures.written, publisher.figures.refused) == (HOMES - REFUSED, REFUSED)
    told = [r for r in caplog.records if "the index refused" in r.message]
    by_listing = [r.message for r in told if r.levelno == logging.INFO]
    assert len(by_listing) == len(set(by_listing)) == REFUSED
    (warning,) = [r.message for r in told if r.levelno == logging.WARNING]
    assert (
        f"refused {REFUSED} documents" in warning
        and "failed to parse field [price] of type [long]" in warning
    )

    reason = "failed to parse field [price] of type [long] in document with id ..."
    assert summary(database).refusals == (Refusal(reason, REFUSED, "home-1"),)

    again = a_run()
    again.publish()
    again.publish()
    assert sent(elasticsearch_proxy) == Counter({f"home-{n}": 1 for n in range(1, REFUSED + 1)})
    assert (again.figures.written, again.figures.refused) == (0, REFUSED)


def test_a_refused_document_that_changes_is_sent_again_in_the_same_run(
    migrated: Portal, elasticsearch_proxy: Proxy, a_run: Callable[[], Publisher]
) -> None:
    enriched(migrated, 3, 1)
    publisher = a_run()
    publisher.publish()
    assert publisher.figures.refused == 1
    sent(elasticsearch_proxy)
    migrated.execute(
        "UPDATE enrichment.listing SET columns = '{\"price\": 1}', revision = revision + 1"
        " WHERE id = 'home-1'"
    )
    enqueue_moved(migrated, "home-1")
    publisher.publish()
    assert sent(elasticsearch_proxy) == Counter({"home-1": 1})
    assert (publisher.figures.written, publisher.figures.refused) == (3, 0)


def test_batches_are_under_way_side_by_side(
    migrated: Portal, elasticsearch_proxy: Proxy, a_run: Callable[[], Publisher]
) -> None:
    enriched(migrated, 2 * 500, 10)
    both = Barrier(2)  # broken where one waits for the answer to the other
    elasticsearch_proxy.before("_bulk", lambda: both.wait(60))
    publisher = a_run()
    publisher.publish()
    assert not both.broken
    assert (publisher.figures.written, publisher.figures.refused) == (990, 10)


def test_what_ends_one_batch_ends_the_waiting_of_another(
    migrated: Portal, elasticsearch_proxy: Proxy, a_run: Callable[[], Publisher]
) -> None:
    """One is put off, for as long as `outage_seconds`; the other is forbidden for good."""
    enriched(migrated, 2 * 500, 0)
    (first, *_) = sorted((f"home-{n}" for n in range(1, 1001)), key=str.encode)

    def answer(request: Request) -> Answer | None:
        if "_bulk" not in request.path:
            return None
        return Answer(503 if f'"{first}"' in request.body.decode() else 403, {"error": "so be it"})

    elasticsearch_proxy.answer = answer
    publisher = a_run()
    start = time.monotonic()
    with pytest.raises(IndexSetupError, match="forbids it"):
        publisher.publish()
    assert time.monotonic() - start < 15, "half of outage_seconds"
    elasticsearch_proxy.clear()
    publisher.publish()
    assert publisher.figures.written == 1000


def hide_versions(proxy: Proxy, client: Elasticsearch, index_name: str) -> None:
    """Conflicts are answered without the version that the index holds."""

    def answer(request: Request) -> Answer | None:
        if "_bulk" not in request.path:
            return None
        lines: Any = request.body.splitlines()
        answered = client.bulk(operations=lines, index=index_name, require_alias=True).body
        return Answer(
            200, json.loads(re.sub(r"current version \[\d+\][^\"]*", "another", json.dumps(answered)))
        )

    proxy.answer = answer


@pytest.mark.parametrize(
    ("ahead", "written", "refused"), [(-(10**12), 1, 0), (10**12, 0, 1)], ids=["of an hour ago", "to come"]
)
def test_a_version_that_the_index_does_not_tell_is_overtaken_in_one_step_or_left(
    migrated: Portal,
    elasticsearch_proxy: Proxy,
    elasticsearch_url: str,
    index: OwnIndex,
    index_name: str,
    a_run: Callable[[], Publisher],
    ahead: int,
    written: int,
    refused: int,
) -> None:
    index.prepare()
    held = int(time.time() * 1_000_000) + ahead  # a tombstone: its version is told by conflicts only
    assert index.write([DocumentWrite("home-1", held, None)])[0].status is WriteStatus.DONE
    enriched(migrated, 2, 0)
    with Elasticsearch(elasticsearch_url) as client:
        hide_versions(elasticsearch_proxy, client, index_name)
        publisher = a_run()
        publisher.publish()
        publisher.publish()
    assert sent(elasticsearch_proxy) == Counter({"home-1": 2, "home-2": 1})
    assert (publisher.figures.written, publisher.figures.refused) == (1 + written, refused)
    if written:
        assert migrated.state("home-1").published_revision > held
    else:
        assert "version conflict" in migrated.state("home-1").publish_error


def test_an_alias_that_takes_no_writes_ends_the_publish(
    migrated: Portal,
    elasticsearch_proxy: Proxy,
    index: OwnIndex,
    index_name: str,
    a_run: Callable[[], Publisher],
) -> None:
    enriched(migrated, 3, wrong=0)
    index.prepare()
    client = Elasticsearch(elasticsearch_proxy.url)
    (name,) = client.indices.get_alias(name=index_name)
    client.indices.put_alias(index=name, name=index_name, is_write_index=False)
    with pytest.raises(IndexSetupError, match="cannot be written to"):
        a_run().publish()
    client.indices.put_alias(index=name, name=index_name, is_write_index=True)
    again = a_run()
    again.publish()
    assert again.figures.written == 3
    client.close()


def test_a_document_without_a_column_is_marked_for_the_next_discovery_unless_that_put_it_right(
    migrated: Portal, database: Database
) -> None:
    enriched(migrated, 2, 0)
    migrated.execute("UPDATE enrichment.listing SET columns = '{}' WHERE id = 'home-2'")
    Outbox(database).cut(["home-1", "home-2"], {"price"})
    marked = migrated.execute("SELECT id FROM enrichment.listing WHERE doc_fp <> ''")
    assert marked == [("home-1",)]


def test_what_the_index_never_had_is_not_counted_as_removed(
    migrated: Portal, a_run: Callable[[], Publisher]
) -> None:
    """As of homes that were sold before the index was made or renamed."""
    enriched(migrated, 3, 0)
    take = "UPDATE enrichment.listing SET status = 'gone', revision = revision + 1 WHERE id = :id"
    migrated.execute(take, id="home-1")
    publisher = a_run()
    publisher.publish()
    assert (publisher.figures.written, publisher.figures.removed) == (2, 0)
    migrated.execute(take, id="home-2")
    enqueue_moved(migrated, "home-2")
    publisher.publish()
    assert (publisher.figures.written, publisher.figures.removed) == (2, 1)
