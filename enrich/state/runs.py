"""Runs: what was started, how it ended, and the figures that `enrich status` tells."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import TextClause, text

from enrich.state.database import Database
from enrich.state.schema import SCHEMA
from enrich.state.settle import clean
from enrich.state.workers import this_process

_NUMBER = text(f"SELECT nextval(pg_get_serial_sequence('{SCHEMA}.run', 'id'))")

# The signs of life of runs that were killed long ago are cleaned up meanwhile.
_START = text("""
    WITH killed AS (
        DELETE FROM lock WHERE name LIKE 'run %' AND expires < clock_timestamp() - interval '1 day'
    )
    INSERT INTO run (id, kind, host, bundle_id) VALUES (:id, :kind, :host, :bundle)
    ON CONFLICT (id) DO NOTHING
""")

_FINISH = text("""
    UPDATE run
    SET finished_at = clock_timestamp(), exit_code = :code, figures = CAST(:figures AS jsonb), error = :error
    WHERE id = :id
""")

# A process does one job at a time, and shows that it lives by the locks that it holds, its run's own among
# them, which it may lose in a long outage; and by the listings that it holds.
_COLUMNS = """
    id, kind, host, started_at, finished_at, exit_code, error, bundle_id, figures,
    finished_at IS NULL
        AND NOT EXISTS (SELECT FROM run AS later WHERE later.host = run.host AND later.id > run.id)
        AND (EXISTS (SELECT FROM lock WHERE holder = run.host AND expires > clock_timestamp())
             OR EXISTS (SELECT FROM worker AS w WHERE w.host || ':' || w.pid = run.host
                        AND w.expires > clock_timestamp()))
"""

_RUNS = text(f"""
    SELECT {_COLUMNS} FROM run WHERE CAST(:kinds AS text[]) IS NULL OR kind = ANY(:kinds)
    ORDER BY id DESC LIMIT :limit
""")  # noqa: S608 (our own constant)

_SINCE = text(f"SELECT {_COLUMNS} FROM run WHERE started_at >= :since OR finished_at >= :since ORDER BY id")  # noqa: S608 (as above)
_NUMBERED = text(f"SELECT {_COLUMNS} FROM run WHERE id = :id")  # noqa: S608 (as above)

_FOLLOWED = text("SELECT min(started_at) FROM run WHERE kind = :kind AND id > :id")

_NIGHTS = text(f"""
    SELECT {_COLUMNS} FROM run
    WHERE jsonb_typeof(figures -> 'drift') = 'array' AND figures -> 'drift' <> '[]'
    ORDER BY id DESC LIMIT :limit
""")  # noqa: S608 (our own constant)

_TOLD_ACTIVE = text("""
    SELECT CASE WHEN figures -> 'active_column' = 'true' THEN id END FROM run
    WHERE jsonb_typeof(figures -> 'active_column') = 'boolean' ORDER BY id DESC LIMIT 1
""")

# A run of some listings only judges no night, and is none.
_SUCCESSES = text("""
    SELECT kind, extract(epoch FROM max(finished_at)) AS finished
    FROM run WHERE exit_code IN (0, 1) AND (kind <> 'run' OR jsonb_typeof(figures -> 'drift') = 'array')
    GROUP BY kind
""")


def lock_of(run_id: int) -> str:
    """The lock that a run holds as its sign of life."""
    return f"run {run_id}"


@dataclass(frozen=True, slots=True)
class Run:
    """One run. `finished_at` and `exit_code` are None while it runs, and for good where it was killed.

    `host`: the process, as `host:pid`.
    """

    id: int
    kind: str
    host: str | None
    started_at: datetime
    finished_at: datetime | None
    exit_code: int | None
    error: str | None
    bundle_id: str | None
    figures: Mapping[str, Any]
    under_way: bool = False
    """Its process lives, as far as can be told."""


class Runs:
    """The table `run`."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def start_run(self, kind: str, bundle_id: str | None) -> int:
        """Note that a run has started; its number."""
        # Numbered beforehand, so that it stands once, also where the answer to the commit is lost.
        number = int(self._database.scalar(_NUMBER))
        self._database.execute(_START, id=number, kind=kind, host=this_process(), bundle=bundle_id)
        return number

    def finish_run(
        self, run_id: int, exit_code: int, figures: Mapping[str, Any], error: str | None = None
    ) -> None:
        """Note how a run ended."""
        told = {"code": exit_code, "figures": json.dumps(dict(figures)), "error": clean(error)}
        self._database.execute(_FINISH, id=run_id, **told)

    def runs(self, limit: int, kinds: Sequence[str] | None = None) -> list[Run]:
        """The last runs (of these kinds), newest first."""
        return self._read(_RUNS, limit=limit, kinds=kinds and list(kinds))

    def nights(self, limit: int) -> list[Run]:
        """The last runs that went through all listings and judged what they found, newest first."""
        return self._read(_NIGHTS, limit=limit)

    def since(self, time: datetime) -> list[Run]:
        """The runs that started or ended at or after a time, oldest first."""
        return self._read(_SINCE, since=time)

    def numbered(self, number: int) -> Run | None:
        """The run of this number."""
        return next(iter(self._read(_NUMBERED, id=number)), None)

    def told_active(self) -> int | None:
        """The number of the last run that read the portal's listings, where these had the column `active`."""
        told: int | None = self._database.scalar(_TOLD_ACTIVE)
        return told

    def followed(self, run: Run) -> datetime | None:
        """When the next run of its kind started; None where there is none."""
        next_one: datetime | None = self._database.scalar(_FOLLOWED, kind=run.kind, id=run.id)
        return next_one

    def _read(self, statement: TextClause, **given: Any) -> list[Run]:
        return [Run(*row) for row in self._database.rows(statement, **given)]

    def successes(self) -> dict[str, float]:
        """Kind -> when one last ended with exit code 0 or 1, in seconds since 1970; no run of some only."""
        return {row.kind: float(row.finished) for row in self._database.rows(_SUCCESSES)}
