"""Alembic for the schema `enrichment`: `upgrade`, `downgrade`, `current`, `head`. No alembic.ini is needed.

Each call is one transaction under one lock, so two hosts may start at once. The role needs its own schema
only, see docs/database.md.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, Engine, create_engine, make_url, text
from sqlalchemy.exc import ProgrammingError

from enrich.errors import SchemaError
from enrich.state.schema import SCHEMA, VERSION_TABLE, number
from migrations.view import DEFAULT_COLUMNS, DEFAULT_PHOTO_COLUMNS, Columns, create_views

_LOCK = 7_305_914_226_018_113_421  # any number of our own; held to the end of the transaction only


def upgrade(
    target: str | Engine,
    columns: Columns = DEFAULT_COLUMNS,
    revision: str = "head",
    photo_columns: Columns = DEFAULT_PHOTO_COLUMNS,
    numbers: Sequence[str] = (),
) -> str | None:
    """Bring the schema to `revision`, give the views these columns, and make an index of each of these
    `numbers` (fields of a listing); return the version reached.

    Raises:
        SchemaError: the role may not do what is needed, or the schema is of a newer program.
    """
    with _locked(target) as (connection, config):
        _create_schema(connection)
        known = {script.revision for script in ScriptDirectory.from_config(config).walk_revisions()}
        before = _current(connection)
        if before is not None and before not in known:
            raise SchemaError(
                f"the schema {SCHEMA} is of version {before}, which this program does not know: "
                "update the program"
            )
        command.upgrade(config, revision)
        if revision == "head":
            create_views(connection, columns, photo_columns)
            for field in numbers:
                connection.exec_driver_sql(
                    f"CREATE INDEX IF NOT EXISTS listing_by_{field} ON {SCHEMA}.listing ({number(field)})"
                )
        return _current(connection)


def downgrade(target: str | Engine, revision: str = "base") -> None:
    """Take the schema back to `revision`. `base` drops all our tables and what they hold, not the schema.

    Raises:
        SchemaError: the role may not do what is needed.
    """
    with _locked(target) as (_, config):
        command.downgrade(config, revision)


def current(target: str | Engine) -> str | None:
    """The version of the schema, or None where there is none yet."""
    with _locked(target) as (connection, _):
        return _current(connection)


def head() -> str:
    """The newest version that this program knows."""
    return ScriptDirectory.from_config(_config()).get_current_head() or ""


@contextmanager
def _locked(target: str | Engine) -> Iterator[tuple[Connection, Config]]:
    engine = (
        target
        if isinstance(target, Engine)
        else create_engine(make_url(target).set(drivername="postgresql+psycopg2"))
    )
    try:
        with engine.begin() as connection:
            # Under any other, which may be the default, what came while it waited for the lock is not seen.
            connection.execute(text("SET TRANSACTION ISOLATION LEVEL READ COMMITTED"))
            connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": _LOCK})
            config = _config()
            config.attributes["connection"] = connection
            yield connection, config
    except ProgrammingError as error:
        reason = str(error.orig).splitlines()[0]
        raise SchemaError(f"the schema {SCHEMA} cannot be migrated: {reason}. See docs/database.md") from None
    finally:
        if engine is not target:
            engine.dispose()


def _config() -> Config:
    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent).replace("%", "%%"))
    return config


def _current(connection: Connection) -> str | None:
    options = {"version_table": VERSION_TABLE, "version_table_schema": SCHEMA}
    return MigrationContext.configure(connection, opts=options).get_current_revision()


def _create_schema(connection: Connection) -> None:
    # IF NOT EXISTS asks for the right to create one, also where it is there.
    exists = connection.execute(text("SELECT 1 FROM pg_namespace WHERE nspname = :name"), {"name": SCHEMA})
    if exists.scalar() is None:
        connection.exec_driver_sql(f"CREATE SCHEMA {SCHEMA}")


__all__ = ["Columns", "current", "downgrade", "head", "upgrade"]
