"""The nightly run: discover what changed, enrich it, publish it."""

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace

from enrich.errors import BusyError
from enrich.settings import Settings
from enrich.source.discover import discover
from enrich.state.locks import Hold
from jobs.run.services import Services, open_services
from jobs.run.session import (
    DISCOVER,
    LOCK_POLL,
    RunReport,
    check_index,
    enrich_and_publish,
    recorded,
)
from jobs.run.stop import Stop


@dataclass(frozen=True, slots=True)
class RunOptions:
    """What the command line may ask of a run."""

    ids: Sequence[str] | None = None
    limit: int | None = None
    allow_removals: bool = False
    revalidate: bool = False
    wait: bool = False
    """Wait for another run to end instead of raising BusyError: what the scheduler does."""


def run(settings: Settings, options: RunOptions, stop: Stop) -> RunReport:
    """Discover, enrich, publish.

    Raises:
        EnrichError: with the exit code of the command; see `enrich.errors`.
    """
    report = RunReport()
    with open_services(settings) as services:
        check_index(services)
        options = replace(options, ids=services.spelled(options.ids))
        while not stop.is_set():
            with ExitStack() as held:
                try:
                    hold = held.enter_context(services.locks.hold(DISCOVER, settings.lease_seconds))
                except BusyError:
                    if not options.wait:
                        raise
                    stop.wait(LOCK_POLL)
                    continue
                _run(services, options, stop, report, hold)
            break
        else:
            report.exit_code = stop.exit_code
    return report


def _run(services: Services, options: RunOptions, stop: Stop, report: RunReport, hold: Hold) -> None:
    with recorded(services, "run", report, stop) as run_id:
        report.discovery = discover(
            services.source,
            services.database,
            services.settings,
            run_id,
            ids=options.ids,
            allow_removals=options.allow_removals,
            revalidate=options.revalidate,
            check=hold.check,
        )
        services.backfills.mark(stop.is_set)
        enrich_and_publish(services, report, stop, ids=options.ids, limit=options.limit)
