"""What is exported of listings: their attributes, and the features of their photos, page by page."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from sqlalchemy import Connection, text

from enrich.records import Packed
from enrich.state import embeddings
from enrich.state.database import Database

PAGE = 50  # listings whose features are in memory at once

_PAGE = text("""
    SELECT id, bundle_id, attributes, photos FROM listing
    WHERE id > :after AND status <> 'gone' AND jsonb_typeof(attributes) = 'object'
    ORDER BY id LIMIT :page
""")

_MOST = """
    SELECT {named} FROM {table} WHERE {named} = ANY(:ids)
    GROUP BY {named} ORDER BY count(*) DESC, array_position(CAST(:ids AS text[]), {named}::text) LIMIT 1
"""


@dataclass(frozen=True, slots=True)
class Exported:
    """An enriched listing."""

    id: str
    bundle_id: str
    attributes: Mapping[str, Any]
    """As they are published: what a person said over what the model said."""
    photos: tuple[Mapping[str, Any], ...]
    """Those whose bytes are known, by position: the entries of `listing.photos`."""


def kept_most(database: Database, features: Sequence[str]) -> str:
    """Of these feature ids the one that most photos have features by; the first ones go before others."""
    return _most(database, "photo_embedding", "feature_id", features)


def scored_most(database: Database, models: Sequence[str]) -> str:
    """Of these model ids the one that scored most photos; the first ones go before others."""
    return _most(database, "photo_score", "model_id", models)


def _most(database: Database, table: str, named: str, ids: Sequence[str]) -> str:
    most = text(_MOST.format(table=table, named=named))
    return str(database.scalar(most, ids=list(ids)) or ids[0])


def pages(database: Database, feature_id: str) -> Iterator[tuple[list[Exported], list[Packed]]]:
    """All enriched listings by id, each page with the features of its photos that were kept."""
    after = ""
    while True:
        listings, packed = database.run(partial(_page, after=after, feature_id=feature_id))
        if not listings:
            return
        yield listings, packed
        after = listings[-1].id


def _page(connection: Connection, after: str, feature_id: str) -> tuple[list[Exported], list[Packed]]:
    rows = connection.execute(_PAGE, {"after": after, "page": PAGE})
    found = [Exported(id, bundle, attributes, _seen(photos)) for id, bundle, attributes, photos in rows]
    shas = {photo["sha256"] for listing in found for photo in listing.photos}
    return found, embeddings.of(connection, sorted(shas), feature_id)


def _seen(photos: list[dict[str, Any]]) -> tuple[Mapping[str, Any], ...]:
    seen = (photo for photo in photos if photo["sha256"])
    return tuple(sorted(seen, key=lambda photo: (photo["position"], photo["key"])))
