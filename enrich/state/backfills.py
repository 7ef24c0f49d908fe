"""Backfills: listings to be enriched again, asked for as a job that outlives the process that asked.

A backfill only marks listings; any process enriches them. Marking goes in pages, each in one transaction with
the cursor that says how far it got, so whoever comes next goes on there.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, text

from enrich.state.database import Database
from enrich.state.schema import BACKFILL

MARK_PAGE = 10_000  # listings marked per transaction, so that workers beside it are not held up

_ONE_AT_A_TIME = text("LOCK TABLE backfill IN SHARE ROW EXCLUSIVE MODE")

_FIND = text("""
    SELECT id FROM backfill
    WHERE done_at IS NULL
      AND (ids, since, stale_bundle, revalidate)
          IS NOT DISTINCT FROM (CAST(:ids AS text[]), CAST(:since AS timestamptz), :stale_bundle, :revalidate)
    ORDER BY id LIMIT 1
""")

_BOUND = text("UPDATE backfill SET max_flips = :max_flips WHERE id = :id")

_ADD = text("""
    INSERT INTO backfill (ids, since, stale_bundle, revalidate, max_flips)
    VALUES (CAST(:ids AS text[]), :since, :stale_bundle, :revalidate, :max_flips)
    RETURNING id
""")

_UNMARKED = text("SELECT id FROM backfill WHERE marked_at IS NULL ORDER BY id")

_LOCK = text("""
    SELECT id, ids, since, stale_bundle, revalidate, cursor
    FROM backfill WHERE id = :id AND marked_at IS NULL FOR UPDATE
""")

# Without ids, what is quarantined is left alone. One in retry that is pending all the same was only put off.
_MARK = text("""
    WITH page AS (
        SELECT id FROM listing
        WHERE id > :cursor
          AND status <> 'gone'
          AND CASE WHEN CAST(:ids AS text[]) IS NULL THEN status <> 'quarantined' ELSE id = ANY(:ids) END
          AND (CAST(:since AS timestamptz) IS NULL OR updated_at >= :since)
          AND (CAST(:stale_bundle AS text) IS NULL OR bundle_id IS DISTINCT FROM :stale_bundle)
        ORDER BY id LIMIT :page FOR NO KEY UPDATE
    )
    UPDATE listing AS l SET
        backfill = :id,
        requested = l.requested + 1,
        revalidate = l.revalidate OR :revalidate,
        attempts = CASE WHEN l.status = 'quarantined' THEN 0 ELSE l.attempts END,
        priority = CASE WHEN l.status IN ('done', 'quarantined')
                          OR (l.status = 'retry' AND l.pending_since IS NULL)
                        THEN :priority ELSE l.priority END,
        not_before = NULL,
        pending_since = coalesce(l.pending_since, now()),
        status = CASE WHEN l.status = 'leased' THEN l.status ELSE 'pending' END
    FROM page WHERE l.id = page.id
    RETURNING l.id
""")

_ADVANCE = text("UPDATE backfill SET cursor = :cursor, marked = marked + :count WHERE id = :id")

_MARKED = text("UPDATE backfill SET marked_at = now() WHERE id = :id")

_COUNT = text("SELECT marked FROM backfill WHERE id = :id")

_HELD = text("SELECT held FROM backfill WHERE id = :id")

# One in retry that is still a backfill's was put off, as for a paused host: its completion would end that.
_FINISH = text("""
    UPDATE backfill SET done_at = now()
    WHERE marked_at IS NOT NULL AND done_at IS NULL
      AND NOT EXISTS (
          SELECT FROM listing
          WHERE listing.backfill = backfill.id AND listing.status IN ('pending', 'leased', 'retry'))
""")

_PROGRESS = text("""
    SELECT id, cardinality(ids) AS named, since, stale_bundle, revalidate, marked,
           (SELECT count(*) FROM listing
            WHERE listing.backfill = backfill.id
              AND listing.status IN ('pending', 'leased', 'retry')) AS "left",
           created_at, marked_at, done_at, flips, held
    FROM backfill
    WHERE done_at IS NULL OR id IN (SELECT id FROM backfill ORDER BY id DESC LIMIT 5)
    ORDER BY id DESC
