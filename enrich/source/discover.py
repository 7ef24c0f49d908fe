"""Discovery: compare all the source has with all our state has, and write down what is wanted.

The source is read in keyset pages. Each page is compared with our rows of the same range of ids in one
statement, so memory is bounded by the page, and unchanged listings cause no write. The caller holds the lock
`discover`; workers may claim and complete listings meanwhile, so every write checks its condition again.
"""

# ruff: noqa: S608 (the statements are built from the constants here, never from values)

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, text

from enrich.settings import Settings
from enrich.source.pages import (
    ASK_AGAIN,
    DOCUMENT_DIFFERS,
    PHOTOS_DIFFER,
    PUT_OFF,
    SAME,
    SOURCE,
    TOUCHED,
    Page,
    as_json,
    classify,
    pages,
    parameters,
)
from enrich.source.portal import Source, SourceListing
from enrich.source.removals import Losses, Removals, refusal
from enrich.state.database import Database
from enrich.state.outbox import enqueue
from enrich.state.runs import Runs
from enrich.state.schema import NEXT_REVISION

KINDS = ("new", "returned", "changed", "documents", "revalidated")


@dataclass(slots=True)
class Discovery:
    """What one discovery found: listings per kind, each listing under its most far-reaching one.

    new: not known before · returned: was gone · changed: its photos differ, so it is enriched again ·
    documents: copied columns differ, so it is published again · revalidated: its photos are asked again with
    validators · removed: gone from the source or inactive · unchanged: all others. `seen` is how many active
    listings the source has.
    """

    seen: int = 0
    new: int = 0
    returned: int = 0
    changed: int = 0
    documents: int = 0
    revalidated: int = 0
    removed: int = 0
    tells_active: bool = False
    """Whether the portal's listings have the column `active`."""
    refusal: str | None = None
    """Why the removal guard let nothing leave, for people; None where it let pass what there was."""

    @property
    def unchanged(self) -> int:
        return self.seen - self.new - self.returned - self.changed - self.documents - self.revalidated

    def count(self, kinds: Mapping[str, str]) -> None:
        """Count the listings of a page by their kinds."""
        counts = Counter("changed" if kind == "emptied" else kind for kind in kinds.values())
        for kind in KINDS:
            setattr(self, kind, getattr(self, kind) + counts[kind])

    def as_json(self) -> dict[str, int]:
        """The counts, for logs and the table `run`."""
        counts = {name: getattr(self, name) for name in ("seen", *KINDS, "removed")}
        return {**counts, "unchanged": self.unchanged}


def discover(
    source: Source,
    state: Database,
    settings: Settings,
    run_id: int,
    *,
    ids: Sequence[str] | None = None,
    allow_removals: bool = False,
    revalidate: bool = False,
    check: Callable[[], None] = lambda: None,
) -> Discovery:
    """Bring the wanted side of our state up to what the source has now.

    Where too much would leave the index, or too many listings would lose all their photos, these are left as
    they are, all else is recorded, and `Discovery.refusal` says so.

    Args:
        run_id: this run, to stage removals under.
        ids: compare these listings only; those of them that are not in the source count as removed.
        allow_removals: remove whatever is missing, the removal guard notwithstanding.
        revalidate: have the photos of every listing seen asked again.
        check: raises where the lock `discover` was lost; called in every transaction that writes.

    Raises:
        SourceError, OutageError: from reading.
    """
    tells_active = source.tells_active(Runs(state).told_active())
    removals = Removals(state, run_id, check)
    removals.forget()
    comparison = _Comparison(source, state, parameters(settings, revalidate), removals, check)
    comparison.found.tells_active = tells_active
    for page in pages(source, settings.page_size, ids):
        comparison.compare(page)
    losses = comparison.losses
    removals.count(losses)
    if not allow_removals:
        comparison.found.refusal = refusal(losses, settings.max_removed, whole=ids is None)
    comparison.settle()
    return comparison.found


_INSERT = f"""
INSERT INTO listing (id, photo_fp, doc_fp, updated_at, columns, priority, revalidate, pending_since)
SELECT s.id, s.photo_fp, s.doc_fp, s.updated_at, s.columns, :nightly, :revalidate, now() FROM {SOURCE}
ON CONFLICT (id) DO NOTHING"""

_OF = f"FROM {SOURCE} WHERE listing.id = s.id AND listing.status"

# A leased listing stays leased: its completion sees that `requested` moved, and leaves it pending.
_REQUEST = """requested = listing.requested + 1, priority = :nightly, attempts = 0, transient_rounds = 0,
  not_before = NULL, error = NULL, pending_since = coalesce(listing.pending_since, now()),
  status = CASE WHEN listing.status = 'leased' THEN 'leased' ELSE 'pending' END"""

_COPIED = f"""doc_fp = s.doc_fp, columns = s.columns, updated_at = s.updated_at,
  revision = CASE WHEN listing.attributes IS NOT NULL THEN {NEXT_REVISION} ELSE listing.revision END"""
