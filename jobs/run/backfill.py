"""Backfill: enrich existing listings again, behind whatever the nightly run finds.

A backfill only marks listings; any process enriches them. Started again after a kill, or beside another one,
it goes on with what is marked instead of marking anew.
"""

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import datetime

from enrich.errors import BusyError
from enrich.settings import Settings
from enrich.source.discover import discover
from jobs.run.services import Services, open_services
from jobs.run.session import DISCOVER, RunReport, check_index, enrich_and_publish, recorded
from jobs.run.stop import Stop


@dataclass(frozen=True, slots=True)
class BackfillOptions:
    """Which listings to enrich again; nothing set: all."""

    ids: Sequence[str] | None = None
    since: datetime | None = None
    stale_bundle: bool = False
    revalidate: bool = False


def backfill(settings: Settings, options: BackfillOptions, stop: Stop) -> RunReport:
    """Mark listings, then enrich and publish until none is left.

    Raises:
        EnrichError: with the exit code of the command; see `enrich.errors`.
    """
    report = RunReport()
    with open_services(settings) as services:
        check_index(services)
        options = replace(options, ids=services.spelled(options.ids))
        with recorded(services, "backfill", report, stop) as run_id:
            _discover_and_mark(services, options, report, run_id)
            enrich_and_publish(services, report, stop, ids=options.ids)
    return report


def _discover_and_mark(services: Services, options: BackfillOptions, report: RunReport, run_id: int) -> None:
    # Where a nightly run is under way it does the discovering.
    with suppress(BusyError), services.runs.hold(DISCOVER, services.settings.lease_seconds):
        report.discovery = discover(
            services.source, services.database, services.settings, run_id, ids=options.ids
        )
        report.marked = _mark(services, options)


def _mark(services: Services, options: BackfillOptions) -> int | None:
    if services.state.backfill_waiting():
        return None
    stale = services.bundle.bundle_id if options.stale_bundle else None
    return services.state.mark_backfill(
        ids=options.ids, since=options.since, stale_bundle=stale, revalidate=options.revalidate
    )
