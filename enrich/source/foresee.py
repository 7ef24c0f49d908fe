"""What a run would find and do with each listing: read as discovery reads, and nothing written."""

# ruff: noqa: S608 (the statements are built from the constants here, never from values)

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence, Set
from dataclasses import dataclass
from functools import partial
from types import SimpleNamespace
from typing import Any, TypeVar

from sqlalchemy import Connection, text

from enrich.settings import Settings
from enrich.source.discover import Discovery
from enrich.source.pages import (
    ABSENT,
    ASK_AGAIN,
    DOCUMENT_DIFFERS,
    SAME,
    SOURCE,
    Page,
    as_json,
    classify,
    pages,
    parameters,
)
from enrich.source.portal import Source
from enrich.source.removals import Losses, refusal
from enrich.state.database import Database
from enrich.state.runs import Runs
from enrich.state.schema import WAITS

T = TypeVar("T")

_SERVED = "LEFT JOIN publication AS served ON served.target = :target AND served.listing_id = listing.id"
_UNPUBLISHED = "listing.revision IS NOT NULL AND served.revision IS DISTINCT FROM listing.revision"
_OUTCOME = "CASE WHEN served.status = 'refused' THEN 'refused' ELSE 'written' END"
_AWAITS = "coalesce(served.status = 'awaiting', false) AS awaits"

# Our rows that have something to do whatever the source says, and those that the source lacks.
_OURS = f"""
    SELECT * FROM (
        SELECT listing.id, listing.status = 'gone' AS gone, listing.status <> 'gone' AND {ABSENT} AS absent,
               listing.revision IS NOT NULL AS has_document,
               ({WAITS}) AS waits, listing.revalidate,
               CASE WHEN {_UNPUBLISHED} THEN {_OUTCOME} END AS outcome, {_AWAITS}
        FROM listing {_SERVED} WHERE {{ours}}
    ) AS ours
    WHERE absent OR waits OR outcome IS NOT NULL
"""
_NOT_OURS = SimpleNamespace(
    gone=False, absent=False, has_document=False, waits=False, revalidate=False, outcome=None, awaits=False
)

_SAME = text(f"SELECT s.id FROM {SOURCE} JOIN listing ON listing.id = s.id WHERE {SAME}")

_AGAIN = text(f"SELECT s.id FROM {SOURCE} JOIN listing ON listing.id = s.id WHERE {ASK_AGAIN}")

_MOVED = text(f"""
    SELECT s.id FROM {SOURCE} JOIN listing ON listing.id = s.id
    WHERE listing.attributes IS NOT NULL AND (listing.status = 'gone' OR {DOCUMENT_DIFFERS})
""")

_DOCUMENTS = text("SELECT count(*) FROM listing WHERE status <> 'gone' AND revision IS NOT NULL")

_ELSEWHERE = text(f"""
    SELECT listing.id, {_AWAITS},
           CASE WHEN listing.status = 'gone' THEN 'removed' ELSE {_OUTCOME} END AS outcome
    FROM listing {_SERVED} WHERE {_UNPUBLISHED} AND listing.id > :after AND NOT listing.id = ANY(:ids)
    ORDER BY listing.id LIMIT :page
""")

_HELD = text("""
    SELECT listing.id FROM listing JOIN publication AS p ON p.listing_id = listing.id
    WHERE p.target = :target AND p.listing_id = ANY(:ids) AND p.revision = listing.revision
      AND listing.status <> 'gone'
""")


@dataclass(frozen=True, slots=True)
class Prospect:
    """A listing that a run would have something to do with."""

    id: str
    enriched: bool = False
    """Its photos would be gone through; its document may come out differently."""
    revalidate: bool = False
    outcome: str | None = None
    """What publishing would come to without enrichment: written, removed, refused (as it was last time);
    None: nothing is to be published."""
    awaits: bool = False
    """The portal had no document of it last time."""


@dataclass(frozen=True, slots=True)
class _Compared:
    """A page of the source beside our rows."""

    page: Page
    kinds: Mapping[str, str]
    same: Collection[str]
    """Back, and need no enrichment."""
    again: Collection[str]
    """Known, and their photos are asked for again, whatever else they are."""
    moved: Collection[str]
    """Enriched before, and their documents go out again whatever the photos show."""
    ours: Mapping[str, Any]
    """Our rows that wait, are unpublished or are missing in the source."""


