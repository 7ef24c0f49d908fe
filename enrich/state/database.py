"""Postgres: connecting, and running work that survives a restart of the server.

Everything here works behind transaction pooling (pgbouncer): a transaction is all that a piece of work may
rely on. There are no startup options, no session settings, no session locks.
"""

import logging
import random
import re
import time
from collections.abc import Callable, Sequence
from threading import Event
from typing import Any, TypeVar

import orjson
from sqlalchemy import URL, Connection, Executable, create_engine, make_url, text
from sqlalchemy.exc import ArgumentError, DBAPIError, InterfaceError, OperationalError, ProgrammingError

from enrich.errors import OutageError, SchemaError, SettingsError
from enrich.settings import Settings
from enrich.state.embedded import embedded_postgres
from enrich.state.explained import explained
from enrich.state.schema import SCHEMA, SCHEMA_VERSION, VERSION_TABLE

T = TypeVar("T")
log = logging.getLogger(__name__)
STOPPING = 1.0  # seconds of patience that are left when told to stop

_OUR_TRANSACTION = f"""SET LOCAL TIME ZONE 'UTC'; SET LOCAL search_path TO {SCHEMA};
    SET LOCAL idle_in_transaction_session_timeout TO '30s'"""  # a frozen process keeps nobody from its rows
_CONNECT: dict[str, str | int] = {  # the URL's own values win; none of these reaches the server as an option
    "connect_timeout": 10,
    "client_encoding": "utf8",  # whatever the server, the role or PGCLIENTENCODING say
    "fallback_application_name": "listing-enrichment",
    "keepalives_idle": 30,
    "keepalives_interval": 10,
    "keepalives_count": 3,
}

# States of the server, not of our statements. A class is two signs; the manual's appendix A lists them.
_PASSING = (
    "08",  # connection exceptions
    "25006",  # read-only: a primary that was demoted, or default_transaction_read_only
    "25P03",  # idle in transaction for too long
    "25P04",  # the transaction took too long
    "40001",  # serialization failure; on a replica also a conflict with recovery
    "40P01",  # deadlock
    "53",  # disk full, out of memory, too many connections
    "55P03",  # a lock was not to be had in time
    "57",  # shutdown, restart, or a statement cancelled by an administrator or a time limit
    "58",  # the system under the server: I/O errors and the like
)
READ_ONLY = "25006"
_PASSING_WORDS = re.compile(
    r"starting up|shutting down|in recovery|too many (clients|connections)|remaining connection slots"
    r"|not yet accepting connections|server_login_retry|server closed the connection",
    re.IGNORECASE,
)


class Database:
    """One Postgres database. `run` is how everything reads and writes it.

    Args:
        url: `postgresql://…` or `postgresql+psycopg2://…`.
        patience: seconds without an answer after which work is given up with `OutageError`.
        name: the setting that holds the URL, for messages.
        stop: when it is set, an outage is given up at once.

    Raises:
        SettingsError: the URL cannot be read. The URL itself is never shown: it may hold a password.
    """

    def __init__(
        self, url: str, *, patience: float = 600.0, name: str = "DATABASE_URL", stop: Event | None = None
    ) -> None:
        self.url = parse_url(url, name)
        self.name, self.patience = name, patience
        options = {name: value for name, value in _CONNECT.items() if name not in self.url.query}
        self.engine = create_engine(
            self.url, pool_pre_ping=True, connect_args=options, json_deserializer=orjson.loads
        )
        self._stop, self._given_up = stop or Event(), False

    @property
    def place(self) -> str:
        """Where the database is, without user and password."""
        host = self.url.host or self.url.query.get("host") or "the local socket"
        port = f":{self.url.port}" if self.url.port else ""
        return f"{host}{port}, database {self.url.database or '(default)'}"

    def run(self, work: Callable[[Connection], T], *, patience: float | None = None) -> T:
        """Run `work` in one transaction, with the time zone UTC, and commit it.

        Names without a schema are those of our own tables.

        After a lost connection, a restart of the server, a deadlock, or while the server takes no writes, it
        runs again, so `work` must be safe to repeat, also when a commit got through and only its answer was
        lost. Once an outage was given up, work is tried only once until some of it succeeds.

        Raises:
            OutageError: no success within `patience` seconds of the first failure (default: this database's).
        """
        patience = self.patience if patience is None else patience
        failing: float | None = None  # since when: work may take longer than an outage may
        delay = 0.05
        while True:
            try:
                with self.engine.begin() as connection:
                    connection.exec_driver_sql(_OUR_TRANSACTION)
                    done = work(connection)
                self._given_up = False
                return done
            except DBAPIError as error:
                if not passing(error):
                    raise
                failing = failing or time.monotonic()
                self._consider_giving_up(error, time.monotonic() - failing, delay, patience)
                log.warning(
                    "Postgres (%s): %s; trying again in %.1f s", self.name, self._reason(error), delay
                )
            (time.sleep if self._stop.is_set() else self._stop.wait)(delay * random.uniform(0.7, 1.0))
            delay = min(delay * 2, 5.0)

    def rows(self, statement: Executable, /, **given: Any) -> Sequence[Any]:
        """`run` one statement: what it answers."""
        return self.run(lambda connection: connection.execute(statement, given).all())

    def scalars(self, statement: Executable, /, **given: Any) -> list[Any]:
        """`run` one statement: the first values of the rows that it answers."""
        return [row[0] for row in self.rows(statement, **given)]

    def scalar(self, statement: Executable, /, **given: Any) -> Any:
        """`run` one statement: the first value that it answers; None where it answers no row."""
        return self.run(lambda connection: connection.scalar(statement, given))

    def execute(self, statement: Executable, /, **given: Any) -> int:
        """`run` one statement: how many rows it changes."""
        return self.run(lambda connection: connection.execute(statement, given).rowcount)

    def _consider_giving_up(self, error: DBAPIError, waited: float, delay: float, patience: float) -> None:
        lasted = patience
        if self._stop.is_set():
            lasted, patience = max(1, round(waited)), min(patience, STOPPING)
        if sqlstate(error) == READ_ONLY:
            self.engine.dispose()  # the primary may be elsewhere by now; an old session stays read-only
        if self._given_up or waited + delay > patience:
            self._given_up = True
            what = "gave no answer" if sqlstate(error) is None else "could not work"
            raise OutageError(
                f"Postgres ({self.name}) {what} for {lasted:g} s: {self._reason(error)}. "
                "Nothing is lost: start the command again when the server is back"
            ) from error

    def ping(self) -> None:
        """Connect once, to tell wrong settings from a passing outage.

        Raises:
            SourceError: it cannot be reached as set up; the message says why and what to do.
            UnreachableError: nothing answers there, or what it says is in none of the words that we know.
            OutageError: the server is restarting, and was for `patience` seconds.
        """
        try:
            with self.engine.connect():
                return
        except DBAPIError as error:
            if not _PASSING_WORDS.search(reason := self._reason(error)):
                user = self.url.username or "(default)"
                where = f"{self.place}, user {user}"
                raise explained(reason, where, self.name, may_pass=passing(error)) from None
        self.scalar(text("SELECT 1"))

    def close(self) -> None:
        """Close all pooled connections."""
        self.engine.dispose()

    def _reason(self, error: DBAPIError) -> str:
        """The driver's message on one line, without the password."""
        reason = one_line(error)
        return reason.replace(self.url.password, "***") if self.url.password else reason


