"""The nightly run: discover what changed, enrich it, publish it."""

import logging
import time
from collections.abc import Sequence
from contextlib import ExitStack, nullcontext
from dataclasses import dataclass, replace

from enrich.errors import BusyError, RemovalGuardError
from enrich.model.open import check_device
from enrich.settings import Settings
from enrich.source.discover import discover
from enrich.state.locks import Hold
from jobs.run.drift import NIGHTS, judged
from jobs.run.record import RunReport, Watch, recorded, told_of_failures
from jobs.run.services import Services, open_services
from jobs.run.session import DISCOVER, LOCK_PATIENCE, LOCK_POLL, check_index, enrich_and_publish
from jobs.run.stop import Stop

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class RunOptions:
    """What the command line may ask of a run."""

    ids: Sequence[str] | None = None
    limit: int | None = None
    allow_removals: bool = False
    revalidate: bool = False
    wait: bool = False
    """Wait for another run to end instead of raising BusyError: what the scheduler does. What holds the lock
    for a while only is waited for either way."""


def run(settings: Settings, options: RunOptions, stop: Stop, watch: Watch = nullcontext) -> RunReport:
    """Discover, enrich, publish.

    Raises:
        EnrichError: with the exit code of the command; see `enrich.errors`.
    """
    report = RunReport()
    with told_of_failures(watch) as watch, open_services(settings, stop=stop) as services:
        check_index(services)
        check_device(settings)
        options = replace(options, ids=services.spelled(options.ids))
        deadline, told = time.monotonic() + LOCK_PATIENCE, options.wait
        while not stop.is_set():
            with ExitStack() as held:
                try:
                    hold = held.enter_context(services.locks.hold(DISCOVER, settings.lease_seconds))
                except BusyError as busy:
                    if not options.wait and (time.monotonic() > deadline or _under_way(services)):
                        raise
                    if not told:
                        log.warning("waiting up to %.0f s for what is no run: %s", LOCK_PATIENCE, busy)
                        told = True
                    stop.wait(LOCK_POLL)
                    report = RunReport()  # its clock starts anew: the wait is no part of what the run took
                    continue
                _run(services, options, stop, report, hold, watch)
            break
        else:
            report.exit_code = stop.exit_code
    return report


def _under_way(services: Services) -> bool:
    """Whether another run is; else what holds the lock (a prune, a reindex, the start of a backfill) gives it
    back before long."""
    return any(run.under_way for run in services.runs.runs(1, ["run"]))


def _run(
    services: Services, options: RunOptions, stop: Stop, report: RunReport, hold: Hold, watch: Watch
) -> None:
    with recorded(services, "run", report, stop, watch, options.ids) as run_id:
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
        services.warn_of_unknown(options.ids)
        services.backfills.mark(stop.is_set)
        enrich_and_publish(services, report, stop, ids=options.ids, limit=options.limit)
        if report.refusal is not None:
            raise RemovalGuardError(report.refusal)
        if options.ids is None and not stop.is_set():
            _judge(services, report)


def _judge(services: Services, report: RunReport) -> None:
    bundle, bound = services.bundle.bundle_id, services.settings.max_drift
    report.drift = judged(report.figures, bundle, services.runs.nights(NIGHTS), bound)
    for measure in report.drift:
        if measure.drifted:
            told = "drift: %s of %d: look at what changed in photos, hosts or model (ENRICH_MAX_DRIFT=%g)"
            log.warning(told, measure, measure.of, bound)
