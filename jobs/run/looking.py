"""The part of a `WorkQueue` that looks at state and changes nothing, for runs that write nothing."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from sqlalchemy import Connection, Row, text

from enrich.records import Claim, ListingResult, Packed, PhotoScore, PhotoState
from enrich.source.foresee import read
from enrich.state import overrides
from jobs.run.services import Services

_ROWS = text("SELECT id, revision, attributes, bundle_id, enriched_at FROM listing WHERE id = ANY(:ids)")

Made = tuple[ListingResult, Row[Any] | None, dict[str, Any]]
"""A result, the listing's row (`rows_of`), and the attributes that would be published of it."""


class LookingQueue:
    """What all queues of runs that write nothing share."""

    def __init__(self, services: Services) -> None:
        self._services = services

    def orphaned(self, ids: Sequence[str] | None = None) -> bool:
        return False

    def heartbeat(self, claims: Sequence[Claim]) -> list[Claim]:
        return []

    def forgive(self, ids: Sequence[str]) -> None: ...

    def photo_states(self, keys: Sequence[str]) -> Mapping[str, PhotoState]:
        return self._services.queue.photo_states(keys)

    def scores(self, shas: Sequence[str], model_ids: Sequence[str]) -> Mapping[str, PhotoScore]:
        return self._services.queue.scores(shas, model_ids)

    def features(self, shas: Sequence[str], feature_id: str) -> Sequence[Packed]:
        return self._services.queue.features(shas, feature_id)

    def made(self, results: Sequence[ListingResult]) -> list[Made]:
        """What would be published of completed listings, with what a person said, beside what is."""
        models = {r.claim.id: json.loads(json.dumps(asdict(r.attributes), allow_nan=False)) for r in results}

        def work(state: Connection) -> tuple[dict[str, Row[Any]], dict[str, dict[str, Any]]]:
            return rows_of(state, list(models)), overrides.published(state, models)

        rows, published = read(self._services.database, work)
        return [(r, rows.get(r.claim.id), published[r.claim.id]) for r in results]


def rows_of(state: Connection, ids: Sequence[str]) -> dict[str, Row[Any]]:
    """Id -> revision, attributes, bundle_id, enriched_at, of those of these listings that are known."""
    return {row.id: row for row in state.execute(_ROWS, {"ids": list(ids)})}
