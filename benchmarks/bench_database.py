"""A portal of any size in a fresh database of an embedded server of the benchmark's own."""

import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from uuid import uuid4

import psutil
from sqlalchemy import create_engine, text

import migrations
from enrich.state.database import parse_url
from enrich.state.embedded import embedded_postgres

TABLES = """
CREATE TABLE listings (id integer PRIMARY KEY, updated_at timestamptz, city text, price integer);
CREATE TABLE listing_images (listing_id integer, position integer, url text, version text);
"""


@contextmanager
def server() -> Iterator[Path]:
    """The home folder of an embedded server, removed at the end."""
    home = Path(tempfile.mkdtemp(prefix="enrich-bench-"))
    try:
        embedded_postgres(home)
        yield home
    finally:
        shutil.rmtree(home, ignore_errors=True)


def postgres_seconds(home: Path) -> float:
    """CPU-seconds that the server has spent so far, for connections that have ended, too."""
    (pid_file,) = home.rglob("postmaster.pid")
    postmaster = psutil.Process(int(pid_file.read_text().split()[0]))
    ended = postmaster.cpu_times()
    spent = ended.children_user + ended.children_system
    for process in (postmaster, *postmaster.children()):
        with suppress(psutil.NoSuchProcess):
            times = process.cpu_times()
            spent += times.user + times.system
    return spent


def cpu_seconds(home: Path) -> float:
    """CPU-seconds that this process and the server have spent so far."""
    return time.process_time() + postgres_seconds(home)


def fresh_database(home: Path) -> str:
    """The URL of a new database with the portal's tables, empty, and our schema."""
    base = embedded_postgres(home)
    name = f"bench_{uuid4().hex[:8]}"
    engine = create_engine(parse_url(base), isolation_level="AUTOCOMMIT")
    with engine.connect() as connection:
        connection.exec_driver_sql(f"CREATE DATABASE {name}")
    engine.dispose()
    url = parse_url(base).set(drivername="postgresql", database=name).render_as_string(hide_password=False)
    execute(url, TABLES)
    migrations.upgrade(url)
    return url


def execute(url: str, *statements: str) -> None:
    """Run statements in one transaction."""
    engine = create_engine(parse_url(url))
    with engine.begin() as connection:
        for statement in statements:
            connection.execute(text(statement))
    engine.dispose()


def fill(url: str, listings: int, photos: int, photo_url: str) -> None:
    """Listings 1..n with `photos` images each; in `photo_url`, {listing} and {photo} are the numbers."""
    sql_url = photo_url.replace("{listing}", "' || l || '").replace("{photo}", "' || p || '")
    numbers = f"generate_series(1, {listings}) l"
    execute(
        url,
        f"INSERT INTO listings SELECT l, now(), 'Solna', l FROM {numbers}",
        f"INSERT INTO listing_images SELECT l, p, '{sql_url}' FROM {numbers}, generate_series(1, {photos}) p",
        "CREATE INDEX ON listing_images (listing_id)",
        "ANALYZE",
    )
