"""Locks: what only one process may do at a time.

A lock is a row with holder, token and expiry by the database's clock. It needs no session, so it holds behind
transaction pooling too; the lock of a holder that died is taken over once it has expired.
"""

import logging
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from threading import Event, Thread
from typing import Any
from uuid import uuid4

from sqlalchemy import Connection, TextClause, text

from enrich.errors import BusyError, EnrichError, LockLostError
from enrich.state.database import Database
from enrich.state.workers import this_process

log = logging.getLogger(__name__)
JOIN_SECONDS = 5.0  # a renewal that hangs holds nobody up

_ACQUIRE = text("""
    INSERT INTO lock AS l (name, holder, token, expires)
    VALUES (:name, :holder, CAST(:token AS uuid), clock_timestamp() + :lease * interval '1 second')
    ON CONFLICT (name) DO UPDATE
    SET holder = excluded.holder, token = excluded.token,
        expires = clock_timestamp() + :lease * interval '1 second'
    WHERE l.token IS NULL OR l.token = excluded.token OR l.expires < clock_timestamp()
    RETURNING name
""")

_RENEW = text("""
    UPDATE lock SET expires = clock_timestamp() + :lease * interval '1 second'
    WHERE name = :name AND token = CAST(:token AS uuid)
""")

_RELEASE = text("DELETE FROM lock WHERE name = :name AND token = CAST(:token AS uuid)")

_HOLDER = text("SELECT holder FROM lock WHERE name = :name AND expires >= clock_timestamp()")


class Hold:
    """A lock that is held and renewed in the background."""

    def __init__(self, name: str, until: float) -> None:
        self.name = name
        self.until = until
        """When another process may take it over unless it is renewed, by `time.monotonic`."""
        self.lost = Event()
        """Set when the lock went to another process, or could not be renewed in time."""

    def left(self) -> float:
        """Seconds until another process may take the lock over; 0 where it may already."""
        return max(self.until - time.monotonic(), 0.0)

    def check(self) -> None:
        """Go on only while the lock is held, as far as can be known without asking the database.

        Raises:
            LockLostError: it was lost.
        """
        if self.left() == 0:  # also where the renewal still waits for the database's answer
            self.lost.set()
        if self.lost.is_set():
            raise LockLostError(
                f"the lock {self.name!r} was lost: this process did not reach the database for too long and "
                "another one may have taken over; nothing is lost, the next run goes on"
            )


class Locks:
    """The table `lock`."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def acquire(self, name: str, holder: str, lease_seconds: float) -> str | None:
        """Take a lock that is free or expired; the token, or None where another process holds it."""
        token = str(uuid4())
        given = {"name": name, "token": token, "lease": lease_seconds, "holder": holder}
        return token if self._database.execute(_ACQUIRE, **given) else None

    def renew(self, name: str, token: str, lease_seconds: float) -> bool:
        """Hold a lock for longer; False where it went to another process."""
        return self._database.execute(_RENEW, name=name, token=token, lease=lease_seconds) == 1

    def release(self, name: str, token: str) -> bool:
        """Give a lock back; False where it was not ours any more."""
        return self._database.execute(_RELEASE, name=name, token=token) == 1

    @contextmanager
    def hold(self, name: str, lease_seconds: float = 60.0) -> Iterator[Hold]:
        """Hold a lock for the length of the block, renewing it in a thread.

        Raises:
            BusyError: another process holds it.
        """
        token = str(uuid4())
        given = {"name": name, "token": token, "lease": lease_seconds}
        asked_at = _confirmed(self._database, _ACQUIRE, given | {"holder": this_process()})
        if asked_at is None:
            holder = self._database.scalar(_HOLDER, name=name) or "another process"
            raise BusyError(
                f"{holder} holds the lock {name!r}: wait for it to end; should it have died, the lock is "
                f"free {lease_seconds:g} seconds after its last sign of life"
            )
        hold, done = Hold(name, asked_at + lease_seconds), Event()
        renewing = Thread(
            target=_renewing, args=(self._database, hold, given, done), name=f"lock {name}", daemon=True
        )
        renewing.start()
        try:
            yield hold
        finally:
            done.set()
            renewing.join(JOIN_SECONDS)
            if not hold.lost.is_set():
                with suppress(EnrichError):  # it expires by itself
                    self.release(name, token)


def _confirmed(database: Database, statement: TextClause, given: Mapping[str, Any]) -> float | None:
    """When the database was asked (by `time.monotonic`), where it said yes."""

    def work(connection: Connection) -> float | None:
        asked_at = time.monotonic()
        return asked_at if connection.execute(statement, given).rowcount == 1 else None

    return database.run(work)


def _renewing(database: Database, hold: Hold, given: Mapping[str, Any], done: Event) -> None:
    """Renew a lock until `done`, on a connection of its own: others may wait long for theirs."""
    lease = given["lease"]
    seconds = max(2, int(lease / 3))  # 2 is the least that libpq takes
    timeouts = {"connect_timeout": str(seconds), "tcp_user_timeout": str(1000 * seconds)}
    url = database.url.update_query_dict(timeouts).render_as_string(hide_password=False)
    own = Database(url, patience=0, name=database.name)
    try:
        while not done.wait(min(lease / 6, hold.left())):
            try:
                asked_at = _confirmed(own, _RENEW, given)
            except Exception as error:  # whatever it is, the lock is ours until its time is over
                log.warning("the lock %r could not be renewed yet (%s)", hold.name, type(error).__name__)
                kept = hold.left() > 0
            else:
                kept = asked_at is not None
                hold.until = hold.until if asked_at is None else asked_at + lease
            if not kept:
                hold.lost.set()
                return
    finally:
        own.close()
