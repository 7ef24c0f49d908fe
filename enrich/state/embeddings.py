"""Features of photos as they are kept: functions on an open transaction."""

from collections.abc import Iterable, Sequence
from itertools import groupby
from operator import itemgetter
from typing import Any

from sqlalchemy import Connection, text

from enrich.records import Packed, PhotoScore

_SAVE = text("""
    INSERT INTO photo_embedding (sha256, feature_id, kind, scale, bytes)
    SELECT *
    FROM unnest(CAST(:shas AS text[]), CAST(:features AS text[]), CAST(:kinds AS text[]),
                CAST(:scales AS float[]), CAST(:data AS bytea[])) AS r(sha256, feature_id, kind, scale, bytes)
    ORDER BY sha256, feature_id
    ON CONFLICT DO NOTHING
""")

# A photo whose scores are all gone has no hash to be told from near-duplicates by, and is left out.
_OF = text("""
    SELECT e.kind, e.sha256, s.dhash, e.scale, e.bytes
    FROM photo_embedding AS e
    CROSS JOIN LATERAL (SELECT dhash FROM photo_score WHERE photo_score.sha256 = e.sha256 LIMIT 1) AS s
    WHERE e.sha256 = ANY(:shas) AND e.feature_id = :feature
    ORDER BY e.kind, e.sha256
""")


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


def of(connection: Connection, shas: Sequence[str], feature_id: str) -> list[Packed]:
    """Features by `feature_id` of the photos that have them."""
    rows = connection.execute(_OF, {"shas": list(shas), "feature": feature_id}).all()
    packed = []
    for kind, of_kind in groupby(rows, key=itemgetter(0)):
        _, found, hashes, scales, data = zip(*of_kind, strict=True)
        packed.append(Packed(kind, found, hashes, scales, b"".join(data)))
    return packed
