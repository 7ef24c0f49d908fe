"""Backfill: enrich existing listings again, behind whatever the nightly run finds.

A backfill is a job in the database, see `enrich.state.backfills`. Asked for again while it is not done, after
a kill or beside the process that works on it, it is joined instead of marked anew.
"""

from collections.abc import Sequence
from contextlib import ExitStack, nullcontext
from dataclasses import dataclass, replace
from datetime import datetime

from enrich.errors import FlipLimitError, RemovalGuardError, UsageError
from enrich.setting_values import parse_number_or_share
from enrich.settings import Settings
from enrich.state.backfills import Selection
from jobs.run.ahead import ScoredAhead
from jobs.run.cluster.connect import connected
from jobs.run.cluster.drive import score_ahead
from jobs.run.record import RunReport, Watch, recorded, told_of_failures
from jobs.run.services import Services, open_services
from jobs.run.session import check_index, discover_beside, enrich_and_publish
from jobs.run.stop import Stop


@dataclass(frozen=True, slots=True)
class BackfillOptions:
    """Which listings to enrich again; nothing set: all."""

    ids: Sequence[str] | None = None
    since: datetime | None = None
    stale_bundle: bool = False
    revalidate: bool = False
    max_flips: str | None = None
    """With `stale_bundle`: how many listings, or which share of them, may change the same filter."""
    ray: str | None = None
    """Have a Ray cluster fetch and score first: its address, or `local`."""


def backfill(
    settings: Settings, options: BackfillOptions, stop: Stop, watch: Watch = nullcontext
) -> RunReport:
    """Mark listings, then enrich and publish until none is left.

    Raises:
        EnrichError: with the exit code of the command; see `enrich.errors`.
    """
    if options.ray is not None and options.revalidate:
        raise UsageError(
            "--ray leaves out what is to be revalidated, since every photo is asked for once more when its "
            "listing is worked on: say --ray or --revalidate"
        )
    if options.max_flips is not None:
        if not options.stale_bundle:
            raise UsageError("--max-flips bounds what a new bundle changes: say --stale-bundle, too")
        try:
            parse_number_or_share(options.max_flips)
        except ValueError as error:
            raise UsageError(f"--max-flips {options.max_flips}: {error}") from None
    report = RunReport()
    with (
        told_of_failures(watch) as watch,
        ExitStack() as joined,
        open_services(settings, "backfill", stop) as services,
    ):
        ray = joined.enter_context(connected(options.ray)) if options.ray is not None else None
        check_index(services)
        options = replace(options, ids=services.spelled(options.ids))
        with recorded(services, "backfill", report, stop, watch, options.ids) as run_id:
            asked = services.backfills.ask(selection(services, options), options.max_flips)
            discover_beside(services, report, run_id, options.ids)
            services.warn_of_unknown(options.ids)
            services.backfills.mark(stop.is_set)
            if asked.joined:
                report.joined = asked.id
            else:
                report.marked = services.backfills.marked(asked.id)
            if options.ray is not None:
                report.ahead = ScoredAhead()
                score_ahead(ray, options.ray, services, report.ahead, stop, options.ids)
                joined.close()  # the nodes have nothing to do with what follows
            enrich_and_publish(services, report, stop, ids=options.ids)
            if (why := services.backfills.held(asked.id)) is not None:
                raise FlipLimitError(
                    f"{why}: the roll-out was ended before that, and the others stay as the old bundle made "
                    "them. `enrich backfill --stale-bundle --dry-run` shows what changes; a larger "
                    "--max-flips goes on, and the old ENRICH_BUNDLE with --stale-bundle goes back"
                    + (f". Besides, {report.refusal}" if report.refusal else "")
                )
            if report.refusal is not None:
                raise RemovalGuardError(report.refusal)
    return report


def selection(services: Services, options: BackfillOptions) -> Selection:
    """Which listings the options name, as state has it."""
    stale = services.bundle.bundle_id if options.stale_bundle else None
    return Selection(options.ids, options.since, stale, options.revalidate)
