"""What a job did: its report, and its row in the table `run`."""

import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import asdict, dataclass, field
from typing import Any

from enrich.errors import EnrichError, OutageError
from enrich.index.protocol import IndexUnavailable
from enrich.index.publish import PublishFigures
from enrich.model.bundle import Bundle
from enrich.pipeline.figures import Figures
from enrich.source.discover import Discovery
from enrich.state import bundles
from enrich.state.refusals import servers_state
from enrich.state.runs import lock_of
from jobs.run import hook
from jobs.run.ahead import ScoredAhead
from jobs.run.drift import Measure, plain
from jobs.run.lifecycle import Reconciled, Reindexed
from jobs.run.services import Records
from jobs.run.stop import Stop

log = logging.getLogger(__name__)

DOCUMENTS_ONLY = ("publish", "rescore", "reconcile")
"""Kinds of jobs that leave listings that wait to others."""


@dataclass(frozen=True, slots=True)
class Rescored:
    """What was scored from kept features, without fetching or decoding."""

    photos: int
    left: int | None
    """After `enrich rescore`: listings that stay as another bundle made them, since photos of theirs have no
    features, or are due anyway."""


@dataclass(slots=True)
class RunReport:
    """What a job did."""

    figures: Figures = field(default_factory=Figures)
    discovery: Discovery | None = None
    published: PublishFigures = field(default_factory=PublishFigures)
    marked: int | None = None
    """Listings that a backfill marked; None for other jobs, and for a backfill that joined an earlier one."""
    joined: int | None = None
    """The number of the unfinished backfill that this one joined, which asked for the same."""
    other_bundle: int | None = None
    """After `enrich rescore`: how many listings stay as another bundle made them."""
    ahead: ScoredAhead | None = None
    """What a cluster fetched and scored before; `figures` count these photos as known."""
    drift: list[Measure] | None = None
    """What a nightly run measured, held against the nights before; None where it did not get that far."""
    reconciled: Reconciled | None = None
    """What `enrich reconcile` found."""
    reindexed: Reindexed | None = None
    left: int | None = None
    """Where a signal stopped the job: listings to enrich, or documents to publish where all are enriched."""
    exit_code: int = 0

    @property
    def rescored(self) -> Rescored | None:
        """What was scored from kept features; None where nothing was, and nothing was to be."""
        photos = self.figures.rescored
        return Rescored(photos, self.other_bundle) if photos or self.other_bundle is not None else None

    @property
    def refusal(self) -> str | None:
        """Why the removal guard let nothing leave; None where it let pass what there was."""
        return self.discovery.refusal if self.discovery else None

    def as_json(self) -> dict[str, Any]:
        """For logs and the table `run`."""
        return {
            **self.figures.as_json(),
            "discovery": self.discovery.as_json() if self.discovery else {},
            "active_column": self.discovery.tells_active if self.discovery else None,
            "documents": asdict(self.published),
            "marked": self.marked,
            "joined": self.joined,
            "rescored": asdict(self.rescored) if self.rescored else None,
            "ray": self.ahead.as_json() if self.ahead else None,
            "drift": None if self.drift is None else plain(self.drift),
            "reconciled": asdict(self.reconciled) if self.reconciled else None,
            "reindexed": asdict(self.reindexed) if self.reindexed else None,
            "left": self.left,
        }

    @property
    def trouble(self) -> bool:
        """Whether a job that did all its work ends with exit code 1."""
        drifted = any(measure.drifted for measure in self.drift or ())
        return bool(self.figures.quarantined or self.published.refused or drifted)


Watch = Callable[[RunReport], AbstractContextManager[object]]
"""What is told of a job's report while the job runs, and leaves when its end is recorded."""


@contextmanager
def told_of_failures(watch: Watch) -> Iterator[Watch]:
    """`watch`, which is told as well of a job that fails in the block before it is on record."""
    told = False

    def telling(report: RunReport) -> AbstractContextManager[object]:
        nonlocal told
        told = True
        return watch(report)

    try:
        yield telling
    except Exception:
        if not told:
            with watch(RunReport()):
                pass
        raise


@contextmanager
def recorded(
    services: Records,
    kind: str,
    report: RunReport,
    stop: Stop,
    watch: Watch = nullcontext,
    ids: Sequence[str] | None = None,
) -> Iterator[int]:
    """Keep the run in the table `run`, with how it ended, and tell `ENRICH_ON_FINISH`; yields its id.

    `ids`: the listings that it enriches, where it leaves all others alone.
    """
    bundle = services.bundle
    if bundle.notice and not services.settings.embedded:  # nobody's own listings
        log.warning("bundle %s: %s", bundle.name, bundle.notice)
    bundles.remember(services.database, bundle.bundle_id, bundle.name, _heads(bundle))
    run_id = services.runs.start_run(kind, bundle.bundle_id)
    error: str | None = None
    report.exit_code = 70
    with watch(report):
        try:
            with services.locks.hold(lock_of(run_id), services.settings.lease_seconds):
                yield run_id
            if stop.is_set() and (left := report.left or _left(services, kind, ids)):
                report.left, report.exit_code = left, stop.exit_code
                error = f"{left} left"
            else:
                report.exit_code = 1 if report.trouble else 0
        except EnrichError as raised:
            report.exit_code, error = raised.exit_code, str(raised)
            raised.report = report
            if isinstance(raised, OutageError) and stop.signal:
                report.exit_code = stop.exit_code
            raise
        except IndexUnavailable as raised:
            report.exit_code, error = OutageError.exit_code, str(raised)
            raise
        except BaseException as raised:
            error = repr(raised)
            if (state := servers_state(raised)) is not None:
                report.exit_code, error = state.exit_code, str(state)
            raise
        finally:
            report.figures.end()
            try:
                services.runs.finish_run(run_id, report.exit_code, report.as_json(), error)
            finally:
                if services.settings.on_finish:
                    ended = {"run": run_id, "kind": kind, "exit_code": report.exit_code, "error": error}
                    hook.tell(services.settings.on_finish.get_secret_value(), {**ended, **report.as_json()})


def _heads(bundle: Bundle) -> dict[str, Any]:
    """The heads as the table `bundle` has them."""
    heads: dict[str, Any] = {
        head.name: {"classes": [one.name for one in head.classes] or None, "temperatures": {}}
        for head in bundle.heads
    }
    for arithmetic in bundle.arithmetics:
        for member in bundle.at(arithmetic).members:
            for head in member.heads:
                heads[head.name]["temperatures"][member.model_id] = head.temperature
    return heads


def _left(services: Records, kind: str, ids: Sequence[str] | None) -> int:
    """What the same command would go on with: listings, else documents, else backfills to be marked."""
    if kind == "reindex":  # done once the alias has moved; before, it says itself what is left
        return 0
    listings = 0 if kind in DOCUMENTS_ONLY else services.queue.waiting_count(ids)
    if listings:
        return listings
    counts = services.outbox.counts()
    documents = counts.unpublished - counts.awaiting - counts.refused
    if documents or kind in DOCUMENTS_ONLY:
        return documents
    return len(services.backfills.unmarked())
