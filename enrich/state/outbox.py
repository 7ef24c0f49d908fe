"""The outbox: what is to be published is what has a revision that is not the published one."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, text

from enrich.records import WriteResult, WriteStatus
from enrich.state.database import Database
from enrich.state.photos import clean

_LOCK_TARGET = text("SELECT name, mode, uuid FROM target FOR UPDATE")

_SET_TARGET = text("""
    INSERT INTO target (name, mode, uuid) VALUES (:name, :mode, :uuid)
    ON CONFLICT (one) DO UPDATE SET name = excluded.name, mode = excluded.mode, uuid = excluded.uuid
""")

_PUBLISH_ALL = text("""
    UPDATE listing SET published_revision = NULL, publish_status = NULL, publish_error = NULL
    WHERE published_revision IS NOT NULL OR publish_status IS NOT NULL
""")

_UNPUBLISHED = text("""
    SELECT id, revision, status = 'gone' AS gone, attributes, columns, bundle_id, enriched_at
    FROM listing
    WHERE revision IS NOT NULL AND published_revision IS DISTINCT FROM revision
      AND id > :after
    ORDER BY id LIMIT :limit
""")

_SAME_TARGET = text("SELECT uuid = :uuid FROM target FOR SHARE")

_RECORD = text("""
    WITH given AS (
        SELECT r.*
        FROM jsonb_to_recordset(CAST(:rows AS jsonb))
             AS r(id text, revision bigint, status text, error text, index_revision bigint)
        JOIN listing AS l ON l.id = r.id
        ORDER BY l.id FOR NO KEY UPDATE OF l
    )
    UPDATE listing AS l SET
        published_revision = CASE WHEN g.status = 'done' THEN g.revision ELSE l.published_revision END,
        publish_status = CASE WHEN g.status = 'outdated' THEN l.publish_status ELSE g.status END,
        publish_error = g.error,
        revision = CASE WHEN g.status = 'outdated' AND l.revision = g.revision
                        THEN greatest(l.revision, g.index_revision) + 1 ELSE l.revision END
    FROM given AS g WHERE l.id = g.id
""")

_LOST = text("""
    UPDATE listing SET published_revision = NULL
    WHERE id = ANY(:ids) AND published_revision IS NOT NULL AND status <> 'gone'
""")

_COUNTS = text("""
    SELECT count(*) AS unpublished,
           count(*) FILTER (WHERE publish_status = 'awaiting') AS awaiting,
           count(*) FILTER (WHERE publish_status = 'refused') AS refused
    FROM listing
    WHERE revision IS NOT NULL AND published_revision IS DISTINCT FROM revision
""")


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


class Outbox:
    """Which documents are to be written, and what came of writing them. The caller holds lock `publish`."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._target: str | None = None

    def set_target(self, name: str, mode: str, uuid: str) -> bool:
        """Say which index is written to. Another one than last time makes everything unpublished: True."""

        def work(connection: Connection) -> bool:
            before = connection.execute(_LOCK_TARGET).one_or_none()
            if before is not None and tuple(before) == (name, mode, uuid):
                return False
            connection.execute(_SET_TARGET, {"name": name, "mode": mode, "uuid": uuid})
            connection.execute(_PUBLISH_ALL)
            return True

        changed = self._database.run(work)
        self._target = uuid
        return changed

    def unpublished(self, after: str | None, limit: int) -> list[OutboxRow]:
        """The next `limit` unpublished documents behind the id `after`, by id."""
        given = {"after": after or "", "limit": limit}
        rows = self._database.run(lambda connection: connection.execute(_UNPUBLISHED, given).all())
        return [OutboxRow(*row) for row in rows]

    def record(self, results: Sequence[WriteResult]) -> None:
        """Write down how the writes ended.

        A document is published at the revision *sent*: one that moved on meanwhile stays unpublished. Where
        the index holds a higher revision and ours has not moved on, ours is raised above it. Nothing is
        recorded for RETRY, nor after another process has set another target.
        """
        rows = [
            {
                "id": r.id,
                "revision": r.revision,
                "status": r.status.value,
                "error": clean(r.error),
                "index_revision": r.index_revision,
            }
            for r in results
            if r.status is not WriteStatus.RETRY
        ]

        def work(connection: Connection) -> None:
            if self._target is not None and not connection.scalar(_SAME_TARGET, {"uuid": self._target}):
                return
            connection.execute(_RECORD, {"rows": json.dumps(rows)})

        if rows:
            self._database.run(work)

    def mark_unpublished(self, ids: Sequence[str]) -> int:
        """Have these documents written again, because the index lost them; answers how many."""
        given = {"ids": list(ids)}
        return self._database.run(lambda connection: connection.execute(_LOST, given).rowcount)

    def counts(self) -> OutboxCounts:
        """What is unpublished now."""
        return OutboxCounts(*self._database.run(lambda connection: connection.execute(_COUNTS).one()))
