"""Queues for runs that write nothing: they hand out listings chosen beforehand, and look at state only."""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, replace
from functools import partial
from itertools import chain, islice
from typing import Any

from sqlalchemy import Connection, Row, text

from enrich.records import Claim, ListingResult, Packed, PhotoResult, PhotoScore, PhotoState
from enrich.source.foresee import read
from enrich.state import overrides
from jobs.run.services import Services

_ROWS = text("""
    SELECT id, revision, attributes, bundle_id, enriched_at, photo_fp_done FROM listing WHERE id = ANY(:ids)
""")


class LookingQueue:
    """A `WorkQueue` of the listings `waiting`; what comes of each is for the subclass to count."""

    def __init__(self, services: Services, waiting: Iterable[Claim]) -> None:
        self._services = services
        self._waiting = iter(waiting)

    def release(self, claims: Sequence[Claim], forgive: bool = True, later: float = 0.0) -> None:
        """These listings come to nothing."""
        raise NotImplementedError

    def _completed(self, result: ListingResult, row: Row[Any] | None, attributes: dict[str, Any]) -> None:
        """`attributes` would be published of a listing; `row` is what is known of it (`rows_of`)."""
        raise NotImplementedError

    def claim(self, limit: int, ids: Sequence[str] | None = None, *, alone: bool = False) -> list[Claim]:
        claims = [] if alone else list(islice(self._waiting, limit))
        rows = read(self._services.database, partial(rows_of, ids=[claim.id for claim in claims]))
        done = {id: row.photo_fp_done for id, row in rows.items()}
        return [replace(claim, photo_fp_done=done.get(claim.id)) for claim in claims]

    def claimable(self, ids: Sequence[str] | None = None) -> bool:
        first = list(islice(self._waiting, 1))
        self._waiting = chain(first, self._waiting)
        return bool(first)

    def orphaned(self, ids: Sequence[str] | None = None) -> bool:
        return False

    def heartbeat(self, claims: Sequence[Claim]) -> list[Claim]:
        return []

    def keep(self, claim: Claim, results: Sequence[PhotoResult]) -> None: ...

    def complete(self, results: Sequence[ListingResult]) -> set[Claim]:
        models = {r.claim.id: json.loads(json.dumps(asdict(r.attributes), allow_nan=False)) for r in results}

        def work(state: Connection) -> tuple[dict[str, Row[Any]], dict[str, dict[str, Any]]]:
            return rows_of(state, list(models)), overrides.published(state, models)

        rows, published = read(self._services.database, work)
        for result in results:
            self._completed(result, rows.get(result.claim.id), published[result.claim.id])
        return {result.claim for result in results}

    def fail(self, claim: Claim, reason: str) -> bool:
        self.release([claim])
        return True

    def forgive(self, ids: Sequence[str]) -> None: ...

    def photo_states(self, keys: Sequence[str]) -> Mapping[str, PhotoState]:
        return self._services.queue.photo_states(keys)

    def scores(self, shas: Sequence[str], model_ids: Sequence[str]) -> Mapping[str, PhotoScore]:
        return self._services.queue.scores(shas, model_ids)

    def features(self, shas: Sequence[str], feature_id: str) -> Sequence[Packed]:
        return self._services.queue.features(shas, feature_id)


def chosen(id: str, revalidate: bool = False) -> Claim:
    """A claim of a listing that is handed out once."""
    return Claim(id, id, 0, revalidate)


def rows_of(state: Connection, ids: Sequence[str]) -> dict[str, Row[Any]]:
    """Id -> the columns of `_ROWS`, of those of these listings that are known."""
    return {row.id: row for row in state.execute(_ROWS, {"ids": list(ids)})}
