"""Several indices side by side: one serves, one may be in the making, and earlier ones are kept.

Whatever changes is entered in the outbox for each of them. So the one in the making is caught up by
publishing to it again, and it is known of a kept one what it lacks.
"""

from collections.abc import Sequence
from functools import partial

from sqlalchemy import Connection, text

from enrich.state.database import Database
from enrich.state.outbox import COUNTED, DETHRONE, NO_OTHERS, ROWS, Outbox, OutboxCounts, OutboxRow, enter
from enrich.state.schema import SERVED

_FIND = text("SELECT id FROM target WHERE name = :name AND mode = :mode AND uuid = :uuid")

_SERVING = text("SELECT id FROM target WHERE serving")

_OWN_COUNTS = text(f"""
    SELECT {COUNTED} FROM publication AS p WHERE p.target = :target AND p.status <> 'done'
""")  # noqa: S608 (our own constant)

_HELD = text("""
    SELECT count(*) FROM publication AS p JOIN listing AS l ON l.id = p.listing_id
    WHERE p.target = :target AND p.revision IS NOT NULL AND l.status <> 'gone'
""")

_LACKING = text(f"""
    SELECT p.listing_id FROM {SERVED}
    JOIN listing AS l ON l.id = p.listing_id AND l.status <> 'gone'
    LEFT JOIN publication AS made ON made.target = :target AND made.listing_id = p.listing_id
    WHERE p.revision IS NOT NULL AND made.revision IS NULL
    ORDER BY p.listing_id
""")  # noqa: S608 (our own constant)

_SAMPLE = text(f"""{ROWS}
      AND p.status = 'done' AND l.revision = p.revision AND l.status <> 'gone'
    ORDER BY md5(l.id || CAST(:target AS text)) LIMIT :size
""")

_FORGET = text("DELETE FROM target WHERE NOT serving AND NOT (name = :name AND uuid = ANY(:kept))")

_BESIDE = text("SELECT uuid FROM target WHERE name = :name AND mode = :mode AND NOT serving")

_FORGET_GONE = text("DELETE FROM target WHERE NOT serving AND uuid = ANY(:gone)")


class Beside(Outbox):
    """The outbox of an index that is filled beside the one that serves. The caller holds lock `reindex`."""

    def set_target(self, name: str, mode: str, uuid: str) -> bool:
        """As `Outbox.set_target`, but it takes nobody's place."""
        given = {"name": name, "mode": mode, "uuid": uuid}
        self._target, new = self._database.run(partial(enter, index=given, serving=False))
        return new

    def counts(self) -> OutboxCounts:
        """What this index lacks now."""
        return OutboxCounts(*self._database.rows(_OWN_COUNTS, target=self._target)[0])

    def held(self) -> int:
        """How many documents it should have by our records, give or take those that wait."""
        return int(self._database.scalar(_HELD, target=self._target))

    def lacking(self) -> list[str]:
        """Listings that this index never took, and the one that serves did, if only to take them away."""
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


def beside(database: Database, name: str, mode: str) -> list[str]:
    """The indices (UUIDs) beside the one that serves: those kept, and one in the making."""
    return database.scalars(_BESIDE, name=name, mode=mode)


def forget(database: Database, gone: Sequence[str]) -> None:
    """Have nothing wait any more for these indices (UUIDs), of which none serves."""

    def work(connection: Connection) -> None:
        connection.execute(NO_OTHERS)
        connection.execute(_FORGET_GONE, {"gone": list(gone)})

    database.run(work)


def serve(database: Database, name: str, mode: str, uuid: str, kept: Sequence[str]) -> int:
    """Write down that an index serves now, and which are `kept` (UUIDs); how many documents it is to get.

    The others are forgotten. The caller holds the lock `publish`.
    """
    given = {"name": name, "mode": mode, "uuid": uuid, "kept": list(kept)}

    def work(connection: Connection) -> int:
        target, _ = enter(connection, given, serving=True)
        connection.execute(DETHRONE, {"target": target})
        connection.execute(_FORGET, given)
        return int(connection.execute(_OWN_COUNTS, {"target": target}).one()[0])

    return database.run(work)
