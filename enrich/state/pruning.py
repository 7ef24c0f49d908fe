"""Pruning: what state keeps and nothing uses any more.

Rows go in small transactions, and those that somebody else has locked are left out. So this may run beside
anything: what a run comes to need meanwhile is written, or fetched and scored, again.
"""

# ruff: noqa: S608 (statements are made of our own parts)

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, TextClause, text

from enrich.state.database import Database
from enrich.state.schema import SCHEMA, metadata

BATCH = 5_000  # rows per transaction


@dataclass(frozen=True, slots=True)
class Unused:
    """Rows of one table that nothing uses; `condition` is SQL over the row `x`."""

    what: str
    table: str
    condition: str
    looked_at_twice: bool = True
    """Whether `condition` is asked again when a row is deleted; else it would take a look at all photos."""
    for_discovery: bool = False
    """Discovery reads such rows and counts on them later: only with its lock."""


_OLD = "now() - :days * interval '1 day'"
_OF_NO_LISTING = "NOT EXISTS (SELECT FROM listing AS l WHERE l.id = x.listing_id)"
_BYTES_OF_NO_PHOTO = """NOT EXISTS (SELECT FROM photo AS p WHERE p.sha256 = x.sha256)
    AND NOT EXISTS (SELECT FROM label AS l WHERE l.sha256 = x.sha256)"""

UNUSED = (
    # A revision is the time at which it was made, in microseconds, and a removal makes one. So a listing that
    # comes back later gets a greater one. What a person said of a listing, or of a photo of it, outlives its
    # absence.
    Unused(
        "listings that are gone",
        "listing",
        f"""x.status = 'gone' AND coalesce(to_timestamp(x.revision / 1000000.0), '-infinity') < {_OLD}
            AND NOT EXISTS (SELECT FROM override AS o WHERE o.listing_id = x.id)
            AND NOT EXISTS (SELECT FROM listing_photo AS h JOIN photo USING (key) JOIN label USING (sha256)
                            WHERE h.listing_id = x.id)
            AND NOT EXISTS (SELECT FROM publication AS p WHERE p.listing_id = x.id AND p.status <> 'done')""",
        for_discovery=True,
    ),
    Unused("removals on record", "publication", f"x.status = 'done' AND {_OF_NO_LISTING}"),
    Unused("photos of listings that are gone", "listing_photo", _OF_NO_LISTING),
    Unused(
        "photos that no listing shows",
        "photo",
        f"x.checked_at < {_OLD} AND NOT EXISTS (SELECT FROM listing_photo AS h WHERE h.key = x.key)",
    ),
    Unused("scores of photos that are gone", "photo_score", _BYTES_OF_NO_PHOTO, looked_at_twice=False),
    Unused("scores by models that made no listing's attributes", "photo_score", "x.model_id <> ALL(:models)"),
    Unused("features of photos that are gone", "photo_embedding", _BYTES_OF_NO_PHOTO, looked_at_twice=False),
    Unused(
        "features by backbones of earlier bundles",
        "photo_embedding",
        "CAST(:features AS text[]) IS NOT NULL AND x.feature_id <> ALL(:features)",
    ),
    Unused(
        "runs",
        "run",
        f"""x.started_at < {_OLD}
            AND x.id NOT IN (SELECT id FROM run AS r WHERE r.kind = x.kind ORDER BY id DESC LIMIT 30)""",
    ),
    Unused(
        "changes of answers beyond a listing's last twenty",
        "history",
        f"""x.at < {_OLD} AND x.id NOT IN (SELECT id FROM history AS h WHERE h.listing_id = x.listing_id
                                           ORDER BY id DESC LIMIT 20)""",
    ),
    Unused("changes of answers of listings that are gone", "history", _OF_NO_LISTING),
    Unused("reviews of listings that are gone", "review", _OF_NO_LISTING),
    Unused("backfills that are done", "backfill", f"x.done_at < {_OLD}"),
)

_MODELS = text("""
    SELECT DISTINCT jsonb_array_elements_text(model_ids) FROM listing
    WHERE status <> 'gone' AND jsonb_typeof(model_ids) = 'array'
""")

_OTHER_BUNDLES = text("""
    SELECT EXISTS (SELECT FROM listing
                   WHERE status <> 'gone' AND bundle_id IS NOT NULL AND bundle_id <> :bundle)
""")


class Pruning:
    """Rows that nothing uses and that have not been used for `days`.

    `bundle_id`, `models` and `features` are those of the current bundle, in all of its arithmetics. Scores by
    other models stay while a listing is made with them, features by other backbones while any listing is made
    with another bundle.
    """

    def __init__(
        self, database: Database, days: int, bundle_id: str, models: Sequence[str], features: Sequence[str]
    ) -> None:
        self._database = database
        others = database.scalar(_OTHER_BUNDLES, bundle=bundle_id)
        self._given = {
            "days": days,
            "models": sorted({*models, *database.scalars(_MODELS)}),
            "features": None if others else list(features),
        }

    def count(self, unused: Unused) -> int:
        """How many such rows there are now."""
        found = text(f"SELECT count(*) FROM {unused.table} AS x WHERE {unused.condition}")
        return int(self._database.scalar(found, **self._given))

    def delete(self, unused: Unused, stopping: Callable[[], bool]) -> int:
        """Delete such rows until none is left, or told to stop; how many."""
        key = ", ".join(column.name for column in metadata.tables[f"{SCHEMA}.{unused.table}"].primary_key)
        found = text(f"SELECT {key} FROM {unused.table} AS x WHERE {unused.condition}")
        again = unused.condition if unused.looked_at_twice else "true"
        given = f"jsonb_populate_recordset(CAST(NULL AS {unused.table}), CAST(:rows AS jsonb))"
        # A row that is locked stays in its place, so nothing but the place is needed to find it there again.
        delete = text(f"""
            WITH chosen AS (
                SELECT x.ctid AS place FROM {unused.table} AS x
                WHERE ({key}) IN (SELECT {key} FROM {given}) AND {again}
                FOR UPDATE OF x SKIP LOCKED
            )
            DELETE FROM {unused.table} WHERE ctid = ANY(ARRAY(SELECT place FROM chosen))
        """)
        deleted = 0

        def work(connection: Connection) -> None:
            nonlocal deleted  # what is deleted stays so, also where reading the rows is tried again
            streaming = connection.execution_options(stream_results=True, max_row_buffer=BATCH)
            for batch in streaming.execute(found, self._given).mappings().partitions(BATCH):
                if stopping():
                    break
                deleted += self._delete(delete, [dict(row) for row in batch])

        self._database.run(work)
        return deleted

    def _delete(self, statement: TextClause, rows: Sequence[dict[str, Any]]) -> int:
        return self._database.execute(statement, **self._given, rows=json.dumps(rows))
