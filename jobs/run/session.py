"""The part that the nightly run and the backfill share: enrich what is claimable while publishing it."""

import logging
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field
from threading import Event, Thread
from typing import Any

from enrich.errors import BusyError, EnrichError, LockLostError, OutageError, RemovalGuardError
from enrich.index.protocol import IndexUnavailable
from enrich.index.publish import Publisher, PublishFigures
from enrich.model.bundle import Bundle
from enrich.model.engine import Engine
from enrich.model.open import open_engine
from enrich.photos.open import open_transport
from enrich.pipeline.figures import Figures
from enrich.pipeline.run import Pipeline, open_pipeline
from enrich.source.discover import Discovery
from enrich.state import bundles
from enrich.state.locks import Hold
from enrich.state.queue import WorkQueue
from jobs.run.ahead import ScoredAhead
from jobs.run.lifecycle import Reconciled, Reindexed
from jobs.run.progress import shown
from jobs.run.services import Records, Services
from jobs.run.stop import Stop

log = logging.getLogger(__name__)

PUBLISH_EVERY = 5.0  # seconds between looks at the outbox while listings are enriched
LOCK_PATIENCE = 600.0  # seconds to wait for another process's publish at the end of a run
LOCK_POLL = 1.0
DISCOVER, PUBLISH, REINDEX = "discover", "publish", "reindex"  # the locks
# Kinds of runs that leave listings that wait to others.
DOCUMENTS_ONLY = ("publish", "rescore", "reconcile", "reindex")


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

    def as_json(self) -> dict[str, Any]:
        """For logs and the table `run`."""
        return {
            **self.figures.as_json(),
            "discovery": self.discovery.as_json() if self.discovery else {},
            "documents": asdict(self.published),
            "marked": self.marked,
            "joined": self.joined,
            "rescored": asdict(self.rescored) if self.rescored else None,
            "ray": self.ahead.as_json() if self.ahead else None,
            "reconciled": asdict(self.reconciled) if self.reconciled else None,
            "reindexed": asdict(self.reindexed) if self.reindexed else None,
            "left": self.left,
        }


def check_index(services: Services) -> None:
    """Find out that the index cannot be used before anything is written.

    Raises:
        IndexSetupError: it cannot be used as set up. One that does not answer now is waited for later.
    """
    with suppress(IndexUnavailable):
        services.index.check()


@contextmanager
def recorded(services: Records, kind: str, report: RunReport, stop: Stop) -> Iterator[int]:
    """Keep the run in the table `run`, with how it ended; yields its id."""
    if services.bundle.notice and not services.settings.embedded:  # nobody's own listings
        log.warning("bundle %s: %s", services.bundle.name, services.bundle.notice)
    bundle = services.bundle
    bundles.remember(services.database, bundle.bundle_id, bundle.name, _heads(bundle))
    run_id = services.runs.start_run(kind, bundle.bundle_id)
    error: str | None = None
    report.exit_code = 70
    try:
        yield run_id
        if stop.is_set() and (left := report.left or _left(services, kind)):
            report.left, report.exit_code = left, stop.exit_code
            error = f"{left} left"
        else:
            report.exit_code = 1 if report.figures.quarantined or report.published.refused else 0
    except EnrichError as raised:
        report.exit_code, error = raised.exit_code, str(raised)
        raise
    except IndexUnavailable as raised:
        report.exit_code, error = OutageError.exit_code, str(raised)
        raise
    except BaseException as raised:
        error = repr(raised)
        raise
    finally:
        services.runs.finish_run(run_id, report.exit_code, report.as_json(), error)


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


def _left(services: Records, kind: str) -> int:
    """What the same command would go on with: listings, else documents, else backfills to be marked."""
    listings = 0 if kind in DOCUMENTS_ONLY else services.queue.waiting_count()
    if listings:
        return listings
    counts = services.outbox.counts()
    documents = counts.unpublished - counts.awaiting - counts.refused
    if documents or kind in DOCUMENTS_ONLY:
        return documents
    return len(services.backfills.unmarked())


