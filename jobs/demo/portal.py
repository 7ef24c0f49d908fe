"""A small portal's database: its tables, filled with the demo's homes."""

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from sqlalchemy import Connection, create_engine, text

from enrich.state.database import parse_url
from enrich.state.embedded import embedded_postgres
from jobs.demo.homes import COLUMNS, Home

_PASSING = "enrich_demo"
_STALE = rf"^{_PASSING}_\d+$"
_DROP = 'DROP DATABASE IF EXISTS "{}" WITH (FORCE)'

_TABLES = """
    CREATE TABLE listings (
        id text PRIMARY KEY, updated_at timestamptz NOT NULL DEFAULT now(), active boolean,
        title text, city text, price integer, rooms integer
    );
    CREATE TABLE listing_images (
        listing_id text NOT NULL REFERENCES listings, position integer NOT NULL, url text NOT NULL
    );
    CREATE INDEX ON listing_images (listing_id);
"""


@contextmanager
def portal(home: Path, keep: bool) -> Iterator[str]:
    """A fresh database with the portal's empty tables, in the embedded server under `home`; yields its URL.

    With `keep` it is the server's main database, so that any command finds it with `ENRICH_HOME` set to
    `home`. Else it is dropped at the end, and demos at the same time do not meet.
    """
    main = parse_url(embedded_postgres(home))
    name = str(main.database) if keep else f"{_PASSING}_{os.getpid()}"
    admin = create_engine(main.set(database="postgres"), isolation_level="AUTOCOMMIT")
    try:
        with admin.connect() as connection:
            for stale in {name, *_left_behind(connection)}:
                connection.exec_driver_sql(_DROP.format(stale))
            connection.exec_driver_sql(f'CREATE DATABASE "{name}"')
        url = main.set(database=name)
        tables = create_engine(url)
        with tables.begin() as connection:
            connection.exec_driver_sql(_TABLES)
        tables.dispose()
        yield url.render_as_string(hide_password=False)
    finally:
        if not keep:
            with admin.connect() as connection:
                connection.exec_driver_sql(_DROP.format(name))
        admin.dispose()


def _left_behind(connection: Connection) -> list[str]:
    """Databases of demos that were killed."""
    found = connection.execute(
        text("SELECT datname FROM pg_database WHERE datname ~ :like"), {"like": _STALE}
    )
    return [name for name in found.scalars() if not _alive(int(name.rpartition("_")[2]))]


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:  # another user's
        return True
    return True


def fill(url: str, homes: Sequence[Home], photo_urls: Mapping[Path, str]) -> None:
    """Put the homes on the market, with the URLs of their pictures."""
    listings = [{"id": home.id, **{name: home.columns.get(name) for name in COLUMNS}} for home in homes]
    images = [
        {"id": home.id, "position": photo.position, "url": photo_urls[photo.file]}
        for home in homes
        for photo in home.photos
    ]
    engine = create_engine(parse_url(url))
    with engine.begin() as connection:
        connection.execute(
            text(
                "INSERT INTO listings (id, title, city, price, rooms)"
                " VALUES (:id, :title, :city, :price, :rooms)"
            ),
            listings,
        )
        connection.execute(
            text("INSERT INTO listing_images (listing_id, position, url) VALUES (:id, :position, :url)"),
            images,
        )
    engine.dispose()
