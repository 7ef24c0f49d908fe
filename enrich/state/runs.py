"""Runs: who runs what, one at a time where it matters, and what `enrich status` and `enrich show` tell.

A lock is a row with holder, token and expiry by the database's clock. It needs no session, so it holds behind
transaction pooling too; the lock of a holder that died is taken over once it has expired.
"""

import json
import os
import socket
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from threading import Event, Thread
from typing import Any
from uuid import uuid4

from sqlalchemy import Connection, text

from enrich.errors import BusyError, EnrichError, StoppedError
from enrich.state.database import Database
from enrich.state.photos import clean

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

_RELEASE = text("""
    UPDATE lock SET holder = NULL, token = NULL, expires = NULL
    WHERE name = :name AND token = CAST(:token AS uuid)
""")

_HOLDER = text("SELECT holder FROM lock WHERE name = :name AND expires >= clock_timestamp()")

_START = text("""
    INSERT INTO run (kind, host, bundle_id) VALUES (:kind, :host, :bundle) RETURNING id
""")

_FINISH = text("""
    UPDATE run
    SET finished_at = clock_timestamp(), exit_code = :code, figures = CAST(:figures AS jsonb), error = :error
    WHERE id = :id
""")

_RUNS = text("""
    SELECT id, kind, host, started_at, finished_at, exit_code, error, bundle_id, figures
    FROM run ORDER BY id DESC LIMIT :limit
""")


@dataclass(frozen=True, slots=True)
class Run:
    """One run. `finished_at` and `exit_code` are None while it runs, and for good where it was killed."""

    id: int
    kind: str
    host: str | None
    started_at: datetime
    finished_at: datetime | None
    exit_code: int | None
    error: str | None
    bundle_id: str | None
    figures: Mapping[str, Any]


class Hold:
    """A lock that is held and renewed in the background."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.lost = Event()
        """Set when the lock went to another process, or could not be renewed."""

    def check(self) -> None:
        """Go on only while the lock is held.

        Raises:
            StoppedError: it was lost.
        """
        if self.lost.is_set():
            raise StoppedError(
                f"the lock {self.name!r} was lost: this process did not reach the database for too long and "
                "another one may have taken over; nothing is lost, the next run goes on"
            )


class Runs:
    """The tables `lock` and `run`."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def acquire(self, name: str, holder: str, lease_seconds: float) -> str | None:
        """Take a lock that is free or expired; the token, or None where another process holds it."""
        token = str(uuid4())
        given = {"name": name, "holder": holder, "token": token, "lease": lease_seconds}
        return token if self._changed(_ACQUIRE, given) else None

    def renew(self, name: str, token: str, lease_seconds: float) -> bool:
        """Hold a lock for longer; False where it went to another process."""
        return self._changed(_RENEW, {"name": name, "token": token, "lease": lease_seconds})

    def release(self, name: str, token: str) -> bool:
        """Give a lock back; False where it was not ours any more."""
        return self._changed(_RELEASE, {"name": name, "token": token})

    def _changed(self, statement: Any, given: Mapping[str, Any]) -> bool:
        return self._database.run(lambda connection: connection.execute(statement, given).rowcount) == 1

    @contextmanager
    def hold(self, name: str, lease_seconds: float = 60.0) -> Iterator[Hold]:
        """Hold a lock for the length of the block, renewing it in a thread.

        Raises:
            BusyError: another process holds it.
        """
        token = self.acquire(name, f"{socket.gethostname()}:{os.getpid()}", lease_seconds)
        if token is None:
            holder = self._database.run(lambda c: c.scalar(_HOLDER, {"name": name})) or "another process"
            raise BusyError(
                f"{holder} holds the lock {name!r}: wait for it to end; should it have died, the lock is "
                f"free {lease_seconds:g} seconds after its last sign of life"
            )
        hold, done = Hold(name), Event()

        def renewing() -> None:
            while not done.wait(lease_seconds / 3):
                try:
                    kept = self.renew(name, token, lease_seconds)
                except Exception:  # whatever it is, the lock is not known to be ours any more
                    kept = False
                if not kept:
                    hold.lost.set()
                    return

        thread = Thread(target=renewing, name=f"lock {name}", daemon=True)
        thread.start()
        try:
            yield hold
        finally:
            done.set()
            thread.join()
            try:
                self.release(name, token)
            except EnrichError:
                hold.lost.set()  # it expires by itself

    def start_run(self, kind: str, bundle_id: str | None) -> int:
        """Note that a run has started; its number."""
        given = {"kind": kind, "host": socket.gethostname(), "bundle": bundle_id}
        return int(self._database.run(lambda c: c.execute(_START, given).scalar_one()))

    def finish_run(
        self, run_id: int, exit_code: int, figures: Mapping[str, Any], error: str | None = None
    ) -> None:
        """Note how a run ended."""
        given = {
            "id": run_id,
            "code": exit_code,
            "figures": json.dumps(dict(figures)),
            "error": clean(error),
        }
        self._database.run(lambda connection: connection.execute(_FINISH, given))

    def runs(self, limit: int) -> list[Run]:
        """The last runs, newest first."""

        def work(connection: Connection) -> Sequence[Any]:
            return connection.execute(_RUNS, {"limit": limit}).all()

        return [Run(*row) for row in self._database.run(work)]