def enrich_and_publish(
    services: Services,
    report: RunReport,
    stop: Stop,
    *,
    ids: Sequence[str] | None = None,
    limit: int | None = None,
) -> None:
    """Enrich what is claimable, publishing meanwhile and at the end.

    Raises:
        RemovalGuardError: at the end, where discovery withheld removals.
    """

    def work(stopping: Callable[[], bool]) -> None:
        if services.queue.claimable(ids):
            _enrich(services, report.figures, stopping, ids, limit)

    publish_beside(services, report, stop, work)


def publish_beside(
    services: Services, report: RunReport, stop: Stop, work: Callable[[Callable[[], bool]], None]
) -> None:
    """Do `work`, which is told how to ask whether to stop, publishing meanwhile and at the end.

    When told to stop, what is not published yet stays in the outbox for the next run.

    Raises:
        RemovalGuardError: at the end, where discovery withheld removals.
    """
    publisher = Publisher(services.outbox, services.index, services.bundle, services.settings)
    report.published = publisher.figures
    with _publishing(services, publisher) as failed:
        work(lambda: stop.is_set() or bool(failed))
    if failed:
        raise failed[0]
    services.backfills.finish()
    publish_now(services, publisher, stop)
    if report.discovery is not None and report.discovery.refusal is not None:
        raise RemovalGuardError(report.discovery.refusal)


def publish_now(services: Records, publisher: Publisher, stop: Stop) -> None:
    """Publish everything, waiting for another process's publish to end first.

    A lock that was lost, because the database was away, is taken again: nothing is written without it.

    Raises:
        BusyError: the other one did not end.
    """

    def work(hold: Hold) -> None:
        publisher.publish(until=stop.is_set, check=hold.check)

    if holding_publish(services, stop, work):
        publisher.refusals.warn()


def holding_publish(services: Records, stop: Stop, work: Callable[[Hold], object]) -> bool:
    """Do `work` with the lock `publish`, waiting for another process to give it back; False: told to stop.

    Raises:
        BusyError: the other one did not end.
    """
    deadline = time.monotonic() + LOCK_PATIENCE
    while not stop.is_set():
        try:
            with services.locks.hold(PUBLISH, services.settings.lease_seconds) as hold:
                work(hold)
            return True
        except LockLostError:  # it was ours: we wait anew
            deadline = time.monotonic() + LOCK_PATIENCE
        except BusyError:
            if time.monotonic() > deadline:
                raise
        stop.wait(LOCK_POLL)
    return False


def pipeline_on(
    services: Services,
    queue: WorkQueue,
    stopping: Callable[[], bool],
    figures: Figures | None = None,
    engine: Engine | None = None,
) -> Pipeline:
    """The pipeline with the model of the settings, on `engine` if one is open, working on `queue`."""
    settings = services.settings
    return open_pipeline(
        queue,
        services.source,
        services.bundle,
        engine or open_engine(services.bundle, settings),
        open_transport(settings),
        settings,
        stopping=stopping,
        figures=figures,
    )


def _enrich(
    services: Services,
    figures: Figures,
    stopping: Callable[[], bool],
    ids: Sequence[str] | None,
    limit: int | None,
) -> None:
    queue = services.queue
    pipeline = pipeline_on(services, queue, stopping, figures)
    with shown(figures, lambda: queue.waiting_count(ids), services.settings.log_interval):
        pipeline.run(ids=ids, limit=limit)
    figures.quarantined += queue.newly_quarantined


@contextmanager
def _publishing(services: Services, publisher: Publisher) -> Iterator[list[Exception]]:
    """Publish every few seconds beside the block; what ended that early is in the list that it yields."""
    done = Event()
    failed: list[Exception] = []

    def work() -> None:
        while not done.wait(PUBLISH_EVERY):
            try:
                with services.locks.hold(PUBLISH, services.settings.lease_seconds) as hold:
                    publisher.publish(until=done.is_set, check=hold.check)
            except (BusyError, LockLostError):
                continue
            except Exception as error:
                failed.append(error)
                return

    thread = Thread(target=work, name="publish", daemon=True)
    thread.start()
    try:
        yield failed
    finally:
        done.set()
        thread.join()
