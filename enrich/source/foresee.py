"""What a run would find and do with each listing: read as discovery reads, and nothing written."""

# ruff: noqa: S608 (the statements are built from the constants here, never from values)

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeVar

from sqlalchemy import Connection, Row, text

from enrich.settings import Settings
from enrich.source.discover import Discovery
from enrich.source.pages import (
    ABSENT,
    DOCUMENT_DIFFERS,
    SAME,
    SOURCE,
    Page,
    as_json,
    classify,
    emptied,
    pages,
    parameters,
)
from enrich.source.portal import Source
from enrich.source.removals import Losses, refusal
from enrich.state.database import Database
from enrich.state.runs import Runs

T = TypeVar("T")

_SERVED = "LEFT JOIN publication AS served ON served.target = :target AND served.listing_id = listing.id"

# Our rows that have something to do whatever the source says, and those that the source lacks.
_OURS = """
    SELECT * FROM (
        SELECT listing.id, listing.status = 'gone' AS gone, listing.status <> 'gone' AND {absent} AS absent,
               listing.revision IS NOT NULL AS has_document,
               listing.status IN ('pending', 'leased')
                   OR (listing.status = 'retry' AND listing.not_before <= now()) AS waits,
               listing.revalidate, served.status AS publish_status,
               listing.revision IS NOT NULL
                   AND served.revision IS DISTINCT FROM listing.revision AS unpublished
        FROM listing {served} WHERE {ours}
    ) AS ours
    WHERE absent OR waits OR unpublished
"""

_SAME = text(f"SELECT s.id FROM {SOURCE} JOIN listing ON listing.id = s.id WHERE {SAME}")

_MOVED = text(f"""
    SELECT s.id FROM {SOURCE} JOIN listing ON listing.id = s.id
    WHERE listing.attributes IS NOT NULL AND (listing.status = 'gone' OR {DOCUMENT_DIFFERS})
""")

_DOCUMENTS = text("SELECT count(*) FROM listing WHERE status <> 'gone' AND revision IS NOT NULL")

_ELSEWHERE = text(f"""
    SELECT count(*) FILTER (WHERE gone) AS removed,
           count(*) FILTER (WHERE NOT gone AND status = 'awaiting') AS awaiting,
           count(*) FILTER (WHERE NOT gone AND status = 'refused') AS refused,
           count(*) FILTER (WHERE NOT gone AND status NOT IN ('awaiting', 'refused')) AS written
    FROM (
        SELECT listing.status = 'gone' AS gone, coalesce(served.status, 'waiting') AS status
        FROM listing {_SERVED}
        WHERE listing.revision IS NOT NULL AND served.revision IS DISTINCT FROM listing.revision
          AND NOT listing.id = ANY(:ids)
    ) AS unpublished
""")


@dataclass(frozen=True, slots=True)
class Prospect:
    """A listing that a run would have something to do with."""

    id: str
    enriched: bool = False
    """Its photos would be gone through; its document may come out differently."""
    revalidate: bool = False
    outcome: str | None = None
    """What publishing would come to without enrichment: written, removed, awaiting, refused (as it was last
    time); None: nothing is to be published."""


@dataclass(frozen=True, slots=True)
class _Compared:
    """A page of the source beside our rows."""

    page: Page
    kinds: Mapping[str, str]
    emptied: Collection[str]
    same: Collection[str]
    """Back, and need no enrichment."""
    moved: Collection[str]
    """Enriched before, and their documents go out again whatever the photos show."""
    ours: Mapping[str, Row[Any]]
    """Our rows that wait, are unpublished or are missing in the source."""


