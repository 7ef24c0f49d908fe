"""Source and state side by side, a page at a time: which listings differ, and how.

What is compared is said here once, for discovery and for the dry run: `s` is the source's listing, `listing`
our row of it.
"""

# ruff: noqa: S608 (the statements are built from the constants here, never from values)

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, text

from enrich.settings import Settings
from enrich.source.portal import Source, SourceListing
from enrich.state.schema import NIGHTLY

IDS = 100_000
"""Ids read at a time. Each time reads the whole table where no index has them as text in byte order."""

SOURCE = """json_to_recordset(CAST(:page AS json)) AS s(id text COLLATE "C", updated_at timestamptz,
  photo_fp text, doc_fp text, versioned boolean, pictured boolean, columns jsonb)"""

PHOTOS_DIFFER = "listing.photo_fp <> s.photo_fp"
DOCUMENT_DIFFERS = "listing.doc_fp <> s.doc_fp"
# Enriched from these very photos, yet the listing says that it changed, and nothing that we see explains it.
# Without `updated_at_done`, an earlier such change still waits to be looked into, whatever changes meanwhile.
TOUCHED = """(listing.photo_fp = s.photo_fp AND listing.photo_fp_done = s.photo_fp
  AND (listing.doc_fp = s.doc_fp OR listing.updated_at_done IS NULL) AND NOT listing.revalidate
  AND listing.updated_at_done IS DISTINCT FROM s.updated_at)"""
# Seconds as a number: no interval is as long as people may say, and infinity is never again.
_DUE = """coalesce(extract(epoch FROM now() - listing.revalidated_at)
  >= CAST(:revalidate_after AS double precision), true)"""
# Not asked now, since its photos were asked lately; written down, so that nothing later explains it away.
PUT_OFF = f"""({TOUCHED} AND NOT s.versioned AND NOT {_DUE}
  AND (listing.updated_at_done IS NOT NULL OR listing.updated_at IS DISTINCT FROM s.updated_at))"""
ASK_AGAIN = f"(CAST(:revalidate AS boolean) OR ({TOUCHED} AND NOT s.versioned AND {_DUE}))"
# Back with the photos it was enriched from, all of them well: only its document has to return.
SAME = """(listing.photo_fp_done = s.photo_fp AND listing.attributes IS NOT NULL
  AND listing.transient_rounds = 0 AND NOT CAST(:revalidate AS boolean))"""

# Enriched from photos, for all that is known, and now without any that has a URL, which no discovery has
# accepted yet.
_EMPTIED = f"""NOT s.pictured AND {PHOTOS_DIFFER}
  AND listing.revision IS NOT NULL AND coalesce(listing.photo_fp_done, listing.photo_fp) <> ''
  AND coalesce((listing.attributes ->> 'photos_seen')::integer, 1) > 0"""

_CLASSIFY = text(f"""
    SELECT * FROM (
        SELECT s.id,
          CASE WHEN listing.id IS NULL THEN 'new' WHEN listing.status = 'gone' THEN 'returned'
               WHEN {_EMPTIED} THEN 'emptied' WHEN {PHOTOS_DIFFER} THEN 'changed'
               WHEN {DOCUMENT_DIFFERS} THEN 'documents' WHEN {ASK_AGAIN} THEN 'revalidated'
               WHEN {TOUCHED} AND s.versioned THEN 'touched' WHEN {PUT_OFF} THEN 'put_off' END AS kind
        FROM {SOURCE} LEFT JOIN listing ON listing.id = s.id
    ) AS compared
    WHERE kind IS NOT NULL
""")

_RANGE = """(CAST(:after AS text) IS NULL OR listing.id > :after)
  AND (CAST(:last AS text) IS NULL OR listing.id <= :last)"""
_NAMED = "listing.id = ANY(CAST(:ids AS text[]))"
ABSENT = """NOT EXISTS (
  SELECT FROM json_array_elements_text(CAST(:seen AS json)) AS s(id) WHERE s.id COLLATE "C" = listing.id)"""


@dataclass(frozen=True, slots=True)
class Page:
    """Active listings of the source, and which of our rows they are to be compared with."""

    listings: Sequence[SourceListing]
    after: str | None = None
    last: str | None = None
    ids: Sequence[str] | None = None
    """Given: these rows; else those with after < id <= last, open where None."""

    @property
    def ours(self) -> str:
        """The condition that chooses our rows, for the parameters `scope`."""
        return _RANGE if self.ids is None else _NAMED

    @property
    def scope(self) -> dict[str, Any]:
        """Parameters of `ours` and `ABSENT`."""
        if self.ids is None:
            chosen: dict[str, Any] = {"after": self.after, "last": self.last}
        else:
            chosen = {"ids": list(self.ids)}
        return chosen | {"seen": json.dumps([listing.id for listing in self.listings])}


def pages(source: Source, size: int, ids: Sequence[str] | None) -> Iterator[Page]:
    """All there is to compare, `size` listings at a time; only these `ids` where given."""
    if ids is not None:
        wanted = sorted({id for id in ids if "\0" not in id})
        for start in range(0, len(wanted), size):
            chunk = wanted[start : start + size]
            yield Page(source.by_ids(chunk), ids=chunk)
        return
    after = None
    while found := source.ids(after, IDS):
        for start in range(0, len(found), size):
            chunk = found[start : start + size]
            yield Page(source.by_ids(chunk), after, chunk[-1])
            after = chunk[-1]
    yield Page((), after, None)


def parameters(settings: Settings, revalidate: bool) -> dict[str, Any]:
    """Those of the conditions above, besides the page."""
    return {
        "revalidate": revalidate,
        "revalidate_after": settings.revalidate_after,
        "nightly": NIGHTLY,
    }


def classify(
    state: Connection, listings: Sequence[SourceListing], given: Mapping[str, Any]
) -> dict[str, str]:
    """Id -> how the listing differs: a kind of `Discovery`, "emptied" (was enriched from photos and has none
    any more), "touched" or "put_off"; those that do not are absent."""
    found = state.execute(_CLASSIFY, {**given, "page": as_json(listings)})
    return {row.id: row.kind for row in found}


def as_json(
    listings: Sequence[SourceListing], documents: Mapping[str, tuple[str, Mapping[str, Any]]] | None = None
) -> str:
    """The listings as `SOURCE` reads them. Copied columns come with the fingerprint read along with them."""
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
                "pictured": listing.pictured,
                "columns": columns,
            }
        )
    return json.dumps(rows, ensure_ascii=False)