""")


@dataclass(frozen=True, slots=True)
class Selection:
    """Which listings to enrich again: all that is not gone, but what each of these leaves out."""

    ids: Sequence[str] | None = None
    """Only these. Quarantined listings are left alone unless they are named here."""
    since: datetime | None = None
    """Only what changed in the portal (`updated_at`) at or after this time."""
    stale_bundle: str | None = None
    """Only what was made with another bundle than this one, the current one's id."""
    revalidate: bool = False
    """Have their photos asked for again."""

    def as_row(self) -> dict[str, Any]:
        """The columns of `backfill`; the same for the same ids in any order."""
        ids = None if self.ids is None else sorted({id for id in self.ids if "\0" not in id})
        return asdict(self) | {"ids": ids}


@dataclass(frozen=True, slots=True)
class Asked:
    """A backfill that was asked for; `joined`: it was there already, unfinished."""

    id: int
    joined: bool


@dataclass(frozen=True, slots=True)
class Backfill:
    """A backfill and how far it got."""

    id: int
    named: int | None
    """How many listings it names; None: it is not restricted to some."""
    since: datetime | None
    stale_bundle: str | None
    revalidate: bool
    marked: int
    left: int
    """Listings that it marked and that are not enriched yet, nor marked by a later backfill."""
    created_at: datetime
    marked_at: datetime | None
    """When all listings were marked; None while marking goes on, or waits for the next start."""
    done_at: datetime | None
    flips: Mapping[str, Mapping[str, int]]
    """Filters that it changed so far, where a bound was set: `flips.Counts`."""
    held: str | None
    """Why it was ended before all was enriched."""


class Backfills:
    """The table `backfill`."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def ask(self, selection: Selection, max_flips: str | None = None) -> Asked:
        """Ask for a backfill, or join an unfinished one that asks for the same. Marks nothing yet.

        `max_flips`: it is held before more listings than this number, or share of those marked, change the
        same filter. Of one that is joined, the bound is this one from now on; None leaves it as it is.
        """
        given = selection.as_row() | {"max_flips": max_flips}

        def work(connection: Connection) -> Asked:
            connection.execute(_ONE_AT_A_TIME)
            connection.execute(_FINISH)
            found = connection.execute(_FIND, given).scalar()
            if found is not None:
                if max_flips is not None:
                    connection.execute(_BOUND, {"id": found, "max_flips": max_flips})
                return Asked(found, joined=True)
            return Asked(connection.execute(_ADD, given).scalar_one(), joined=False)

        return self._database.run(work)

    def mark(self, stopping: Callable[[], bool] = lambda: False) -> None:
        """Make the listings of all backfills pending, behind the nightly run's, as far as that is not done.

        Several processes may do so at once. When told to stop, the next call goes on.
        """
        for id in self.unmarked():
            while not stopping() and self._mark_page(id):
                pass

    def unmarked(self) -> list[int]:
        """The backfills whose listings are not all marked yet."""
        return self._database.scalars(_UNMARKED)

    def _mark_page(self, id: int) -> bool:
        """Mark one page; whether there may be more."""

        def work(connection: Connection) -> bool:
            job = connection.execute(_LOCK, {"id": id}).mappings().one_or_none()
            if job is None:
                return False
            page = connection.execute(_MARK, {**job, "priority": BACKFILL, "page": MARK_PAGE}).scalars().all()
            if page:
                connection.execute(_ADVANCE, {"id": id, "cursor": max(page), "count": len(page)})
            else:
                connection.execute(_MARKED, {"id": id})
            return bool(page)

        return self._database.run(work)

    def finish(self) -> None:
        """Note which backfills are done: marked in full, and nothing that they marked waits any more."""
        self._database.execute(_FINISH)

    def marked(self, id: int) -> int:
        """How many listings a backfill has marked."""
        return int(self._database.scalar(_COUNT, id=id))

    def held(self, id: int) -> str | None:
        """Why a backfill was ended before all was enriched; None: it was not."""
        held: str | None = self._database.scalar(_HELD, id=id)
        return held


def progress(connection: Connection) -> tuple[Backfill, ...]:
    """The unfinished backfills and the last five asked for, newest first."""
    return tuple(Backfill(*row) for row in connection.execute(_PROGRESS))
