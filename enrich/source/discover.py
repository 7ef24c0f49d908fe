"""Discovery: compare all the source has with all our state has, and write down what is wanted.

The source is read in keyset pages. Each page is compared with our rows of the same range of ids in one
statement, so memory is bounded by the page, and unchanged listings cause no write. The caller holds the lock
`discover`; workers may claim and complete listings meanwhile, so every write checks its condition again.
"""

# ruff: noqa: S608 (the statements are put together from the constants here, never from values)

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Any

from sqlalchemy import Connection, text

from enrich.errors import RemovalGuardError
from enrich.settings import Settings, parse_max_removed
from enrich.source.portal import Source, SourceListing
from enrich.state.database import Database
from enrich.state.outbox import enqueue
from enrich.state.schema import NEXT_REVISION, NIGHTLY, PUBLISHED

FEW = 20
"""A share of the documents may always be this many: small portals remove a few."""


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
    ids: dict[str, list[str]] = field(default_factory=dict)
    """Only with `dry_run`: kind -> the ids behind the counts."""

    @property
    def unchanged(self) -> int:
        return self.seen - self.new - self.returned - self.changed - self.documents - self.revalidated

    def as_json(self) -> dict[str, int]:
        """The counts, for logs and the table `run`."""
        counts = {f.name: getattr(self, f.name) for f in fields(self) if f.name != "ids"}
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
    dry_run: bool = False,
) -> Discovery:
    """Bring the wanted side of our state up to what the source has now.

    Args:
        run_id: this run, to stage removals under.
        ids: compare these listings only; those of them that are not in the source count as removed.
        allow_removals: remove whatever is missing, the removal guard notwithstanding.
        revalidate: have the photos of every listing seen asked again.
        dry_run: write nothing, and list the ids of what would change.

    Raises:
        RemovalGuardError: too much would leave the index, or too many listings would lose all their photos;
            nothing is removed, all else is recorded.
        SourceError, OutageError: from reading.
    """
    comparison = _Comparison(source, state, settings, run_id, revalidate, dry_run)
    pages = _all_pages(source, settings.page_size) if ids is None else _named_pages(source, settings, ids)
    for page in pages:
        comparison.compare(page)
    comparison.remove(allow_removals, whole=ids is None)
    return comparison.found


@dataclass(frozen=True, slots=True)
class _Page:
    """Active listings of the source, and which of our rows they are to be compared with."""

    listings: Sequence[SourceListing]
    after: str | None = None
    last: str | None = None
    ids: Sequence[str] | None = None
    """Given: these rows; else those with after < id <= last, open where None."""


def _all_pages(source: Source, size: int) -> Iterator[_Page]:
    after = None
    while listings := source.page(after, size):
        yield _Page(listings, after, listings[-1].id)
        after = listings[-1].id
    yield _Page((), after, None)


def _named_pages(source: Source, settings: Settings, ids: Sequence[str]) -> Iterator[_Page]:
    wanted = sorted({id for id in ids if "\0" not in id})
    for start in range(0, len(wanted), settings.page_size):
        chunk = wanted[start : start + settings.page_size]
        yield _Page(source.by_ids(chunk), ids=chunk)


# What is compared, said once: `s` is the source's listing, `listing` our row of it.
_SOURCE = """json_to_recordset(CAST(:page AS json)) AS s(id text COLLATE "C", updated_at timestamptz,
  photo_fp text, doc_fp text, versioned boolean, columns jsonb)"""
_PHOTOS = "listing.photo_fp <> s.photo_fp"
_DOCUMENT = "listing.doc_fp <> s.doc_fp"
# Enriched from these very photos, yet the listing says that it changed, and nothing that we see explains it.
_TOUCHED = """(listing.photo_fp = s.photo_fp AND listing.photo_fp_done = s.photo_fp
  AND listing.doc_fp = s.doc_fp AND NOT listing.revalidate
  AND listing.updated_at_done IS DISTINCT FROM s.updated_at)"""
_DUE = "coalesce(listing.revalidated_at <= now() - make_interval(secs => :revalidate_after), true)"
_ASK_AGAIN = f"(CAST(:revalidate AS boolean) OR ({_TOUCHED} AND NOT s.versioned AND {_DUE}))"

_CLASSIFY = f"""
SELECT s.id,
  CASE WHEN listing.id IS NULL THEN 'new' WHEN listing.status = 'gone' THEN 'returned'
       WHEN {_PHOTOS} THEN 'changed' WHEN {_DOCUMENT} THEN 'documents' WHEN {_ASK_AGAIN} THEN 'revalidated'
       ELSE 'touched' END AS kind
FROM {_SOURCE} LEFT JOIN listing ON listing.id = s.id
WHERE listing.id IS NULL OR listing.status = 'gone' OR {_PHOTOS} OR {_DOCUMENT} OR {_ASK_AGAIN}
   OR ({_TOUCHED} AND s.versioned)"""

_RANGE = """(CAST(:after AS text) IS NULL OR listing.id > :after)
  AND (CAST(:last AS text) IS NULL OR listing.id <= :last)"""
