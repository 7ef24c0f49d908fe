"""What leaves the index: staged while discovery goes on, and carried out once the removal guard lets it pass.

A listing that is missing in the source leaves. One that lost all its photos stays, but its document would be
empty, so it counts as well, and is not made pending before the guard has seen how many there are. Staged rows
carry the run's id: what a run leaves behind that died, or that lost its lock, counts for no other run.
"""

# ruff: noqa: S608 (the statements are built from the constants here, never from values)

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, TextClause, text

from enrich.setting_values import parse_number_or_share, share_of
from enrich.source.pages import ABSENT, Page
from enrich.state.database import Database
from enrich.state.outbox import enqueue
from enrich.state.schema import NEXT_REVISION

FEW = 20
"""A share of the documents may always be this many: small portals remove a few."""
CHUNK = 5_000  # listings removed per transaction

_FORGET = text("DELETE FROM removal")

_STAGE_ABSENT = """
    INSERT INTO removal (run_id, listing_id, emptied)
    SELECT :run, listing.id, false FROM listing WHERE {ours} AND listing.status <> 'gone' AND {absent}
    ON CONFLICT DO NOTHING
"""

_STAGE_EMPTIED = text("""
    INSERT INTO removal (run_id, listing_id, emptied)
    SELECT :run, id, true FROM unnest(CAST(:ids AS text[])) AS e(id)
    ON CONFLICT DO NOTHING
""")

_COUNT = text("""
    SELECT count(*) FILTER (WHERE NOT r.emptied) AS removed,
           count(*) FILTER (WHERE NOT r.emptied AND listing.revision IS NOT NULL) AS leaving,
           count(*) FILTER (WHERE r.emptied) AS emptied,
           count(*) FILTER (WHERE listing.revision IS NOT NULL) AS documents
    FROM listing LEFT JOIN removal AS r ON r.listing_id = listing.id AND r.run_id = :run
    WHERE listing.status <> 'gone'
""")

_STAGED = text("""
    SELECT listing_id FROM removal
    WHERE run_id = :run AND emptied = :emptied AND listing_id > :after
    ORDER BY listing_id LIMIT :chunk
""")

# What was not done is made to look unfinished, so that it is enriched anew if it ever comes back.
_REMOVE = text(f"""
    UPDATE listing SET
        status = 'gone', requested = listing.requested + 1, lease_token = NULL, lease_worker = NULL,
        pending_since = NULL, not_before = NULL, attempts = 0, error = NULL,
        photo_fp_done = CASE WHEN listing.status = 'done' THEN listing.photo_fp_done END,
        revision = CASE WHEN listing.revision IS NOT NULL THEN {NEXT_REVISION} END
    WHERE id = ANY(:ids) AND status <> 'gone'
    RETURNING id
""")


@dataclass(slots=True)
class Losses:
    """What a discovery found lost, and what it saw at all."""

    removed: int = 0
    """Listings missing in the source."""
    leaving: int = 0
    """Those of them that have documents."""
    emptied: int = 0
    """Listings that are still there, with a document, but lost all their photos."""
    documents: int = 0
    """Documents of all listings that are not gone, published or not: an index may be filled just now."""
    seen: int = 0
    photos_seen: bool = False
    """Whether any listing of the source has a photo with a URL."""

    def see(self, page: Page) -> None:
        """Count what the source has."""
        self.seen += len(page.listings)
        self.photos_seen |= any(listing.pictured for listing in page.listings)


def refusal(losses: Losses, max_removed: str, whole: bool, command: str = "enrich run") -> str | None:
    """Why so many losses are not to be believed, for people; None where they are.

    `whole`: the whole source was read, not some listings of it. `command`: the one that may remove them.
    """
    share, number = parse_number_or_share(max_removed)
    limit = max(FEW, share_of(share, losses.documents)) if number is None else number
    if whole and not losses.seen and losses.documents:
        why = f"the source has no active listings at all, and {losses.documents} documents were made of some"
    elif whole and not losses.photos_seen and losses.emptied:
        why = f"the source has no photos at all, and {losses.emptied} documents were made from photos"
    elif losses.leaving + losses.emptied > limit:
        allowed = f"{share * 100:g} % (and more than {FEW})" if number is None else f"{number}"
        without = f" and {losses.emptied} would lose all their photos" if losses.emptied else ""
        why = (
            f"{losses.leaving} of {losses.documents} documents would be removed{without}: more than "
            f"{allowed}, which is what ENRICH_MAX_REMOVED={max_removed} allows"
        )
    else:
        return None
    return (
        f"{why}. None of this was removed, and all else was done. If it is right, `{command} "
        "--allow-removals` lets it pass; if not, look at the portal's tables"
    )


class Removals:
    """The table `removal`, for one run. The caller holds the lock `discover`; `check` raises once lost."""

    def __init__(self, state: Database, run_id: int, check: Callable[[], None]) -> None:
        self._state = state
        self._run: dict[str, Any] = {"run": run_id}
        self._check = check

    def forget(self) -> None:
        """Drop all that is staged: what earlier runs left behind, too."""
        self._write(_FORGET, {})

    def stage(self, state: Connection, page: Page, emptied: Sequence[str]) -> None:
        """Note which of our rows are missing in a page, and which of its listings lost all their photos."""
        absent = text(_STAGE_ABSENT.format(ours=page.ours, absent=ABSENT))
        state.execute(absent, self._run | page.scope)
        if emptied:
            state.execute(_STAGE_EMPTIED, self._run | {"ids": list(emptied)})

    def count(self, losses: Losses) -> None:
        """Count what is staged into `losses`."""
        (found,) = self._state.rows(_COUNT, **self._run)
        losses.removed, losses.leaving, losses.emptied, losses.documents = found

    def remove(self) -> None:
        """Make what is missing `gone`: its documents leave with the next publish."""
        for ids in self.staged(emptied=False):
            self._write(_REMOVE, {"ids": ids})

    def staged(self, *, emptied: bool) -> Iterator[list[str]]:
        """The listings that are missing, or those that lost all their photos, in chunks."""
        given = self._run | {"emptied": emptied, "after": "", "chunk": CHUNK}
        while ids := self._state.scalars(_STAGED, **given):
            yield ids
            given["after"] = ids[-1]

    def _write(self, statement: TextClause, given: Mapping[str, Any]) -> None:
        def work(state: Connection) -> None:
            self._check()  # at every try: an outage may have lasted longer than the lock
            moved = state.execute(statement, given)
            if moved.returns_rows:
                enqueue(state, moved.scalars().all())

        self._state.run(work)
