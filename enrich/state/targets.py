"""Several indices side by side: one serves, one may be in the making, and earlier ones are kept.

Whatever changes is entered in the outbox for each of them. So the one in the making is caught up by
publishing to it again, and it is known of a kept one what it lacks.
"""

from collections.abc import Sequence

from sqlalchemy import Connection, text

from enrich.state.database import Database
from enrich.state.outbox import DETHRONE, ENQUEUE_ALL, NO_OTHERS, SERVE, Outbox, OutboxCounts, OutboxRow

_ADD = text("""
    INSERT INTO target (name, mode, uuid, serving) VALUES (:name, :mode, :uuid, false)
    ON CONFLICT (name, mode, uuid) DO NOTHING RETURNING id
""")

_FIND = text("SELECT id FROM target WHERE name = :name AND mode = :mode AND uuid = :uuid")

_SERVING = text("SELECT id FROM target WHERE serving")

_OWN_COUNTS = text("""
    SELECT count(*), count(*) FILTER (WHERE status = 'awaiting'), count(*) FILTER (WHERE status = 'refused')
    FROM publication WHERE target = :target AND status <> 'done'
""")

_HELD = text("""
    SELECT count(*) FROM publication AS p JOIN listing AS l ON l.id = p.listing_id
    WHERE p.target = :target AND p.revision IS NOT NULL AND l.status <> 'gone'
""")

_LACKING = text("""
    SELECT p.listing_id FROM publication AS p JOIN target AS t ON t.id = p.target AND t.serving
    JOIN listing AS l ON l.id = p.listing_id AND l.status <> 'gone'
    LEFT JOIN publication AS made ON made.target = :target AND made.listing_id = p.listing_id
    WHERE p.revision IS NOT NULL AND made.revision IS NULL
    ORDER BY p.listing_id
""")

_SAMPLE = text("""
    SELECT l.id, l.revision, false, l.attributes, l.columns, l.bundle_id, l.enriched_at
    FROM publication AS p JOIN listing AS l ON l.id = p.listing_id AND l.revision = p.revision
    WHERE p.target = :target AND p.status = 'done' AND l.status <> 'gone'
    ORDER BY md5(l.id || CAST(:target AS text)) LIMIT :size
""")

_FORGET = text("DELETE FROM target WHERE NOT serving AND NOT (name = :name AND uuid = ANY(:kept))")


class Beside(Outbox):
    """The outbox of an index that is filled beside the one that serves. The caller holds lock `reindex`."""

    def set_target(self, name: str, mode: str, uuid: str) -> bool:
        """As `Outbox.set_target`, but it takes nobody's place."""
        given = {"name": name, "mode": mode, "uuid": uuid}

        def add(connection: Connection) -> tuple[int, bool]:
            connection.execute(NO_OTHERS)
            target = connection.scalar(_ADD, given)
            if target is None:
                return connection.execute(_FIND, given).scalar_one(), False
            connection.execute(ENQUEUE_ALL, {"target": target})
            return target, True

        self._target, new = self._database.run(add)
        return new

    def counts(self) -> OutboxCounts:
        """What this index lacks now."""
        return OutboxCounts(*self._database.rows(_OWN_COUNTS, target=self._target)[0])

    def held(self) -> int:
        """How many documents it should have by our records, give or take those that wait."""
        return int(self._database.scalar(_HELD, target=self._target))

    def lacking(self) -> list[str]:
        """Listings whose documents the index that serves has, and this one never took."""
        return self._database.scalars(_LACKING, target=self._target)

    def sample(self, size: int) -> list[OutboxRow]:
        """Some of what was published to it, from all over."""
        return [OutboxRow(*row) for row in self._database.rows(_SAMPLE, target=self._target, size=size)]


def known(connection: Connection, name: str, mode: str, uuid: str | None) -> int | None:
    """Which target of ours an index is; None: of none is anything known to be in it."""
    found: int | None = connection.scalar(_FIND, {"name": name, "mode": mode, "uuid": uuid})
    return found


def serving(connection: Connection) -> int | None:
    """Which target was published to last; None where nothing was."""
    found: int | None = connection.scalar(_SERVING)
    return found


def serve(database: Database, name: str, mode: str, uuid: str, kept: Sequence[str]) -> int:
    """Write down that an index serves now, and which are `kept` (UUIDs); how many documents it is to get.

    The others are forgotten. The caller holds the lock `publish`.
    """
    given = {"name": name, "mode": mode, "uuid": uuid, "kept": list(kept)}

    def work(connection: Connection) -> int:
        connection.execute(NO_OTHERS)
        target, new = connection.execute(SERVE, given).one()
        connection.execute(DETHRONE, {"target": target})
        connection.execute(_FORGET, given)
        if new:
            connection.execute(ENQUEUE_ALL, {"target": target})
        return int(connection.execute(_OWN_COUNTS, {"target": target}).one()[0])

    return database.run(work)
