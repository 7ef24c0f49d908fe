"""The schema `enrichment`: up, down, by several hosts at once, and with few privileges."""

import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pytest
from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext

import migrations
from enrich.errors import SchemaError
from enrich.settings import load_settings
from enrich.source.discover import discover
from enrich.source.portal import Source
from enrich.state.database import Database, check_schema, parse_url
from enrich.state.schema import SCHEMA, SCHEMA_VERSION, VERSION_TABLE, metadata
from tests.support.postgres import Portal

CATALOGUE = f"""
SELECT c.relname, a.attname, format_type(a.atttypid, a.atttypmod), a.attnotnull,
       a.attcollation::regcollation::text, pg_get_expr(d.adbin, d.adrelid)
FROM pg_class c JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
LEFT JOIN pg_attrdef d ON d.adrelid = c.oid AND d.adnum = a.attnum
WHERE c.relnamespace = '{SCHEMA}'::regnamespace AND c.relkind IN ('r', 'S') AND c.relname <> '{VERSION_TABLE}'
UNION ALL
SELECT 'index', indexname, indexdef, NULL, NULL, NULL FROM pg_indexes
WHERE schemaname = '{SCHEMA}' AND tablename <> '{VERSION_TABLE}'
ORDER BY 1, 2"""


def test_migrations_and_the_code_describe_the_same_tables(migrated: Portal, database_url: str) -> None:
    other = Portal(database_url)
    other.execute(f"CREATE SCHEMA {SCHEMA}")
    metadata.create_all(other.engine)
    assert migrated.execute(CATALOGUE) == other.execute(CATALOGUE)
    other.engine.dispose()
    with migrated.engine.connect() as connection:
        options = {"include_schemas": True, "version_table": VERSION_TABLE, "version_table_schema": SCHEMA}
        options["include_name"] = lambda name, kind, _: kind != "schema" or name == SCHEMA
        assert compare_metadata(MigrationContext.configure(connection, opts=options), metadata) == []


def test_the_code_is_written_for_the_newest_version() -> None:
    assert migrations.head() == SCHEMA_VERSION


def test_up_down_and_up_again(portal: Portal) -> None:
    portal.add("a", ["http://x/1.jpg"])
    assert migrations.current(portal.url) is None
    assert migrations.upgrade(portal.url) == SCHEMA_VERSION
    first = portal.execute(CATALOGUE)
    assert migrations.upgrade(portal.engine) == SCHEMA_VERSION, "a second time changes nothing"
    migrations.downgrade(portal.url)
    assert migrations.current(portal.url) is None
    left = portal.execute(
        f"SELECT relname FROM pg_class WHERE relnamespace = '{SCHEMA}'::regnamespace"
        " AND relkind IN ('r', 'v')"
    )
    assert left == [(VERSION_TABLE,)]
    assert portal.execute("SELECT id, url FROM listings JOIN listing_images ON listing_id = id") == [
        ("a", "http://x/1.jpg")
    ]
    migrations.upgrade(portal.url)
    assert portal.execute(CATALOGUE) == first


