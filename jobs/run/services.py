"""Opens what a job works with, checks that it fits together, and closes it again."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass

from enrich.index.document import reserved
from enrich.index.open import open_index
from enrich.index.protocol import SearchIndex
from enrich.model.bundle import Bundle, load_bundle
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


@dataclass(frozen=True, slots=True)
class Services:
    """Everything a job needs, open."""

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
    bundle: Bundle
    index: SearchIndex


@contextmanager
def open_services(settings: Settings, doing: str = "run") -> Iterator[Services]:
    """Open and verify databases, schema, tables, bundle and index.

    `doing`: what `enrich status` calls this process while it enriches.

    Raises:
        UsageError: one of them cannot be used as set up; nothing was written.
    """
    bundle = load_bundle(settings.bundle)
    with ExitStack() as stack:
        database, source_database = connect(settings)
        stack.callback(source_database.close)
        stack.callback(database.close)
        check_schema(database)
        source = Source(source_database, settings, reserved(bundle.heads))
        index = open_index(settings, database, bundle.heads, source.copied_columns())
        stack.callback(index.close)
        queue = Listings(
            database, lease_seconds=settings.lease_seconds, max_attempts=settings.max_attempts, doing=doing
        )
        stack.callback(queue.close)
        yield Services(
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
            bundle=bundle,
            index=index,
        )
