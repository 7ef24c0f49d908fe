"""Reconcile: the portal's tables, our state and the index compared, and the index mended where it differs.

Our listings are gone through beside the portal's, a page at a time, and their documents read by their ids.
Then all documents of the index are gone through, for those that no listing owns. Runs may go on beside it:
what seems to differ is looked at twice, and is only told of if it still does.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from enrich.errors import RemovalGuardError
from enrich.index.document import build, same
from enrich.index.protocol import IndexUnavailable
from enrich.index.publish import Publisher
from enrich.records import DocumentWrite, WriteStatus
from enrich.settings import Settings
from enrich.source.discover import discover
from enrich.source.known import Known, known
from enrich.source.pages import Page, pages
from enrich.source.removals import Losses, refusal
from enrich.state.locks import Hold
from enrich.state.reconciling import ownerless, revise, revision_now
from jobs.run.lifecycle import Difference, Reconciled
from jobs.run.progress import counted
from jobs.run.record import RunReport, recorded
from jobs.run.services import Services, open_services
from jobs.run.session import DISCOVER, check_index, holding_publish
from jobs.run.stop import Stop

EXAMPLES = 10  # ids told of each kind

Kind = Literal["missing", "stale", "orphaned", "altered"]


@dataclass(frozen=True, slots=True)
class _Found:
    """How one document differs."""

    kind: Kind
    in_portal: bool = False
    """It is the portal that differs from our state: discovery writes that down."""


def reconcile(settings: Settings, fix: bool, allow_removals: bool, stop: Stop) -> RunReport:
    """Find out how the index differs, writing nothing; with `fix`, mend what does.

    Raises:
        RemovalGuardError: with `fix`, where more documents are orphaned than may be removed.
        IndexUnavailable: the index gives no answer, or removes nothing now.
        EnrichError: with the exit code of the command; see `enrich.errors`.
    """
    report = RunReport()
    found = report.reconciled = Reconciled()
    with open_services(settings, "reconcile", stop) as services:
        services.source.tells_active(services.runs.told_active())
        if fix:
            check_index(services)
        with counted(lambda: found.documents, settings.log_interval):
            losses = _compare(services, found, stop)
        if stop.is_set():
            report.exit_code = stop.exit_code
        elif not fix:
            report.exit_code = 1 if found.differences else 0
        elif not found.differences:
            with recorded(services, "reconcile", report, stop):
                pass  # who waits to hear of it every night hears that all is well
        else:
            refused = None
            if not allow_removals:
                command = "enrich reconcile --fix"
                refused = refusal(losses, settings.max_removed, whole=True, command=command)
            with (
                services.locks.hold(DISCOVER, settings.lease_seconds) as hold,
                recorded(services, "reconcile", report, stop) as run_id,
            ):
                _mend(services, report, run_id, hold, stop, found.orphaned.count if refused is None else 0)
                found.fixed = not stop.is_set()
                if not found.fixed:
                    published = report.published
                    report.left = max(found.differences - published.written - published.removed, 0)
                if refused is not None:
                    raise RemovalGuardError(refused)
    return report


def _compare(services: Services, found: Reconciled, stop: Stop) -> Losses:
    """Count the differences; what the removal guard is to know of the orphaned documents."""
    losses = Losses()
    for page in pages(services.source, services.settings.page_size, None):
        losses.see(page)
        found.waiting += len(page.listings)  # all, less those that are known
        for rows in known(services.database, page, _limit(services)):
            found.documents += sum(one.here and one.row.revision > 0 for one in rows)
            found.waiting += sum(map(_waits, rows)) - sum(one.here for one in rows)
            _count(found, _differing(services, rows))
            if stop.is_set():
                return losses
    for ids in _orphans(services):
        _count(found, dict.fromkeys(ids, _Found("orphaned")))
        if stop.is_set():
            return losses
    losses.leaving = found.orphaned.count
    losses.documents = found.documents + losses.leaving
    return losses


def _limit(services: Services) -> int:
    return 2 * services.settings.page_size  # a page of the source in one piece, what it lacks in several


def _waits(one: Known) -> bool:
    if one.row.gone == one.here:
        return False
    if one.here and one.to_enrich:
        return True
    return not one.published and (one.here or one.row.revision > 0)


def _count(found: Reconciled, differing: Mapping[str, _Found]) -> None:
    for id, how in differing.items():
        kind: Difference = getattr(found, how.kind)
        kind.count += 1
        if len(kind.examples) < EXAMPLES:
            kind.examples.append(id)


def _differing(services: Services, rows: Sequence[Known]) -> dict[str, _Found]:
    """Those of these listings whose documents differ, and still do when all is read once more."""
    first = _differences(services, rows)
    if not first:
        return {}
    page = Page(services.source.by_ids(list(first)), ids=list(first))
    again = [one for chunk in known(services.database, page, _limit(services)) for one in chunk]
    return {id: how for id, how in _differences(services, again).items() if id in first}


def _differences(services: Services, rows: Sequence[Known]) -> dict[str, _Found]:
    enriched = [one for one in rows if one.row.revision and (one.here or not one.row.gone)]
    documents = services.index.documents([one.row.id for one in enriched])
    found = ((one.row.id, _difference(services, one, documents.get(one.row.id))) for one in enriched)
    return {id: how for id, how in found if how is not None}


def _difference(services: Services, one: Known, document: Mapping[str, Any] | None) -> _Found | None:
    if not one.here:
        return _Found("orphaned", in_portal=True) if document else None
    if one.row.gone or one.other_columns:  # it came back, or changed
        return _Found("missing" if document is None else "stale", in_portal=True)
    if not one.published:
        return None
    if document is None:
        return _Found("missing")
    mode = services.settings.index_mode
    made = build(one.row, services.bundle.heads, mode)
    if mode == "merge":
        del made["listing_id"]  # the portal may have one of its own
    if same(made, document):
        return None
    enrichment = document.get("enrichment")
    revision = enrichment.get("revision") if isinstance(enrichment, Mapping) else None
    return _Found("stale" if isinstance(revision, int) and revision < one.row.revision else "altered")


def _orphans(services: Services) -> Iterator[list[str]]:
    """Documents of listings that are unknown to our state and to the portal, or gone from both."""
    for ids in services.index.ids():
        if strangers := ownerless(services.database, ids):
            documents = services.index.documents(strangers)  # as they are now
            strangers = ownerless(services.database, [id for id in strangers if documents.get(id)])
            here = {listing.id for listing in services.source.by_ids(strangers)}
            yield [id for id in strangers if id not in here]


def _mend(services: Services, report: RunReport, run_id: int, hold: Hold, stop: Stop, removable: int) -> None:
    """Have what differs written anew or taken away, a page at a time; `removable`: orphaned ones, at most."""
    publisher = Publisher(services.outbox, services.index, services.bundle, services.settings)
    report.published = publisher.figures
    at = (services.source, services.database)
    # Listings whose photos are all gone keep their answers until a run has counted how many there are.
    cautious = services.settings.model_copy(update={"max_removed": "0"})
    for page in pages(services.source, services.settings.page_size, None):
        for rows in known(services.database, page, _limit(services)):
            if stop.is_set():
                return
            differing = _differing(services, rows)
            if ids := [id for id, how in differing.items() if not how.in_portal]:
                hold.check()
                revise(services.database, ids)
            in_portal = {id: how.kind for id, how in differing.items() if how.in_portal}
            if ids := [id for id, kind in in_portal.items() if kind != "orphaned"]:
                discover(*at, cautious, run_id, ids=ids, check=hold.check)
            # What left since the orphaned ones were counted is the next run's to count.
            if leaving := [id for id, kind in in_portal.items() if kind == "orphaned"][:removable]:
                removable -= len(leaving)
                discover(*at, services.settings, run_id, ids=leaving, allow_removals=True, check=hold.check)

    def work(publishing: Hold) -> None:
        nonlocal removable
        for ids in _orphans(services) if removable else ():
            publishing.check()
            publisher.figures.removed += _take_away(services, ids[:removable])
            removable -= len(ids[:removable])
        publisher.publish(until=stop.is_set, check=publishing.check)

    if holding_publish(services, stop, work):
        publisher.refusals.warn()


def _take_away(services: Services, ids: Sequence[str]) -> int:
    """Take away documents that no listing owns, above whatever version they have; how many.

    Raises:
        IndexUnavailable: the index put some of them off.
    """
    revision, taken = revision_now(services.database), 0
    writes = [DocumentWrite(id, revision, None) for id in ids]
    for _ in range(2):
        results = services.index.write(writes) if writes else []
        taken += sum(result.status is WriteStatus.DONE and not result.absent for result in results)
        if put_off := [result for result in results if result.status is WriteStatus.RETRY]:
            raise IndexUnavailable(f"{len(put_off)} removals were put off: {put_off[0].error}")
        writes = [
            DocumentWrite(result.id, result.index_revision + 1, None)
            for result in results
            if result.index_revision is not None
        ]
    return taken
