"""A database that an earlier version filled, carried over: up, worked on, down, and up again."""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import migrations
from enrich.model.bundle import Bundle, load_bundle
from enrich.model.writing import write_bundle
from enrich.settings import STARTER_BUNDLE, load_settings
from enrich.state.database import Database
from enrich.state.listings import Listings
from enrich.state.schema import SCHEMA, SCHEMA_VERSION
from enrich.state.summary import details
from jobs.demo.homes import COLUMNS
from jobs.run.nightly import RunOptions, run
from jobs.run.record import RunReport
from jobs.run.stop import Stop
from tests.integration.test_migrations import CATALOGUE
from tests.support.enriched import expire
from tests.support.postgres import Portal

DUMP = Path(__file__).parents[1] / "data" / "demo-r0001.sql"
HEADS = DUMP.with_name("demo-r0001-heads.json")
"""How the bundle of then reads its models' answers."""
MADE_WITH = "80a5b94f5d40a468b8d3c71ba805c0a33c34c83f94fc6b5ab276fa9c94892158"
SCORED_BY = "f0cf3dc46d39abbe8b71a29b961294e07a5a910474e75f17df769b8bf2d4da01"
HELD, LEFT, RETRIED = "listing-03", "listing-05", "listing-07"
TABLES = "SELECT tablename FROM pg_tables WHERE schemaname = :schema ORDER BY tablename"


@pytest.fixture
def bundle(tmp_path: Path) -> Bundle:
    """It reads scores as the bundle of then did, on other weights: no photo is scored here."""
    starter = load_bundle(STARTER_BUNDLE)
    member = {**starter.manifest["members"][0], "heads": json.loads(HEADS.read_text())}
    del member["arithmetics"]
    tensors = {member["weights"]: starter.tensors(starter.members[0])}
    return write_bundle(tmp_path / "bundle", {"name": "of then", "members": [member]}, tensors)


@pytest.fixture
def demo(database_url: str, bundle: Bundle) -> Iterator[Portal]:
    """What `enrich demo --keep` left at 0001, with one home in a live worker's hands, one in a dead one's."""
    portal = Portal(database_url)
    connection = portal.engine.raw_connection()
    now = {MADE_WITH: bundle.bundle_id, SCORED_BY: bundle.members[0].model_id}
    connection.cursor().execute(re.sub("|".join(now), lambda then: now[then[0]], DUMP.read_text()))
    connection.commit()
    connection.close()
    portal.engine.dispose()  # the dump has changed the session's settings
    lease = (
        f"UPDATE {SCHEMA}.listing SET status = 'leased', attempts = 1, lease_token = gen_random_uuid(),"
        " lease_expires = now() + CAST(:left AS interval) WHERE id = :id"
    )
    portal.execute(lease, id=HELD, left="1 hour")
    portal.execute(lease, id=LEFT, left="-1 hour")
    retried = f"UPDATE {SCHEMA}.listing SET status = 'retry', not_before = now() + interval '1 hour'"
    portal.execute(f"{retried} WHERE id = :id", id=RETRIED)
    yield portal
    portal.engine.dispose()


def content(portal: Portal, *besides: str) -> dict[str, list[Any]]:
    """All rows of all our tables (`besides` these), as JSON."""
    found = {}
    for (table,) in portal.execute(TABLES, schema=SCHEMA):
        if table not in besides:
            rows = portal.execute(f"SELECT to_jsonb(t) AS row FROM {SCHEMA}.{table} AS t ORDER BY 1")
            found[table] = [row.row for row in rows]
    return found


def enrich(portal: Portal, home: Path, bundle: Bundle) -> RunReport:
    settings = load_settings(
        database_url=portal.url,
        home=home,
        bundle=bundle.folder,
        index_columns=COLUMNS,
        allowed_private_hosts=("127.0.0.1",),
        precision="fp32",
    )
    return run(settings, RunOptions(), Stop())


def test_leases_and_photos_are_carried_over(demo: Portal) -> None:
    before = {row["id"]: row for row in content(demo)["listing"]}
    assert migrations.upgrade(demo.url) == SCHEMA_VERSION
    held = {
        (row.listing_id, row.key)
        for row in demo.execute(f"SELECT listing_id, key FROM {SCHEMA}.listing_photo")
    }
    assert len(held) > 12
    assert held == {(id, photo["key"]) for id, row in before.items() for photo in row["photos"]}

    database = Database(demo.url)
    for id in (HELD, LEFT):
        found = details(database, id).listing
        assert found["status"] == "leased" and str(found["lease_token"]) == before[id]["lease_token"]
    queue = Listings(database, lease_seconds=60, max_attempts=5)
    assert [claim.id for claim in queue.claim(10, alone=True)] == [LEFT], "the other lease still holds"
    assert queue.claim(10) == queue.claim(10, alone=True) == []
    database.close()


def test_nothing_is_fetched_scored_or_published_again(demo: Portal, bundle: Bundle, tmp_path: Path) -> None:
    documents = content(demo)["document"]
    assert len(documents) == 12
    migrations.upgrade(demo.url)
    expire(demo)
    report = enrich(demo, tmp_path, bundle)
    assert report.discovery is not None and report.discovery.unchanged == 12
    assert (report.figures.listings, report.figures.bytes, report.figures.scored) == (2, 0, 0)
    assert report.published.written == report.published.removed == 0
    assert content(demo)["document"] == documents
    statuses = demo.execute(f"SELECT status, count(*) FROM {SCHEMA}.listing GROUP BY status ORDER BY status")
    assert statuses == [("done", 11), ("retry", 1)]


def test_down_restores_what_was_there_and_up_carries_it_over_again(demo: Portal) -> None:
    catalogue, before = demo.execute(CATALOGUE), content(demo)
    migrations.upgrade(demo.url)
    upgraded = demo.execute(CATALOGUE), content(demo, "worker")
    migrations.downgrade(demo.url, "0001")
    assert (demo.execute(CATALOGUE), content(demo)) == (catalogue, before)
    migrations.upgrade(demo.url)
    assert (demo.execute(CATALOGUE), content(demo, "worker")) == upgraded


def test_down_after_work_keeps_the_leases_time(demo: Portal) -> None:
    migrations.upgrade(demo.url)
    database = Database(demo.url)
    queue = Listings(database, lease_seconds=60, max_attempts=5)
    (claim,) = queue.claim(1, alone=True)
    expires = demo.execute(f"SELECT max(expires) FROM {SCHEMA}.worker WHERE pid <> 0")
    migrations.downgrade(demo.url, "0001")
    left = f"SELECT lease_expires FROM {SCHEMA}.listing WHERE id = :id AND lease_token = CAST(:token AS uuid)"
    assert demo.execute(left, id=claim.id, token=claim.token) == expires
    database.close()