@dataclass(frozen=True, slots=True)
class Foresight:
    """What discovery and publishing would come to now. Errors are those of `discover`."""

    source: Source
    state: Database
    settings: Settings
    ids: Sequence[str] | None
    """The run would be of these listings only."""
    revalidate: bool
    target: int | None
    """Where it would publish to, as the table `target` has it; None: to an index that nothing is known to be
    in."""
    lost: Set[str] = frozenset()
    """Published listings whose documents it lost (`held`)."""

    def discovery(self, allow_removals: bool) -> Discovery:
        """What `discover` would answer."""
        found, losses = Discovery(), Losses()
        found.tells_active = self.source.tells_active(Runs(self.state).told_active())
        for compared in self._compared():
            losses.see(compared.page)
            found.seen += len(compared.page.listings)
            found.count(compared.kinds)
            absent = [row for row in compared.ours.values() if row.absent]
            losses.removed += len(absent)
            losses.leaving += sum(row.has_document for row in absent)
            losses.emptied += sum(kind == "emptied" for kind in compared.kinds.values())
        losses.documents = read(self.state, lambda connection: connection.execute(_DOCUMENTS).scalar_one())
        if not allow_removals:
            found.refusal = refusal(losses, self.settings.max_removed, whole=self.ids is None)
        found.removed = 0 if found.refusal else losses.removed
        return found

    def prospects(self, refused: bool) -> Iterator[Prospect]:
        """All that a run would have to do, by id, a page in memory at a time.

        `refused`: the removal guard lets nothing leave.
        """
        for compared in self._compared():
            lost = {listing.id for listing in compared.page.listings if listing.id in self.lost}
            for id in sorted(compared.kinds.keys() | compared.ours.keys() | lost):
                yield _prospect(compared, id, self.revalidate, refused, id in lost)

    def elsewhere(self) -> Iterator[Prospect]:
        """The listings besides `ids` that wait to be published, or whose documents are lost."""
        if self.ids is None:
            return
        yield from (Prospect(id, outcome="written") for id in sorted(self.lost - set(self.ids)))
        given = {"ids": self.ids, "target": self.target, "after": "", "page": self.settings.page_size}
        while rows := read(self.state, lambda connection: connection.execute(_ELSEWHERE, given).all()):
            yield from (Prospect(row.id, outcome=row.outcome, awaits=row.awaits) for row in rows)
            given["after"] = rows[-1].id

    def _compared(self) -> Iterator[_Compared]:
        given = {**parameters(self.settings, self.revalidate), "target": self.target}
        for page in pages(self.source, self.settings.page_size, self.ids):
            yield read(self.state, partial(_compare, page, given))


def read(state: Database, work: Callable[[Connection], T]) -> T:
    """`Database.run` in a transaction that can't write."""

    def reading(connection: Connection) -> T:
        connection.exec_driver_sql("SET TRANSACTION READ ONLY")
        return work(connection)

    return state.run(reading)


def held(state: Connection, target: int, ids: Sequence[str]) -> Sequence[str]:
    """Those of these listings whose documents are published as they are now."""
    given = {"target": target, "ids": [id for id in ids if "\0" not in id]}
    return state.execute(_HELD, given).scalars().all()


def _prospect(compared: _Compared, id: str, revalidate: bool, refused: bool, lost: bool) -> Prospect:
    kind, ours = compared.kinds.get(id), compared.ours.get(id, _NOT_OURS)
    if (ours.gone and kind is None) or (ours.absent and not refused):
        return Prospect(id, outcome="removed" if ours.has_document else None)
    looked_into = kind in ("documents", "revalidated") and id in compared.again
    asked = (
        kind in ("new", "emptied", "changed")
        or (kind == "returned" and id not in compared.same)
        or looked_into
    )
    enriched = (asked or (ours.waits and not ours.absent)) and not (refused and kind == "emptied")
    again = looked_into or (asked and revalidate) or ours.revalidate
    outcome = "written" if lost or id in compared.moved else ours.outcome
    return Prospect(id, enriched, again, outcome, ours.awaits)


def _compare(page: Page, given: Mapping[str, Any], state: Connection) -> _Compared:
    shown = {**given, "page": as_json(page.listings)}
    ours = state.execute(text(_OURS.format(ours=page.ours)), shown | page.scope)
    return _Compared(
        page,
        classify(state, page.listings, given),
        set(state.execute(_SAME, shown).scalars()),
        set(state.execute(_AGAIN, shown).scalars()),
        set(state.execute(_MOVED, shown).scalars()),
        {row.id: row for row in ours},
    )