def passing(error: DBAPIError) -> bool:
    """Whether the same work may succeed when tried again."""
    if error.connection_invalidated:
        return True
    state = sqlstate(error)
    if state is None:  # psycopg2 gives no state when there is no connection
        return isinstance(error, OperationalError | InterfaceError)
    return state.startswith(_PASSING)


def sqlstate(error: Exception) -> str | None:
    """Postgres's five-letter state of an error; None where the error is not the server's."""
    return getattr(getattr(error, "orig", None), "pgcode", None)


def one_line(error: DBAPIError) -> str:
    """What the server said, without excerpts of statements and the driver's advice."""
    lines = [line for line in str(error.orig).splitlines() if not line.startswith(("LINE ", " ", "\t"))]
    return " ".join(" ".join(lines).split()).rstrip(".")


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


def connect(settings: Settings, stop: Event | None = None) -> tuple[Database, Database]:
    """Connect to (state, source): the same unless `SOURCE_DATABASE_URL` is set; `stop` as for `Database`.

    Raises:
        SettingsError: a URL cannot be read, or there is none.
        SourceError: a database cannot be reached as set up.
    """
    patience = settings.outage_seconds
    state = state_database(settings, patience, stop)
    state.ping()
    if settings.source_database_url is None:
        return state, state
    url = settings.source_database_url.get_secret_value()
    source = Database(url, patience=patience, name="SOURCE_DATABASE_URL", stop=stop)
    source.ping()
    return state, source


def state_database(settings: Settings, patience: float, stop: Event | None = None) -> Database:
    """The database that holds our schema, not asked for anything yet.

    Raises:
        SettingsError: the URL cannot be read, or there is none.
    """
    need_database(settings)
    url = settings.database_url
    given = url.get_secret_value() if url else embedded_postgres(settings.home)
    return Database(given, patience=patience, stop=stop)


def need_database(settings: Settings) -> None:
    """Never work on another database than the one meant because its URL was forgotten.

    Raises:
        SettingsError: neither `DATABASE_URL` nor `ENRICH_EMBEDDED` is set.
    """
    if settings.database_url is None and not settings.embedded:
        raise SettingsError(
            "DATABASE_URL is not set: give it postgresql://user:password@host:5432/database, or set "
            "ENRICH_EMBEDDED=true for an embedded Postgres"
        )


def check_schema(database: Database) -> None:
    """Verify that the schema `enrichment` is of the version that this program is written for.

    Raises:
        SchemaError: it is missing, not readable, older or newer; says what to do.
    """
    table = f"{SCHEMA}.{VERSION_TABLE}"
    newest = text(f"SELECT max(version_num) FROM {table}")  # noqa: S608 (our own constants)
    try:
        found = database.scalar(text("SELECT to_regclass(:table)"), table=table)
        version = None if found is None else database.scalar(newest)
    except ProgrammingError as error:
        raise SchemaError(
            f"the schema {SCHEMA} cannot be read: {one_line(error)}. See docs/database.md"
        ) from None
    if version is None or version < SCHEMA_VERSION:
        state = "is missing" if version is None else f"is of version {version}, {SCHEMA_VERSION} is needed"
        raise SchemaError(f"the schema {SCHEMA} {state}: run `enrich migrate`")
    if version > SCHEMA_VERSION:
        raise SchemaError(
            f"the schema {SCHEMA} is of version {version}, this program knows {SCHEMA_VERSION}: "
            "update the program"
        )
