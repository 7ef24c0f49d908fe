"""`enrich run --dry-run`: the documents and deletes that a run would write, with nothing written."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from typing import Any
from uuid import uuid4

from enrich.index.document import build
from enrich.records import Claim, ListingResult
from enrich.settings import Settings
from enrich.source.discover import Discovery, discover
from enrich.state import overrides
from enrich.state.listings import State
from enrich.state.outbox import OutboxRow
from enrich.state.summary import details
from jobs.run.nightly import RunOptions
from jobs.run.services import Services, open_services
from jobs.run.session import pipeline_on
from jobs.run.stop import Stop

ENRICHED = ("new", "returned", "changed", "revalidated")  # kinds of discovery that lead to enrichment


class _Rehearsal(State):
    """State that reads as usual, hands out the given listings, and keeps results instead of writing them."""

    def __init__(self, services: Services, ids: Sequence[str], revalidate: set[str]) -> None:
        settings = services.settings
        super().__init__(
            services.database, lease_seconds=settings.lease_seconds, max_attempts=settings.max_attempts
        )
        self._waiting = list(ids)
        self._revalidate = revalidate
        self.results: list[ListingResult] = []

    def claim(self, limit: int, ids: Sequence[str] | None = None) -> list[Claim]:
        taken, self._waiting = self._waiting[:limit], self._waiting[limit:]
        return [Claim(id, str(uuid4()), 0, id in self._revalidate, 0) for id in taken]

    def claimable(self, ids: Sequence[str] | None = None) -> int:
        return len(self._waiting)

    def heartbeat(self, claims: Sequence[Claim]) -> set[str]:
        return set()

    def complete(self, result: ListingResult) -> bool:
        self.results.append(result)
        return True

    def fail(self, claim: Claim, reason: str) -> bool:
        return True

    def release(self, claims: Sequence[Claim], forgive: bool = True, later: float = 0.0) -> None: ...

    def forgive(self, ids: Sequence[str]) -> None: ...


@dataclass(slots=True)
class Rehearsed:
    """What a run would write: whole documents, and the ids of documents it would take away."""

    discovery: Discovery
    documents: list[dict[str, Any]] = field(default_factory=list)
    removed: list[str] = field(default_factory=list)


def rehearse(settings: Settings, options: RunOptions, stop: Stop) -> Rehearsed:
    """Discover, fetch and score as a run would, and write nothing.

    Raises:
        EnrichError: as the run would.
    """
    with open_services(settings) as services:
        discovery = discover(
            services.source,
            services.database,
            settings,
            0,
            ids=services.spelled(options.ids),
            allow_removals=options.allow_removals,
            revalidate=options.revalidate,
            dry_run=True,
        )
        ids = discovery.ids
        waiting = sorted({id for kind in ENRICHED for id in ids.get(kind, ())})[: options.limit]
        rehearsal = _Rehearsal(services, waiting, set(ids.get("revalidated", ())))
        if waiting:
            pipeline_on(services, rehearsal, stop.is_set).run()
        changed = ids.get("documents", [])
        columns = services.source.documents([*waiting, *changed])
        rows = [_enriched(services, result, columns) for result in rehearsal.results]
        rows += [_republished(services, id, columns) for id in changed]
        documents = [build(row, services.bundle.heads, settings.index_mode) for row in rows]
        return Rehearsed(discovery, documents, ids.get("removed", []))


def _enriched(services: Services, result: ListingResult, columns: dict[str, Any]) -> OutboxRow:
    id, bundle_id = result.claim.id, services.bundle.bundle_id
    model = asdict(result.attributes)
    attributes = services.database.run(lambda connection: overrides.published(connection, id, model))
    return OutboxRow(id, 0, False, attributes, columns[id][1], bundle_id, datetime.now(UTC))


def _republished(services: Services, id: str, columns: dict[str, Any]) -> OutboxRow:
    known = details(services.database, id).listing
    return OutboxRow(
        id,
        known["revision"],
        False,
        known["attributes"],
        columns[id][1],
        known["bundle_id"],
        known["enriched_at"],
    )
