"""Opens what a job works with, checks that its parts fit, and closes it again."""

import logging
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass, fields
from threading import Event

from sqlalchemy import text

from enrich.index.document import reserved
from enrich.index.open import open_index
from enrich.index.protocol import SearchIndex
from enrich.model.bundle import Bundle, load_bundle
from enrich.model.open import Choice, choose
from enrich.settings import Settings
from enrich.source.portal import Source
from enrich.state.backfills import Backfills
from enrich.state.database import Database, check_schema, connect
from enrich.state.listings import Listings
from enrich.state.locks import Locks
from enrich.state.outbox import Outbox
from enrich.state.overrides import Overrides
from enrich.state.requests import Requests
from enrich.state.runs import Runs
from enrich.state.schema import SCHEMA

log = logging.getLogger(__name__)

_UNKNOWN = text("""
    SELECT n FROM unnest(CAST(:ids AS text[])) WITH ORDINALITY AS asked(n, place)
    WHERE NOT EXISTS (SELECT FROM listing WHERE id = n) ORDER BY place
""")


@dataclass(frozen=True, slots=True)
class Records:
    """What is known of the listings, open: all that a command needs that asks no index."""

    settings: Settings
    database: Database
    source: Source
    queue: Listings
    requests: Requests
    overrides: Overrides
    backfills: Backfills
    outbox: Outbox
    runs: Runs
    locks: Locks
    model: Choice

    @property
    def bundle(self) -> Bundle:
        """The bundle in the arithmetic that is used."""
        return self.model.bundle

    def spelled(self, ids: Sequence[str] | None) -> list[str] | None:
        """Ids that a person typed, as the portal's tables write them; None stays None."""
        return None if ids is None else [self.source.spelled(id) for id in ids]

    def warn_of_unknown(self, ids: Sequence[str] | None) -> None:
        """Of ids that a person gave and no listing has, once discovery has brought in what there is."""
        asked = [id for id in dict.fromkeys(ids or ()) if "\0" not in id]
        if asked and (unknown := self.database.scalars(_UNKNOWN, ids=asked)):
            log.warning("no listing has %d of the ids in --ids, such as %s", len(unknown), unknown[0])


@dataclass(frozen=True, slots=True)
class Services(Records):
    """Everything a job needs, open."""

    index: SearchIndex


@contextmanager
def open_records(settings: Settings, doing: str = "run", stop: Event | None = None) -> Iterator[Records]:
    """Open and verify databases, schema and bundle.

    `doing`: what `enrich status` calls this process while it enriches. `stop`: when it is set, an outage
    of the databases is not waited out any longer.

    Raises:
        UsageError: one of them cannot be used as set up; nothing was written.
    """
    model = choose(load_bundle(settings.bundle), settings)
    with ExitStack() as stack:
        database, source_database = connect(settings, stop)
        stack.callback(source_database.close)
        stack.callback(database.close)
        check_schema(database)
        source = Source(source_database, settings, reserved(model.bundle.heads))
        queue = Listings(
            database, lease_seconds=settings.lease_seconds, max_attempts=settings.max_attempts, doing=doing
        )
        stack.callback(queue.close)
        yield Records(
            settings=settings,
            database=database,
            source=source,
            queue=queue,
            requests=Requests(database),
            overrides=Overrides(database),
            backfills=Backfills(database),
            outbox=Outbox(database),
            runs=Runs(database),
            locks=Locks(database),
            model=model,
        )


@contextmanager
def open_services(settings: Settings, doing: str = "run", stop: Event | None = None) -> Iterator[Services]:
    """Open and verify databases, schema, tables, bundle and index.

    `doing`, `stop`: as for `open_records`.

    Raises:
        UsageError: one of them cannot be used as set up; nothing was written.
    """
    with open_records(settings, doing, stop) as found:
        copied = found.source.copied_columns()
        index = open_index(settings, found.database, found.bundle.heads, copied)
        with closing(index):
            if settings.index_embedded and not settings.embedded:
                log.warning(
                    "ELASTICSEARCH_URL is not set: documents stay in the schema %s of Postgres", SCHEMA
                )
            opened = {field.name: getattr(found, field.name) for field in fields(found)}
            yield Services(**opened, index=index)