def foresee(
    source: Source,
    state: Database,
    settings: Settings,
    *,
    ids: Sequence[str] | None,
    allow_removals: bool,
    revalidate: bool,
    target: int | None,
) -> Discovery:
    """What `discover` would answer now; arguments and errors as there, `target` as for `prospects`."""
    found, losses = Discovery(), Losses()
    found.tells_active = source.tells_active(Runs(state).told_active())
    for compared in _compared(source, state, settings, ids, revalidate, target):
        losses.see(compared.page)
        found.seen += len(compared.page.listings)
        found.count(compared.kinds)
        absent = [row for row in compared.ours.values() if row.absent]
        losses.removed += len(absent)
        losses.leaving += sum(row.has_document for row in absent)
        losses.emptied += len(compared.emptied)
    losses.documents = read(state, lambda connection: connection.execute(_DOCUMENTS).scalar_one())
    if not allow_removals:
        found.refusal = refusal(losses, settings.max_removed, whole=ids is None)
    found.removed = 0 if found.refusal else losses.removed
    return found


def prospects(
    source: Source,
    state: Database,
    settings: Settings,
    *,
    ids: Sequence[str] | None,
    revalidate: bool,
    refused: bool,
    target: int | None,
) -> Iterator[Prospect]:
    """All that a run would have to do, by id, a page in memory at a time.

    `refused`: the removal guard lets nothing leave. `target`: where it would publish to, as the table
    `target` has it; None: to an index that nothing is known to be in.
    """
    for compared in _compared(source, state, settings, ids, revalidate, target):
        for id in sorted(compared.kinds.keys() | compared.ours.keys()):
            row = compared.ours.get(id)
            if row is not None and ((row.gone and id not in compared.kinds) or (row.absent and not refused)):
                if row.has_document:
                    yield Prospect(id, outcome="removed")
            else:
                yield _prospect(compared, id, row, revalidate, refused)


def elsewhere(state: Database, ids: Sequence[str], target: int | None) -> dict[str, int]:
    """Outcome -> how many of the listings besides `ids` wait to be published; `target` as for `prospects`."""
    given = {"ids": list(ids), "target": target}
    return dict(read(state, lambda connection: connection.execute(_ELSEWHERE, given).mappings().one()))


def read(state: Database, work: Callable[[Connection], T]) -> T:
    """`Database.run` in a transaction that can't write."""

    def reading(connection: Connection) -> T:
        connection.exec_driver_sql("SET TRANSACTION READ ONLY")
        return work(connection)

    return state.run(reading)


def _prospect(
    compared: _Compared, id: str, row: Row[Any] | None, revalidate: bool, refused: bool
) -> Prospect:
    kind = compared.kinds.get(id)
    waits = row is not None and row.waits and not row.absent
    asked = (
        kind in ("new", "changed", "revalidated")
        or (kind == "returned" and id not in compared.same)
        or (kind == "documents" and revalidate)
    )
    withheld = refused and id in compared.emptied
    unpublished = row is not None and row.unpublished
    before = row.publish_status if row is not None and unpublished else None
    outcome: str | None = None
    if before == "awaiting":
        outcome = "awaiting"
    elif id in compared.moved or (unpublished and before != "refused"):
        outcome = "written"
    elif unpublished:
        outcome = "refused"
    again = kind == "revalidated" or (asked and revalidate) or (row is not None and row.revalidate)
    return Prospect(id, (asked or waits) and not withheld, again, outcome)


def _compared(
    source: Source,
    state: Database,
    settings: Settings,
    ids: Sequence[str] | None,
    revalidate: bool,
    target: int | None,
) -> Iterator[_Compared]:
    given = {**parameters(settings, revalidate), "target": target}
    for page in pages(source, settings.page_size, ids):
        yield read(state, partial(_compare, page, given))


def _compare(page: Page, given: Mapping[str, Any], state: Connection) -> _Compared:
    shown = {**given, "page": as_json(page.listings)}
    ours = state.execute(
        text(_OURS.format(absent=ABSENT, served=_SERVED, ours=page.ours)), shown | page.scope
    )
    return _Compared(
        page,
        classify(state, page.listings, given),
        emptied(state, page.listings),
        set(state.execute(_SAME, shown).scalars()),
        set(state.execute(_MOVED, shown).scalars()),
        {row.id: row for row in ours},
    )
