"""`enrich check`: everything a run needs, verified one by one; writes nothing."""

import asyncio
import random
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import UTC, datetime

from sqlalchemy import text

from enrich.errors import EnrichError, IndexSetupError, SchemaError, SettingsError, SourceError
from enrich.index.document import reserved
from enrich.index.open import open_index
from enrich.index.protocol import IndexUnavailable, SearchIndex
from enrich.model.bundle import Bundle, load_bundle
from enrich.model.open import check_device, choose
from enrich.photos.decode import decode
from enrich.photos.open import open_transport
from enrich.photos.transport import Paused, PhotoTransport
from enrich.records import Photo, PhotoStatus
from enrich.settings import Settings, variable
from enrich.source.portal import Source
from enrich.state.database import Database, check_schema, connect
from enrich.state.runs import Runs
from enrich.state.schema import SCHEMA, metadata
from jobs.cli.misspelt import misspelt
from jobs.run.schedule import trigger

SAMPLED = 10  # photos
COMPARED = 1_000  # ids of listings
CLOCK_SECONDS = 60.0  # difference of two clocks that is worth a word
PATIENCE = 10.0  # seconds for a server that is just restarting

_WRITABLE = text(
    "SELECT pg_is_in_recovery() AS standby, current_setting('transaction_read_only') AS read_only"
)
_SERVER = text(
    "SELECT current_setting('server_version'), current_user, current_database(), clock_timestamp()"
)
_GONE = text("SELECT n FROM unnest(CAST(:tables AS text[])) AS n WHERE to_regclass(n) IS NULL ORDER BY n")

_LACKING = text("""
    SELECT t || ' on ' || n
    FROM unnest(CAST(:tables AS text[])) AS n, unnest(ARRAY['SELECT', 'INSERT', 'UPDATE', 'DELETE']) AS t
    WHERE NOT has_table_privilege(n, t)
    UNION ALL
    SELECT format('USAGE on %s.%s', :schema, relname) FROM pg_sequence JOIN pg_class ON oid = seqrelid
    WHERE relnamespace = CAST(:schema AS regnamespace)
      AND NOT has_sequence_privilege(seqrelid, 'USAGE, UPDATE')
    ORDER BY 1
""")

_UNSEEN = text("""
    SELECT n FROM unnest(CAST(:columns AS text[])) WITH ORDINALITY AS c(n, place)
    WHERE NOT EXISTS (SELECT FROM pg_attribute WHERE attrelid = to_regclass(:view) AND attname = n)
    ORDER BY place
""")


@dataclass(frozen=True, slots=True)
class Finding:
    """What one check found. `ok` is None for a mere warning, and where another one had to succeed first."""

    name: str
    ok: bool | None
    lines: tuple[str, ...]


def all_checks(settings: Settings, samples: bool = True) -> Iterator[Finding]:
    """Make the checks one by one; each is made even when others failed, as far as that is possible.

    `samples`: whether to look at every listing's row, some photos and, in mode merge, documents, too.
    """
    with ExitStack() as stack:
        checks = _Checks(settings.model_copy(update={"outage_seconds": PATIENCE}), stack, samples)
        steps: dict[str, Callable[[], list[str]]] = {
            "bundle": checks.check_bundle,
            "database": checks.check_database,
            "schema": checks.check_schema,
            "tables": checks.check_tables,
            "index": checks.check_index,
        }
        if samples and settings.index_mode == "merge" and not settings.index_embedded:
            steps["documents"] = checks.check_documents
        if samples:
            steps["photos"] = checks.check_photos
        yield from _check_settings(settings)
        for name, step in steps.items():
            try:
                yield Finding(name, True, tuple(step()))
            except _Needs as missing:
                yield Finding(name, None, (f"not checked: needs {missing}",))
            except EnrichError as error:
                yield Finding(name, False, (str(error),))
            except IndexUnavailable as error:
                told = f"the index gives no answer ({error}). Check ELASTICSEARCH_URL and the server"
                yield Finding(name, False, (told,))


def _check_settings(settings: Settings) -> Iterator[Finding]:
    if warnings := misspelt():
        yield Finding("settings", None, tuple(warnings))
    try:
        trigger(settings)
    except SettingsError as error:
        yield Finding("settings", False, (str(error),))


class _Needs(Exception):
    """A check that rests on another one, which failed."""