# They explain that it changed, but not an earlier change that still waits to be looked into.
_EXPLAINED = "updated_at_done = CASE WHEN listing.updated_at_done IS NOT NULL THEN s.updated_at END"
# Not where people have other columns copied, and none that we know has another value. A copied `updated_at`
# does not explain itself: without another one it is to be looked into, whatever moves by then.
_MOVED = """EXISTS (SELECT FROM jsonb_each(s.columns) AS c
  WHERE listing.columns -> c.key <> c.value AND c.key <> 'updated_at')"""
_TIME_MOVED = """(listing.photo_fp_done = s.photo_fp
  AND listing.columns -> 'updated_at' <> s.columns -> 'updated_at')"""

_WRITE_DOCUMENT = f"""UPDATE listing SET {_COPIED},
  updated_at_done = CASE WHEN listing.updated_at_done IS NULL THEN NULL WHEN {_MOVED} THEN s.updated_at
                         WHEN {_TIME_MOVED} THEN NULL ELSE listing.updated_at_done END
  {_OF} <> 'gone' AND {DOCUMENT_DIFFERS}"""

_WRITE_PHOTOS = f"""UPDATE listing SET photo_fp = s.photo_fp, updated_at = s.updated_at,
  revalidate = listing.revalidate OR :revalidate, {_REQUEST} {_OF} <> 'gone' AND {PHOTOS_DIFFER}"""

_WRITE_ASK_AGAIN = f"""UPDATE listing SET revalidate = true, updated_at = s.updated_at, {_REQUEST}
  {_OF} <> 'gone' AND {ASK_AGAIN}"""

_WRITE_TOUCHED = f"""UPDATE listing SET updated_at = s.updated_at, updated_at_done = s.updated_at
  {_OF} <> 'gone' AND {TOUCHED} AND s.versioned"""

_WRITE_PUT_OFF = f"""UPDATE listing SET updated_at = s.updated_at, updated_at_done = NULL
  {_OF} <> 'gone' AND {PUT_OFF}"""

_WRITE_RETURNED = f"""UPDATE listing SET photo_fp = s.photo_fp, {_COPIED}, {_EXPLAINED},
  revalidate = listing.revalidate OR :revalidate,
  requested = listing.requested + 1, priority = :nightly, attempts = 0, transient_rounds = 0,
  status = CASE WHEN {SAME} THEN 'done' ELSE 'pending' END,
  pending_since = CASE WHEN {SAME} THEN NULL ELSE now() END
  {_OF} = 'gone'"""

# An emptied listing is staged: of what differs, its copied columns alone are written at once.
_WITH_DOCUMENT = ("new", "returned", "changed", "documents", "emptied")
_WRITES = (
    (_INSERT, ("new",)),
    (_WRITE_RETURNED, ("returned",)),
    (_WRITE_ASK_AGAIN, ("documents", "revalidated")),
    (_WRITE_DOCUMENT, ("changed", "documents", "emptied")),
    (_WRITE_PHOTOS, ("changed",)),
    (_WRITE_TOUCHED, ("touched",)),
    (_WRITE_PUT_OFF, ("put_off",)),
)


class _Comparison:
    """One discovery under way."""

    def __init__(
        self,
        source: Source,
        state: Database,
        params: Mapping[str, Any],
        removals: Removals,
        check: Callable[[], None],
    ) -> None:
        self.found = Discovery()
        self.losses = Losses()
        self._source = source
        self._state = state
        self._params = dict(params)
        self._check = check
        self._removals = removals

    def compare(self, page: Page) -> None:
        """Compare a page of the source with our rows, and write down what differs."""
        self.losses.see(page)
        self.found.seen += len(page.listings)

        def work(state: Connection) -> dict[str, str]:
            self._check()
            kinds = classify(state, page.listings, self._params)
            self._removals.stage(state, page, sorted(id for id, kind in kinds.items() if kind == "emptied"))
            return kinds

        kinds = self._state.run(work)
        self.found.count(kinds)
        self._record(page.listings, kinds)

    def _record(self, listings: Sequence[SourceListing], kinds: Mapping[str, str]) -> None:
        documents = self._source.documents([id for id, kind in kinds.items() if kind in _WITH_DOCUMENT])
        writes = []
        for statement, wanted in _WRITES:
            chosen = [
                listing
                for listing in listings
                if (kind := kinds.get(listing.id)) in wanted
                # Gone since the page was read: the next run takes it away.
                and (kind not in _WITH_DOCUMENT or listing.id in documents)
            ]
            if chosen:
                writes.append((text(statement), self._params | {"page": as_json(chosen, documents)}))

        def work(state: Connection) -> None:
            self._check()
            for statement, params in writes:
                state.execute(statement, params)
            enqueue(state, list(documents))

        if writes:
            self._state.run(work)

    def settle(self) -> None:
        """Carry out what is staged, or leave all of it where the removal guard refused."""
        if self.found.refusal is None:
            self.found.removed = self.losses.removed
            self._removals.remove()
            for ids in self._removals.staged(emptied=True):
                self._record(self._source.by_ids(ids), dict.fromkeys(ids, "changed"))
        self._removals.forget()
