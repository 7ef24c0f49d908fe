"""The outbox: which documents each target is still to get, in table `publication`.

Whatever moves a listing's revision calls `enqueue` in the same transaction, after its last write to
`listing`: locks are taken on listings first and on publications last, both in the order of ids. A publication
that is recorded is locked before the listing's revision is read, so a revision that moves meanwhile stays
waiting.
"""

from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, text

from enrich.records import WriteResult, WriteStatus
from enrich.state.database import Database
from enrich.state.schema import DIFFERS_ANEW, NEXT_REVISION, SERVED
from enrich.state.settle import clean

VARYING = r"('[^']*')?\. Preview of field's value: .*|'[^']*'|\"[^\"]*\"|(?<!\w)\d+(?!\w)"
"""What differs from document to document in an index's reasons; Postgres reads it as Python does."""

# A new target waits for those who have seen which targets there are, and they for it; a backup for neither.
_ENQUEUE = text("""
    LOCK TABLE target IN ROW SHARE MODE;
    INSERT INTO publication (target, listing_id)
    SELECT t.id, l.id
    FROM target AS t CROSS JOIN listing AS l
    LEFT JOIN publication AS p ON p.target = t.id AND p.listing_id = l.id
    WHERE l.id = ANY(:ids) AND l.revision IS NOT NULL AND p.revision IS DISTINCT FROM l.revision
    ORDER BY t.id, l.id
    ON CONFLICT (target, listing_id) DO UPDATE SET status = 'waiting', error = NULL, not_before = NULL
""")

_KNOWN = text("SELECT id FROM target WHERE name = :name AND mode = :mode AND uuid = :uuid AND serving")

NO_OTHERS = text("LOCK TABLE target IN EXCLUSIVE MODE")

_TARGET = text("""
    INSERT INTO target (name, mode, uuid, serving) VALUES (:name, :mode, :uuid, :serving)
    ON CONFLICT (name, mode, uuid) DO UPDATE SET serving = target.serving OR excluded.serving
    RETURNING id, xmax = 0 AS new
""")

DETHRONE = text("UPDATE target SET serving = false WHERE serving AND id <> :target")

_DROP_OTHERS = text("""
    DELETE FROM target WHERE id <> :target AND (serving OR (name, mode) <> (:name, :mode))
""")

# Until the planner has seen so many new rows, it joins them in ways that take a hundred times as long. Whose
# role may not analyze the table gets a warning from Postgres that nobody sees, and waits for autovacuum.
_ENQUEUE_ALL = text("""
    INSERT INTO publication (target, listing_id) SELECT :target, id FROM listing WHERE revision IS NOT NULL;
    ANALYZE publication
""")

ROWS = """
    SELECT l.id, l.revision, l.status = 'gone' AS gone, l.attributes, l.columns, l.bundle_id, l.enriched_at
    FROM publication AS p JOIN listing AS l ON l.id = p.listing_id
    WHERE p.target = :target
"""
"""The columns of `OutboxRow`."""

# Both ids are held against `after`: a merge join would else read all listings before it, too.
_UNPUBLISHED = text(f"""{ROWS}
      AND p.status <> 'done' AND p.listing_id > :after AND l.id > :after
      AND (p.not_before IS NULL OR p.not_before <= now())
    ORDER BY p.listing_id LIMIT :limit
""")

_WAITING = text(f"""{ROWS}
      AND p.status <> 'done' AND p.listing_id = ANY(:ids)
    ORDER BY p.listing_id
""")

_GIVEN = """unnest(CAST(:ids AS text[]), CAST(:revisions AS bigint[]), CAST(:statuses AS text[]),
    CAST(:errors AS text[]), CAST(:index_revisions AS bigint[]))
    AS given(id, revision, status, error, index_revision)"""

_OVERTAKE = text(f"""
    WITH behind AS (
        SELECT listing.id,
               CASE WHEN given.index_revision IS NULL THEN {NEXT_REVISION}
                    ELSE greatest(listing.revision, given.index_revision) + 1 END AS revision
        FROM {_GIVEN} JOIN listing ON listing.id = given.id AND listing.revision = given.revision
        WHERE given.status = 'outdated'
        ORDER BY listing.id FOR NO KEY UPDATE OF listing
    )
    UPDATE listing SET revision = behind.revision FROM behind WHERE listing.id = behind.id
    RETURNING listing.id
""")  # noqa: S608 (our own constants)

