"""`enrich run --dry-run`: what a run would write and take away, with nothing written.

All is gone through as a run goes through it; a sample of the documents and deletes is kept, the rest counted.
"""

import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from functools import partial
from itertools import islice
from threading import Lock
from typing import Any

from sqlalchemy import Connection, Row

from enrich.index.document import build
from enrich.index.protocol import IndexUnavailable
from enrich.index.publish import PublishFigures
from enrich.records import Claim, ListingResult
from enrich.settings import Settings
from enrich.source.discover import Discovery
from enrich.source.foresee import Foresight, Prospect, held, read
from enrich.state.outbox import OutboxRow
from enrich.state.targets import known, serving
from jobs.run.looking import LookingQueue, chosen, rows_of
from jobs.run.nightly import RunOptions
from jobs.run.services import Services, open_services
from jobs.run.session import pipeline_on
from jobs.run.stop import Stop

log = logging.getLogger(__name__)
SAMPLE = 20  # documents and deletes shown, unless --limit says otherwise


@dataclass(slots=True)
class Rehearsed:
    """What a run would do."""

    discovery: Discovery
    sample: int
    counts: PublishFigures = field(default_factory=PublishFigures)
    documents: list[dict[str, Any]] = field(default_factory=list)
    """The first ones that it would write, whole."""
    removed: list[str] = field(default_factory=list)
    """The ids of the first documents that it would take away."""

    def count(self, outcome: str) -> None:
        """Count a document by what would become of it: a field of `counts`."""
        setattr(self.counts, outcome, getattr(self.counts, outcome) + 1)


def rehearse(settings: Settings, options: RunOptions, stop: Stop) -> Rehearsed:
    """Discover, fetch and score as a run would, and write nothing.

    Raises:
        EnrichError: as the run would, but what the removal guard refuses is in `discovery`.
    """
    with open_services(settings, stop=stop) as services:
        if unmarked := len(services.backfills.unmarked()):
            log.warning(
                "there %s whose listings are not all marked yet: the run marks and enriches them, too, and "
                "they are not counted here",
                "is 1 backfill" if unmarked == 1 else f"are {unmarked} backfills",
            )
        ids, (target, lost) = services.spelled(options.ids), _target(services)
        at = (services.source, services.database, settings)
        ahead = Foresight(*at, ids, options.revalidate, target, lost)
        discovery = ahead.discovery(options.allow_removals)
        rehearsed = Rehearsed(discovery, options.limit or SAMPLE)
        queue = RehearsalQueue(services, rehearsed, ahead.prospects(refused=discovery.refusal is not None))
        if queue.claimable():
            pipeline_on(services, queue, stop.is_set).run(limit=options.limit)
        if not stop.is_set():
            queue.count_the_rest(ahead.elsewhere())
    return rehearsed


def _target(services: Services) -> tuple[int | None, frozenset[str]]:
    """What the run would publish to, which may be another index than the last one published to; and the
    listings whose documents it lost."""
    index, settings, database = services.index, services.settings, services.database
    try:
        identity = index.identity()
        target = read(database, lambda c: known(c, settings.index, settings.index_mode, identity))
        if target is None:
            return None, frozenset()
        lost = (id for ids in index.lost() for id in read(database, partial(held, target=target, ids=ids)))
        return target, frozenset(lost)
    except IndexUnavailable as error:
        log.warning("index away (%s): taken for the one that was published to last", error)
        return read(database, serving), frozenset()


class RehearsalQueue(LookingQueue):
    """A `WorkQueue` that hands out what a run would enrich, and counts what would come of it."""

    def __init__(self, services: Services, rehearsed: Rehearsed, ahead: Iterator[Prospect]) -> None:
        super().__init__(services, self._to_enrich(ahead))
        self._rehearsed = rehearsed
        self._held: dict[str, Prospect] = {}
        self._lock = Lock()

    def release(self, claims: Sequence[Claim], forgive: bool = True, later: float = 0.0) -> None:
        for claim in claims:
            if prospect := self._held.pop(claim.id, None):  # else it was completed as the run ended
                self._count(prospect)

    def _completed(self, result: ListingResult, row: Row[Any] | None, attributes: dict[str, Any]) -> None:
        prospect = self._held.pop(result.claim.id)
        bundle_id = result.bundle_id
        same = row is not None and (attributes, bundle_id) == (row.attributes, row.bundle_id)
        if not same:
            prospect = replace(prospect, outcome="written")
        self._count(prospect, OutboxRow(prospect.id, 0, False, attributes, {}, bundle_id, datetime.now(UTC)))

    def count_the_rest(self, elsewhere: Iterator[Prospect]) -> None:
        """What was not claimed is not enriched: its document goes out as it is, or waits for another run. So
        do those of other listings."""
        for claim in self._waiting:
            self.release([claim])
        for prospect in self._looked_up(elsewhere):
            self._count(prospect)

    def _to_enrich(self, ahead: Iterator[Prospect]) -> Iterator[Claim]:
        for prospect in self._looked_up(ahead):
            if prospect.enriched:
                self._held[prospect.id] = prospect
                yield chosen(prospect.id, prospect.revalidate)
            else:
                self._count(prospect)

    def _looked_up(self, ahead: Iterator[Prospect]) -> Iterator[Prospect]:
        """The same, with what the index has of them now; as it was last time where it is away."""
        index, settings = self._services.index, self._services.settings
        merging = settings.index_mode == "merge"
        while page := list(islice(ahead, settings.publish_batch)):
            asked = [prospect.id for prospect in page if merging or prospect.outcome == "removed"]
            with suppress(IndexUnavailable):
                there = index.documents(asked)
                page = [_beside(prospect, there, merging) for prospect in page]
            yield from page

    def _count(self, prospect: Prospect, made: OutboxRow | None = None) -> None:
        told, outcome = self._rehearsed, prospect.outcome
        if prospect.awaits and outcome in ("written", "refused"):
            outcome = "awaiting"
        with self._lock:
            if outcome is None:
                return
            told.count(outcome)
            if outcome == "removed" and len(told.removed) < told.sample:
                told.removed.append(prospect.id)
            shown = outcome == "written" and len(told.documents) < told.sample
            if shown and (document := self._document(prospect.id, made)) is not None:
                told.documents.append(document)

    def _document(self, id: str, made: OutboxRow | None) -> dict[str, Any] | None:
        """The document that would be written, of what enrichment made or of what is known."""
        services = self._services
        columns = services.source.documents([id])
        row = made or read(services.database, lambda state: _known(state, id))
        if id not in columns or row is None:
            return None
        row = replace(row, columns=columns[id][1])
        return build(row, services.bundle.heads, services.settings.index_mode)


def _beside(prospect: Prospect, there: Mapping[str, Mapping[str, Any]], merging: bool) -> Prospect:
    if prospect.outcome == "removed":
        return prospect if there.get(prospect.id) else replace(prospect, outcome=None)
    return replace(prospect, awaits=prospect.id not in there) if merging else prospect


def _known(state: Connection, id: str) -> OutboxRow | None:
    row = rows_of(state, [id]).get(id)
    if row is None:
        return None
    return OutboxRow(id, row.revision, False, row.attributes, {}, row.bundle_id, row.enriched_at)
