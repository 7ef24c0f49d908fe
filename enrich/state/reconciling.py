"""What `enrich reconcile` needs of state: which documents nobody owns, and listings published anew."""

from collections.abc import Sequence

from sqlalchemy import Connection, text

from enrich.state.database import Database
from enrich.state.outbox import enqueue
from enrich.state.schema import NEXT_REVISION, REVISION_NOW, SERVED

# A removal that still waits is the next publish's to carry out.
_OWNERLESS = text(f"""
    SELECT given.id FROM unnest(CAST(:ids AS text[])) AS given(id)
    LEFT JOIN listing AS l ON l.id = given.id
    LEFT JOIN (SELECT p.listing_id, p.status FROM {SERVED}) AS served ON served.listing_id = l.id
    WHERE l.id IS NULL OR (l.status = 'gone' AND coalesce(served.status, 'done') = 'done')
""")  # noqa: S608 (our own constant)

_REVISE = text(f"""
    WITH chosen AS (
        SELECT id FROM listing WHERE id = ANY(:ids) AND revision IS NOT NULL
        ORDER BY id FOR NO KEY UPDATE
    )
    UPDATE listing SET revision = {NEXT_REVISION} FROM chosen WHERE listing.id = chosen.id
    RETURNING listing.id
""")  # noqa: S608 (our own constant)

_NOW = text(f"SELECT {REVISION_NOW}")


def ownerless(database: Database, ids: Sequence[str]) -> list[str]:
    """Those of these documents whose listing is unknown, or gone with its removal published."""
    return database.scalars(_OWNERLESS, ids=[id for id in ids if "\0" not in id])


def revise(database: Database, ids: Sequence[str]) -> None:
    """Have the documents of these listings written again, above whatever the index holds of them."""

    def work(connection: Connection) -> None:
        enqueue(connection, connection.execute(_REVISE, {"ids": list(ids)}).scalars().all())

    database.run(work)


def revision_now(database: Database) -> int:
    """A revision above all that were made so far."""
    return int(database.scalar(_NOW))