_NAMED = "listing.id = ANY(CAST(:ids AS text[]))"
_MISSING = """listing.status <> 'gone' AND NOT EXISTS (
    SELECT FROM json_array_elements_text(CAST(:seen AS json)) AS s(id) WHERE s.id COLLATE "C" = listing.id)"""

_INSERT = f"""
INSERT INTO listing (id, photo_fp, doc_fp, updated_at, columns, priority, revalidate, pending_since)
SELECT s.id, s.photo_fp, s.doc_fp, s.updated_at, s.columns, :nightly, :revalidate, now() FROM {_SOURCE}
ON CONFLICT (id) DO NOTHING"""

_UPDATE = "UPDATE listing SET"
_OF = f"FROM {_SOURCE} WHERE listing.id = s.id AND listing.status"

# A leased listing stays leased: its completion sees that `requested` moved, and leaves it pending.
_REQUEST = """requested = listing.requested + 1, priority = :nightly, attempts = 0, transient_rounds = 0,
  not_before = NULL, error = NULL, pending_since = coalesce(listing.pending_since, now()),
  status = CASE WHEN listing.status = 'leased' THEN 'leased' ELSE 'pending' END"""

_COPIED = f"""doc_fp = s.doc_fp, columns = s.columns,
  updated_at = s.updated_at, updated_at_done = s.updated_at,
  revision = CASE WHEN listing.attributes IS NOT NULL THEN {NEXT_REVISION} ELSE listing.revision END"""

_WRITE_DOCUMENT = f"""{_UPDATE} {_COPIED} {_OF} <> 'gone' AND {_DOCUMENT}"""

_WRITE_PHOTOS = f"""{_UPDATE} photo_fp = s.photo_fp, updated_at = s.updated_at,
  revalidate = listing.revalidate OR :revalidate, {_REQUEST} {_OF} <> 'gone' AND {_PHOTOS}"""

_WRITE_ASK_AGAIN = f"""{_UPDATE} revalidate = true, updated_at = s.updated_at, {_REQUEST}
  {_OF} <> 'gone' AND {_ASK_AGAIN}"""

_WRITE_TOUCHED = f"""{_UPDATE} updated_at = s.updated_at, updated_at_done = s.updated_at
  {_OF} <> 'gone' AND {_TOUCHED} AND s.versioned"""

# Back with the photos it was enriched from, all of them well: only its document has to return.
_SAME = """(listing.photo_fp_done = s.photo_fp AND listing.attributes IS NOT NULL
  AND listing.transient_rounds = 0 AND NOT CAST(:revalidate AS boolean))"""
_WRITE_RETURNED = f"""{_UPDATE} photo_fp = s.photo_fp, {_COPIED}, revalidate = :revalidate,
  requested = listing.requested + 1, priority = :nightly, attempts = 0, transient_rounds = 0,
  status = CASE WHEN {_SAME} THEN 'done' ELSE 'pending' END,
  pending_since = CASE WHEN {_SAME} THEN NULL ELSE now() END
  {_OF} = 'gone'"""

_FIGURES = f"""
SELECT count(*) FILTER (WHERE missing_run = :run) AS removed,
       count(*) FILTER (WHERE missing_run = :run AND {PUBLISHED}) AS leaving,
       count(*) FILTER (WHERE {PUBLISHED}) AS published
FROM listing WHERE status <> 'gone'"""

_REMOVE = f"""{_UPDATE} status = 'gone', requested = listing.requested + 1, lease_token = NULL,
  lease_expires = NULL, pending_since = NULL, not_before = NULL, attempts = 0, error = NULL,
  revalidate = false, missing_run = NULL,
  revision = CASE WHEN listing.revision IS NOT NULL THEN {NEXT_REVISION} END
WHERE missing_run = :run AND status <> 'gone' RETURNING id"""


# Published from photos, and now without any.
_EMPTIED = f"""
SELECT count(*) FROM {_SOURCE} JOIN listing ON listing.id = s.id
WHERE listing.status <> 'gone' AND {PUBLISHED} AND listing.photo_fp_done <> ''"""

_UNSTAGE = f"{_UPDATE} missing_run = NULL WHERE missing_run = :run"

_WITH_DOCUMENT = ("new", "returned", "changed", "documents")
_WRITES = (
    (_INSERT, ("new",)),
    (_WRITE_RETURNED, ("returned",)),
    (_WRITE_DOCUMENT, ("changed", "documents")),
    (_WRITE_PHOTOS, ("changed",)),
    (_WRITE_ASK_AGAIN, ("revalidated",)),
    (_WRITE_TOUCHED, ("touched",)),
)


