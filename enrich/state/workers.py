"""Workers: the processes that hold listings, and their signs of life. Functions on an open transaction.

A worker has one row, from its first claim to its end. Its leases hold while the row's `expires` lies ahead,
by the database's clock; so a heartbeat renews one row, however many listings are in hand.
"""

import os
import socket
from dataclasses import asdict, dataclass
from datetime import datetime

from sqlalchemy import Connection, text

_RENEW = text("""
    INSERT INTO worker AS w (id, host, pid, doing, expires)
    VALUES (CAST(:id AS uuid), :host, :pid, :doing, clock_timestamp() + :lease * interval '1 second')
    ON CONFLICT (id) DO UPDATE SET seen = clock_timestamp(), expires = excluded.expires
    RETURNING w.seen = w.started
""")

# Rows that somebody else removes or renews just now are left to them.
_CLEAN_UP = text("""
    DELETE FROM worker WHERE id IN (
        SELECT id FROM worker AS w
        WHERE expires < clock_timestamp() AND NOT EXISTS (SELECT FROM listing WHERE lease_worker = w.id)
        FOR UPDATE SKIP LOCKED
    )
""")

_LEAVE = text("DELETE FROM worker WHERE id = CAST(:id AS uuid)")

_LIVE = text("""
    SELECT host, pid, doing, started, seen,
           (SELECT count(*) FROM listing WHERE lease_worker = w.id AND status = 'leased') AS listings
    FROM worker AS w WHERE expires > clock_timestamp()
    ORDER BY started, host, pid
""")


def this_process() -> str:
    """What people call it, in locks and runs: `host:pid`."""
    return f"{socket.gethostname()}:{os.getpid()}"


@dataclass(frozen=True, slots=True)
class Identity:
    """Who holds leases: `id` is a uuid of this process's own, `doing` what people call its work."""

    id: str
    host: str
    pid: int
    doing: str


@dataclass(frozen=True, slots=True)
class Worker:
    """A live worker, as `enrich status` shows it."""

    host: str
    pid: int
    doing: str
    started: datetime
    seen: datetime
    listings: int
    """How many listings it has in hand."""


def renew(connection: Connection, me: Identity, lease_seconds: float) -> None:
    """Say that this worker lives, for `lease_seconds` from now.

    One without a row, because it is new or a backup was restored, gets one; rows of workers that ended long
    ago are cleaned up then.
    """
    if connection.execute(_RENEW, asdict(me) | {"lease": lease_seconds}).scalar_one():
        connection.execute(_CLEAN_UP)


def leave(connection: Connection, me: Identity) -> None:
    """Remove this worker; what it still holds is free for others at once."""
    connection.execute(_LEAVE, {"id": me.id})


def live(connection: Connection) -> tuple[Worker, ...]:
    """All workers whose leases hold, the oldest first."""
    return tuple(Worker(*row) for row in connection.execute(_LIVE))