@pytest.mark.parametrize("isolation", ["read committed", "repeatable read", "serializable"])
def test_hosts_that_start_at_once_migrate_once(database_url: str, isolation: str) -> None:
    portal = Portal(database_url)
    name = portal.engine.url.database
    portal.execute(f"ALTER DATABASE {name} SET default_transaction_isolation TO '{isolation}'")
    portal.engine.dispose()
    script = (
        "import sys, migrations; migrations.head(); print('ready', flush=True); sys.stdin.readline();"
        "print(migrations.upgrade(sys.argv[1]))"
    )
    hosts = [
        subprocess.Popen(
            [sys.executable, "-c", script, database_url],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for _ in range(4)
    ]
    for host in hosts:
        assert host.stdout is not None and host.stdout.readline() == "ready\n"
    for host in hosts:
        assert host.stdin is not None
        host.stdin.write("go\n")
        host.stdin.flush()
    assert [host.communicate() for host in hosts] == [(f"{SCHEMA_VERSION}\n", "")] * 4


def test_a_failed_migration_leaves_nothing(portal: Portal) -> None:
    portal.execute(f"CREATE SCHEMA {SCHEMA}; CREATE TABLE {SCHEMA}.document (mine int)")
    with pytest.raises(SchemaError, match='"document" already exists'):
        migrations.upgrade(portal.url)
    tables = portal.execute(f"SELECT relname FROM pg_class WHERE relnamespace = '{SCHEMA}'::regnamespace")
    assert tables == [("document",)]


def test_a_schema_of_a_newer_program_is_left_alone(migrated: Portal) -> None:
    migrated.execute(f"UPDATE {SCHEMA}.{VERSION_TABLE} SET version_num = '9999'")
    with pytest.raises(SchemaError, match=r"9999, .* update the program"):
        migrations.upgrade(migrated.url)


class TestFewPrivileges:
    """The role and the grants of docs/database.md, and nothing more."""

    @pytest.fixture
    def role(self, portal: Portal) -> Iterator[tuple[str, str]]:
        """(name, URL) of a role that may connect."""
        name = f"enrich_{portal.engine.url.database}"
        database = portal.engine.url.database
        portal.execute(f"CREATE ROLE {name} LOGIN PASSWORD 'x' NOSUPERUSER NOCREATEDB")
        portal.execute(
            f"REVOKE CREATE ON DATABASE {database} FROM PUBLIC; REVOKE CREATE ON SCHEMA public FROM PUBLIC"
        )
        url = parse_url(portal.url).set(username=name, password="x", drivername="postgresql")
        yield name, url.render_as_string(hide_password=False)
        portal.execute(f"DROP OWNED BY {name} CASCADE; DROP ROLE {name}")

    def test_a_schema_of_its_own_and_select_are_enough(self, portal: Portal, role: tuple[str, str]) -> None:
        name, url = role
        portal.execute(f"CREATE SCHEMA {SCHEMA} AUTHORIZATION {name}")
        portal.execute(f"GRANT SELECT ON listings, listing_images TO {name}")
        migrations.upgrade(url)
        database = Database(url)
        check_schema(database)
        portal.add("a", ["http://x/1.jpg"], city="Solna")
        settings = load_settings(index_columns=("city",))
        source = Source(database, settings)
        source.check()
        assert discover(source, database, settings, 1).new == 1
        assert portal.state("a").columns == {"city": "Solna"}
        database.close()
        migrations.downgrade(url)

    def test_without_a_schema_it_says_what_is_missing(self, role: tuple[str, str]) -> None:
        with pytest.raises(SchemaError, match=r"permission denied for database.*docs/database\.md"):
            migrations.upgrade(role[1])


class TestView:
    def enriched(self, portal: Portal, id: str, attributes: str | None, status: str = "done") -> None:
        portal.execute(
            f"INSERT INTO {SCHEMA}.listing (id, photo_fp, doc_fp, status, attributes, bundle_id, revision)"
            " VALUES (:id, '', '', :status, CAST(:attributes AS jsonb), 'b1', 7)",
            id=id,
            status=status,
            attributes=attributes,
        )

    def rows(self, portal: Portal) -> list[dict[str, Any]]:
        found = portal.execute(f"SELECT * FROM {SCHEMA}.listing_attributes ORDER BY id")
        return [dict(row._mapping) for row in found]

    def test_it_shows_live_listings_that_were_enriched(self, migrated: Portal) -> None:
        fields = '{"has_balcony": true, "balcony_confidence": 0.9, "room_types": ["kitchen"]}'
        self.enriched(migrated, "a", f'{{"fields": {fields}, "photo_count": 5}}')
        self.enriched(migrated, "b", '{"fields": {"room_types": [], "has_balcony": "?"}}', status="pending")
        self.enriched(migrated, "gone", f'{{"fields": {fields}}}', status="gone")
        self.enriched(migrated, "waiting", None)
        self.enriched(migrated, "null", "null")
        nothing: dict[str, Any] = {
            "has_balcony": None,
            "balcony_confidence": None,
            "has_fireplace": None,
            "fireplace_confidence": None,
            "room_types": [],
            "photo_count": None,
            "bundle": "b1",
            "revision": 7,
            "enriched_at": None,
        }
        found = {"has_balcony": True, "balcony_confidence": 0.9, "room_types": ["kitchen"], "photo_count": 5}
        assert self.rows(migrated) == [{"id": "a", **nothing, **found}, {"id": "b", **nothing}]

    def test_new_heads_come_in_and_nothing_that_stands_on_it_falls(self, migrated: Portal) -> None:
        role = f"indexer_{migrated.engine.url.database}"
        migrated.execute(f"CREATE ROLE {role}; GRANT SELECT ON {SCHEMA}.listing_attributes TO {role}")
        migrated.execute(
            "CREATE VIEW feed AS SELECT l.id, a.has_balcony FROM listings l"
            f" JOIN {SCHEMA}.listing_attributes a USING (id)"
        )
        pool = {"has_pool": "boolean", "pool_confidence": "double precision"}
        migrations.upgrade(migrated.url, {**pool, "room_types": "text[]", "style_types": "text[]"})
        self.enriched(
            migrated, "a", '{"fields": {"has_pool": false, "pool_confidence": 1, "style_types": ["x"]}}'
        )
        (row,) = self.rows(migrated)
        assert (row["has_pool"], row["pool_confidence"], row["style_types"]) == (False, 1.0, ["x"])
        assert row["has_balcony"] is None, "a column of a head that is no longer there stays, empty"
        granted = f"SELECT has_table_privilege('{role}', '{SCHEMA}.listing_attributes', 'SELECT')"
        assert migrated.execute(granted) == [(True,)]
        migrated.execute(f"DROP OWNED BY {role}; DROP ROLE {role}")


def test_what_is_published_is_carried_over_and_back(portal: Portal) -> None:
    migrations.upgrade(portal.url, revision="0001")
    portal.execute(f"INSERT INTO {SCHEMA}.target (name, mode, uuid) VALUES ('homes', 'own', 'uuid-1')")
    portal.execute(
        f"""INSERT INTO {SCHEMA}.listing
              (id, photo_fp, doc_fp, revision, published_revision, publish_status, publish_error)
            VALUES ('done', '', '', 5, 5, 'done', NULL), ('moved', '', '', 6, 5, 'done', NULL),
                   ('refused', '', '', 5, 4, 'refused', 'no'),
                   ('awaiting', '', '', 5, NULL, 'awaiting', NULL),
                   ('new', '', '', 5, NULL, NULL, NULL), ('bare', '', '', NULL, NULL, NULL, NULL)"""
    )
    before = portal.execute(f"SELECT id, published_revision, publish_error FROM {SCHEMA}.listing ORDER BY id")
    migrations.upgrade(portal.url)
    published = portal.execute(
        f"SELECT listing_id, revision, status, error, not_before FROM {SCHEMA}.publication ORDER BY 1"
    )
    assert published == [
        ("awaiting", None, "awaiting", None, None),
        ("done", 5, "done", None, None),
        ("moved", 5, "waiting", None, None),
        ("new", None, "waiting", None, None),
        ("refused", 4, "refused", "no", None),
    ]
    migrations.downgrade(portal.url, "0001")
    after = portal.execute(f"SELECT id, published_revision, publish_error FROM {SCHEMA}.listing ORDER BY id")
    assert after == before
    assert portal.execute(f"SELECT * FROM {SCHEMA}.target") == [("homes", "own", "uuid-1", True)]
    migrations.upgrade(portal.url)
    assert published == portal.execute(
        f"SELECT listing_id, revision, status, error, not_before FROM {SCHEMA}.publication ORDER BY 1"
    )
