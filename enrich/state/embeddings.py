"""Features of photos as they are kept: functions on an open transaction."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, text

from enrich.records import PhotoScore

_SAVE = text("""
    INSERT INTO photo_embedding (sha256, feature_id, kind, scale, bytes)
    SELECT *
    FROM unnest(CAST(:shas AS text[]), CAST(:features AS text[]), CAST(:kinds AS text[]),
                CAST(:scales AS float[]), CAST(:data AS bytea[])) AS r(sha256, feature_id, kind, scale, bytes)
    ORDER BY sha256, feature_id
    ON CONFLICT DO NOTHING
""")

_GROUPED = """
    SELECT kind, array_agg(sha256 ORDER BY sha256) AS shas, array_agg(dhash ORDER BY sha256) AS hashes,
           array_agg(scale ORDER BY sha256) AS scales, string_agg(bytes, '' ORDER BY sha256) AS data
    FROM picked GROUP BY kind ORDER BY kind
"""

# A photo whose scores are all gone has no hash to be told from near-duplicates by, and is left out.
_UNSCORED = text(f"""
    WITH held AS (
        SELECT DISTINCT photo.sha256 FROM listing_photo JOIN photo USING (key)
        WHERE listing_id = ANY(:listings) AND photo.sha256 IS NOT NULL
    ), picked AS (
        SELECT e.sha256, s.dhash, e.kind, e.scale, e.bytes
        FROM held
        JOIN photo_embedding AS e ON e.sha256 = held.sha256 AND e.feature_id = :feature
        CROSS JOIN LATERAL (
            SELECT min(dhash) AS dhash, bool_or(model_id = :model) AS scored
            FROM photo_score WHERE photo_score.sha256 = e.sha256) AS s
        WHERE NOT s.scored
        ORDER BY e.sha256 LIMIT :limit
    )
    {_GROUPED}
""")  # noqa: S608 (our own constant)

_OF = text(f"""
    WITH picked AS (
        SELECT e.sha256, s.dhash, e.kind, e.scale, e.bytes
        FROM photo_embedding AS e
        CROSS JOIN LATERAL (
            SELECT min(dhash) AS dhash FROM photo_score WHERE photo_score.sha256 = e.sha256) AS s
        WHERE e.sha256 = ANY(:shas) AND e.feature_id = :feature AND s.dhash IS NOT NULL
    )
    {_GROUPED}
""")  # noqa: S608 (our own constant)


@dataclass(frozen=True, slots=True)
class Packed:
    """Kept features of some photos, all of one kind."""

    kind: str
    shas: Sequence[str]
    hashes: Sequence[int]
    scales: Sequence[float]
    data: memoryview
    """One photo's after another's."""


def save(connection: Connection, given: Iterable[PhotoScore]) -> None:
    """Record the features that come with scores; what is on record already stays."""
    rows: dict[tuple[str, str], Any] = {
        (score.sha256, feature): embedding
        for score in given
        for feature, embedding in score.embeddings.items()
    }
    if not rows:
        return
    found = {
        "shas": [sha for sha, _ in rows],
        "features": [feature for _, feature in rows],
        "kinds": [embedding.kind for embedding in rows.values()],
        "scales": [embedding.scale for embedding in rows.values()],
        "data": [embedding.data for embedding in rows.values()],
    }
    connection.execute(_SAVE, found)


def unscored(
    connection: Connection, listings: Sequence[str], feature_id: str, model_id: str, limit: int
) -> list[Packed]:
    """Features by `feature_id` of up to `limit` photos of these listings that the model has not scored."""
    given = {"listings": list(listings), "feature": feature_id, "model": model_id, "limit": limit}
    return [Packed(*row) for row in connection.execute(_UNSCORED, given)]


def of(connection: Connection, shas: Sequence[str], feature_id: str) -> list[Packed]:
    """Features by `feature_id` of the photos that have them."""
    return [Packed(*row) for row in connection.execute(_OF, {"shas": list(shas), "feature": feature_id})]