class _Comparison:
    """One discovery under way."""

    def __init__(
        self,
        source: Source,
        state: Database,
        settings: Settings,
        run_id: int,
        revalidate: bool,
        dry_run: bool,
    ) -> None:
        self.found = Discovery()
        self._source = source
        self._state = state
        self._settings = settings
        self._dry_run = dry_run
        self._leaving = 0
        self._emptied = 0
        self._photos_seen = False
        self._params = {
            "run": run_id,
            "revalidate": revalidate,
            "revalidate_after": settings.revalidate_after,
            "nightly": NIGHTLY,
        }

    def compare(self, page: _Page) -> None:
        """Compare a page of the source with our rows, and write down what differs."""
        params = self._params | {"page": _as_json(page.listings)}
        seen = json.dumps([listing.id for listing in page.listings])
        scope = params | {"after": page.after, "last": page.last, "ids": list(page.ids or ()), "seen": seen}
        missing = f"{_NAMED if page.ids is not None else _RANGE} AND {_MISSING}"

        def work(state: Connection) -> tuple[dict[str, str], list[Any]]:
            kinds = {row.id: row.kind for row in state.execute(text(_CLASSIFY), params)}
            if not self._dry_run:
                state.execute(text(f"{_UPDATE} missing_run = :run WHERE {missing}"), scope)
                return kinds, []
            listed = f"SELECT id, {PUBLISHED} FROM listing WHERE {missing}"
            return kinds, list(state.execute(text(listed), scope))

        kinds, absent = self._state.run(work)
        self.found.seen += len(page.listings)
        self._count(kinds)
        self._count_emptied(page.listings)
        if self._dry_run:
            self.found.ids.setdefault("removed", []).extend(id for id, _ in absent)
            self._leaving += sum(published for _, published in absent)
        else:
            self._record(page.listings, kinds)

    def _count(self, kinds: dict[str, str]) -> None:
        for kind in ("new", "returned", "changed", "documents", "revalidated"):
            ids = [id for id, its in kinds.items() if its == kind]
            setattr(self.found, kind, getattr(self.found, kind) + len(ids))
            if self._dry_run:
                self.found.ids.setdefault(kind, []).extend(ids)

    def _count_emptied(self, listings: Sequence[SourceListing]) -> None:
        bare = [listing for listing in listings if not listing.photo_fp]
        self._photos_seen |= len(bare) < len(listings)
        if bare:
            params = {"page": _as_json(bare)}
            self._emptied += self._state.run(lambda state: state.execute(text(_EMPTIED), params).scalar_one())

    def _record(self, listings: Sequence[SourceListing], kinds: dict[str, str]) -> None:
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
                writes.append((text(statement), self._params | {"page": _as_json(chosen, documents)}))

        def work(state: Connection) -> None:
            for statement, params in writes:
                state.execute(statement, params)
            enqueue(state, list(documents))

        if writes:
            self._state.run(work)

    def remove(self, allowed: bool, whole: bool) -> None:
        """Remove what is missing, unless that is more than the removal guard allows.

        A listing that lost all its photos counts as well: its document would stay, but empty.

        Raises:
            RemovalGuardError: it is, and nothing was removed.
        """
        figures = self._state.run(lambda state: state.execute(text(_FIGURES), self._params).one())
        removed, leaving = figures.removed, figures.leaving
        if self._dry_run:
            removed, leaving = len(self.found.ids.get("removed", ())), self._leaving
        refusal = _refusal(self._settings.max_removed, leaving, self._emptied, figures.published)
        if whole and self.found.seen == 0 and figures.published:
            refusal = (
                f"the source has no active listings at all, and {figures.published} documents are published"
            )
        elif whole and not self._photos_seen and self._emptied:
            refusal = f"the source has no photos at all, and {self._emptied} documents were made from photos"
        if refusal and not allowed:
            if not self._dry_run:
                self._state.run(lambda state: state.execute(text(_UNSTAGE), self._params))
            raise RemovalGuardError(
                f"{refusal}. Nothing was removed. If this is right, run again with --allow-removals; if not, "
                "look at the portal's tables"
            )
        self.found.removed = removed
        if removed and not self._dry_run:
            self._state.run(
                lambda state: enqueue(state, state.execute(text(_REMOVE), self._params).scalars().all())
            )


def _refusal(max_removed: str, leaving: int, emptied: int, published: int) -> str | None:
    """Why so many removals are not to be believed; None where they are."""
    share, number = parse_max_removed(max_removed)
    limit = max(FEW, int(share * published)) if number is None else number
    if leaving + emptied <= limit:
        return None
    without = f" and {emptied} would lose all their photos" if emptied else ""
    return (
        f"{leaving} of {published} published documents would be removed{without}, more than the {limit} that "
        f"ENRICH_MAX_REMOVED={max_removed} allows"
    )


def _as_json(
    listings: Sequence[SourceListing], documents: Mapping[str, tuple[str, Mapping[str, Any]]] | None = None
) -> str:
    """The listings as `_SOURCE` reads them. Copied columns come with the fingerprint read along with them."""
    rows = []
    for listing in listings:
        doc_fp, columns = (documents or {}).get(listing.id, (listing.doc_fp, {}))
        rows.append(
            {
                "id": listing.id,
                "updated_at": listing.updated_at and listing.updated_at.isoformat(),
                "photo_fp": listing.photo_fp,
                "doc_fp": doc_fp,
                "versioned": listing.versioned,
                "columns": columns,
            }
        )
    return json.dumps(rows, ensure_ascii=False)