# The rows are few and named: with these costs the planner takes them from the indices of a small table, too.
# The update sees the listings' revisions as they are once the locks are held: each statement looks anew.
# What comes late, from a process that stood still while another one published, takes nothing back.
_RECORD = text(f"""
    SET LOCAL random_page_cost = 1.1;
    SELECT FROM publication WHERE target = :target AND listing_id = ANY(CAST(:ids AS text[]))
    ORDER BY listing_id FOR NO KEY UPDATE;
    UPDATE publication AS p SET
        revision = CASE WHEN given.status = 'done' THEN given.revision ELSE p.revision END,
        status = CASE WHEN same THEN given.status ELSE 'waiting' END,
        error = CASE WHEN same THEN given.error END,
        not_before = CASE WHEN same AND given.status <> 'done' THEN CAST('infinity' AS timestamptz) END
    FROM {_GIVEN}
    JOIN listing AS l ON l.id = given.id
    CROSS JOIN LATERAL (SELECT l.revision = given.revision) AS compared(same)
    WHERE p.target = :target AND p.listing_id = given.id AND given.status <> 'outdated'
      AND (p.revision IS NULL OR p.revision <= given.revision)
""")  # noqa: S608 (our own constants)

_ASK_AGAIN = text("""
    WITH tried AS (
        SELECT listing_id FROM publication
        WHERE target = :target AND status <> 'done' AND not_before IS NOT NULL
        ORDER BY listing_id FOR NO KEY UPDATE
    )
    UPDATE publication AS p SET not_before = NULL FROM tried
    WHERE p.target = :target AND p.listing_id = tried.listing_id
""")

_LOST = text("""
    WITH lost AS (
        SELECT p.listing_id FROM publication AS p
        JOIN listing AS l ON l.id = p.listing_id AND l.status <> 'gone'
        WHERE p.target = :target AND p.listing_id = ANY(:ids) AND p.revision IS NOT NULL
        ORDER BY p.listing_id FOR NO KEY UPDATE OF p
    )
    UPDATE publication AS p SET revision = NULL, status = 'waiting', error = NULL, not_before = NULL FROM lost
    WHERE p.target = :target AND p.listing_id = lost.listing_id
""")

COUNTED = """count(*) AS unpublished, count(*) FILTER (WHERE p.status = 'awaiting') AS awaiting,
           count(*) FILTER (WHERE p.status = 'refused') AS refused"""
"""`OutboxCounts` of publications that are not done."""

_COUNTS = text(f"""
    SELECT {COUNTED} FROM {SERVED} WHERE p.status <> 'done'
    UNION ALL
    SELECT count(*), 0, 0 FROM listing WHERE revision IS NOT NULL AND NOT EXISTS (SELECT FROM target)
    ORDER BY unpublished DESC LIMIT 1
""")  # noqa: S608 (our own constants)

_REFUSALS = text(f"""
    SELECT regexp_replace(coalesce(p.error, 'unknown'), :varying, '...', 'g') AS reason,
           count(*) AS documents, min(p.listing_id) AS example
    FROM {SERVED}
    WHERE p.status = 'refused'
    GROUP BY reason ORDER BY count(*) DESC, reason LIMIT :most
""")  # noqa: S608 (our own constants)


@dataclass(frozen=True, slots=True)
class OutboxRow:
    """One document to write, or to take away where the listing is `gone`."""

    id: str
    revision: int
    gone: bool
    attributes: dict[str, Any] | None
    """As published: the model's with overrides over them."""
    columns: dict[str, Any]
    bundle_id: str | None
    enriched_at: datetime | None