class _Checks:
    def __init__(self, settings: Settings, stack: ExitStack, samples: bool) -> None:
        self._settings, self._stack, self._samples = settings, stack, samples
        self._bundle: Bundle | None = None
        self._databases: tuple[Database, Database] | None = None
        self._schema = False
        self._source: Source | None = None
        self._index: SearchIndex | None = None

    def check_bundle(self) -> list[str]:
        chosen = choose(load_bundle(self._settings.bundle), self._settings)
        self._bundle = bundle = chosen.bundle
        check_device(self._settings)
        heads = ", ".join(head.name for head in bundle.heads)
        return [
            f"{bundle.name} {bundle.bundle_id[:12]} in {bundle.folder}: {heads}",
            f"scores in {chosen}",
        ]

    def check_database(self) -> list[str]:
        state, source = connect(self._settings)
        self._stack.callback(state.close)
        self._stack.callback(source.close)
        self._databases = state, source
        _check_writable(state)
        lines = [_describe(state, "ENRICH_EMBEDDED" if self._settings.embedded else state.name)]
        if source is not state:
            lines.append(_describe(source, source.name))
        return lines

    def check_schema(self) -> list[str]:
        if self._databases is None:
            raise _Needs("the database")
        state, _ = self._databases
        check_schema(state)
        tables = sorted(metadata.tables)
        if gone := state.scalars(_GONE, tables=tables):
            raise SchemaError(
                f"tables are gone: {', '.join(gone)}. Restore the schema {SCHEMA} from a backup; or drop it "
                "and run `enrich migrate`: then all listings are enriched again"
            )
        if lacking := state.scalars(_LACKING, tables=tables, schema=SCHEMA):
            raise SchemaError(
                f"privileges are missing: {', '.join(lacking)}. GRANT them, see docs/database.md"
            )
        self._schema = True
        heads = self._bundle.heads if self._bundle else ()
        columns = [column for head in heads for column in head.rules.columns(head.name)]
        unseen = state.scalars(_UNSEEN, columns=columns, view=f"{SCHEMA}.listing_attributes")
        lines = [f"the views lack {', '.join(unseen)}: `enrich migrate` adds them"] if unseen else []
        return [f"schema {SCHEMA} is up to date", *lines]

    def check_tables(self) -> list[str]:
        if self._databases is None:
            raise _Needs("the database")
        heads = self._bundle.heads if self._bundle else ()
        source = Source(self._databases[1], self._settings, reserved(heads))
        if self._schema:
            source.tells_active(Runs(self._databases[0]).told_active())
        found = source.check(every_row=self._samples)
        self._source = source
        return found

    def check_index(self) -> list[str]:
        settings = self._settings
        if self._bundle is None:
            raise _Needs("the bundle")
        if settings.index_embedded and not self._schema:
            raise _Needs("the schema")
        # Elasticsearch can be checked without a database; this one is never connected to.
        database = self._databases[0] if self._databases else Database("postgresql:///")
        copied = self._source.copied_columns() if self._source else {}
        index = open_index(settings, database, self._bundle.heads, copied)
        self._stack.callback(index.close)
        found = index.check()
        self._index = index
        return found

    def check_documents(self) -> list[str]:
        if self._source is None:
            raise _Needs("the tables")
        if self._index is None:
            raise _Needs("the index")
        there = [id for pages in (self._index.ids(), self._index.lost()) for id in next(pages, ())]
        listings = self._source.ids(None, COMPARED)
        if not there or not listings:
            return ["there are no listings yet" if there else "the portal has written none yet"]
        if not self._source.by_ids(there) and not self._index.documents(listings):
            name = self._settings.index
            raise IndexSetupError(
                f"of {len(there)} documents of {name} looked at, such as {there[0]}, none has the id of a "
                f"listing, such as {listings[0]}, as its _id: have the portal write them so, or views give "
                "listings the ids of their documents (ENRICH_SOURCE_LISTINGS, ENRICH_SOURCE_IMAGES); see "
                "docs/index.md"
            )
        return ["documents have the ids of listings"]

    def check_photos(self) -> list[str]:
        if self._source is None:
            raise _Needs("the tables")
        ids = self._source.ids(None, self._settings.page_size)
        sampled = random.sample(ids, min(SAMPLED, len(ids)))
        photos = [photo for one in self._source.photos(sampled) for photo in one.photos if photo.url]
        chosen = random.sample(photos, min(SAMPLED, len(photos)))
        if not chosen:
            return ["the first listings have no photos to try"]
        ended = asyncio.run(self._try(chosen))
        good = sum(status.ok for status, _ in ended)
        failures = Counter(f"{status.value} ({error})" for status, error in ended if not status.ok)
        lines = [f"{good} of {len(ended)} sampled photos fetched and decoded"]
        lines += [f"{count} × {failure}" for failure, count in failures.most_common()]
        if len(ended) - good > self._settings.error_budget * len(ended):
            *settings, last = (variable(n) for n in Settings.model_fields if n.startswith("allowed_"))
            advice = f"Look at these URLs, and at {', '.join(settings)} and {last}"
            raise SourceError("; ".join(lines) + f". {advice}")
        return lines

    async def _try(self, photos: list[Photo]) -> list[tuple[PhotoStatus, str | None]]:
        async with open_transport(self._settings) as fetcher:
            return await asyncio.gather(*(self._try_one(fetcher, photo) for photo in photos))

    async def _try_one(self, fetcher: PhotoTransport, photo: Photo) -> tuple[PhotoStatus, str | None]:
        fetched = await fetcher.fetch(photo.url)
        if isinstance(fetched, Paused):
            return PhotoStatus.THROTTLED, f"its host wants to be left alone for {fetched.seconds:.0f} s"
        if fetched.body is None or self._bundle is None:
            return fetched.status, fetched.error
        decoded = await asyncio.to_thread(
            decode, fetched.body, self._bundle.preprocessings, self._settings.max_pixels
        )
        return decoded.status, decoded.error


def _check_writable(database: Database) -> None:
    (found,) = database.rows(_WRITABLE)
    if found.standby or found.read_only == "on":
        why = "it is a standby" if found.standby else "default_transaction_read_only is on"
        raise SourceError(
            f"Postgres at {database.place} takes no writes ({why}), and the job keeps its state there: "
            f"set {database.name} to the primary, or make it writable again"
        )


def _describe(database: Database, name: str) -> str:
    """Server, user and clock."""
    asked = datetime.now(UTC)
    ((version, user, called, now),) = database.rows(_SERVER)
    answered = datetime.now(UTC)
    apart = max((asked - now).total_seconds(), (now - answered).total_seconds(), 0.0)
    clock = "clocks agree" if apart < CLOCK_SECONDS else f"its clock is {apart:.0f} s off ours"
    return f"{name}: Postgres {version}, database {called}, user {user}; {clock}"