@dataclass(frozen=True, slots=True)
class OutboxCounts:
    """Of all that is unpublished: how many wait for the portal's document, how many the index refused."""

    unpublished: int
    awaiting: int
    refused: int


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why the index refused documents; `reason` without what differs from document to document."""

    reason: str
    documents: int
    example: str
    """The id of one of the listings."""


def enqueue(connection: Connection, ids: Sequence[str]) -> None:
    """Have all targets get those of these listings whose revision they do not hold.

    For the transaction that moved the revisions. Listings that have none, or that did not move, are left out.
    """
    if ids:
        connection.execute(_ENQUEUE, {"ids": list(ids)})


def enter(connection: Connection, index: Mapping[str, Any], serving: bool) -> tuple[int, bool]:
    """Which target an index is, by `name`, `mode` and `uuid`, and whether it is a new one.

    A new one is to get everything. No other comes or goes until the transaction ends.
    """
    connection.execute(NO_OTHERS)
    target, new = connection.execute(_TARGET, {**index, "serving": serving}).one()
    if new:
        connection.execute(_ENQUEUE_ALL, {"target": target})
    return target, new


def counts(connection: Connection) -> OutboxCounts:
    """What the index that serves lacks now."""
    return OutboxCounts(*connection.execute(_COUNTS).one())


def refusals(connection: Connection, most: int) -> tuple[Refusal, ...]:
    """Why documents are refused, the most frequent reasons first."""
    return tuple(Refusal(*row) for row in connection.execute(_REFUSALS, {"varying": VARYING, "most": most}))


class Outbox:
    """Which documents are to be written, and what came of writing them. The caller holds lock `publish`.

    Reading and recording are about the target set last; before `set_target` there is nothing to write.
    """

    def __init__(self, database: Database) -> None:
        self._database = database
        self._target: int | None = None

    def set_target(self, name: str, mode: str, uuid: str) -> bool:
        """Say which index is written to. One not known yet is to get everything: True.

        It takes the place of the one that served before. That is forgotten, unless this one was filled
        beside it (`enrich.state.targets`): then it is kept. Those kept under another name or mode are
        forgotten, too, since nobody goes back to them.
        """
        given = {"name": name, "mode": mode, "uuid": uuid}

        def serve(connection: Connection) -> tuple[int, bool]:
            target, new = enter(connection, given, serving=True)
            connection.execute(_DROP_OTHERS if new else DETHRONE, given | {"target": target})
            return target, new

        known: int | None = self._database.scalar(_KNOWN, **given)
        self._target, new = (known, False) if known is not None else self._database.run(serve)
        return new

    def unpublished(self, after: str | None, limit: int) -> list[OutboxRow]:
        """The next `limit` documents behind the id `after` that are due, by id."""
        rows = self._database.rows(_UNPUBLISHED, target=self._target, after=after or "", limit=limit)
        return [OutboxRow(*row) for row in rows]

    def waiting(self, ids: Sequence[str]) -> list[OutboxRow]:
        """Those of these documents that are unpublished, due or not, by id."""
        rows = self._database.rows(_WAITING, target=self._target, ids=list(ids))
        return [OutboxRow(*row) for row in rows]

    def record(self, results: Sequence[WriteResult]) -> None:
        """Write down how the writes ended.

        A document is published at the revision *sent*: one that moved on meanwhile stays waiting. One that is
        refused or awaits the portal's document rests until `ask_again`. Where the index holds a higher
        revision and ours has not moved on, ours is raised above it; above all that were made so far, where
        the index does not say which. Nothing is recorded for RETRY, nor for a target that is no more.
        """
        ended = [result for result in results if result.status is not WriteStatus.RETRY]
        given = {
            "target": self._target,
            "ids": [result.id for result in ended],
            "revisions": [result.revision for result in ended],
            "statuses": [result.status.value for result in ended],
            "errors": [clean(result.error) for result in ended],
            "index_revisions": [result.index_revision for result in ended],
        }

        def overtake(connection: Connection) -> None:
            enqueue(connection, connection.execute(_OVERTAKE, given).scalars().all())

        if any(result.status is WriteStatus.OUTDATED for result in ended):
            self._database.run(overtake)
        if ended:
            self._database.execute(_RECORD, **given)

    def cut(self, ids: Sequence[str], without: Set[str]) -> None:
        """Say that these documents are about to be written without these copied columns, which we have."""
        self._database.execute(DIFFERS_ANEW, ids=list(ids), without=sorted(without))

    def ask_again(self) -> None:
        """Have what was refused, or awaits the portal's document, tried once more."""
        self._database.execute(_ASK_AGAIN, target=self._target)

    def mark_unpublished(self, ids: Sequence[str]) -> int:
        """Have these documents written again, because the index lost them; answers how many."""
        known = [id for id in ids if "\0" not in id]
        return self._database.execute(_LOST, target=self._target, ids=known)

    def counts(self) -> OutboxCounts:
        """What the index that serves lacks now."""
        return self._database.run(counts)
