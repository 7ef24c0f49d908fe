"""What jobs have in common: discovery, enriching while publishing, and the locks that these take."""

import logging
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from threading import Event, Thread

from enrich.errors import BusyError, LockLostError
from enrich.index.protocol import IndexUnavailable
from enrich.index.publish import Publisher
from enrich.model.engine import Engine
from enrich.model.open import open_engine
from enrich.photos.open import open_transport
from enrich.pipeline.figures import Figures
from enrich.pipeline.run import Pipeline, open_pipeline
from enrich.source.discover import discover
from enrich.state import targets
from enrich.state.locks import Hold
from enrich.state.queue import WorkQueue
from jobs.run.progress import shown
from jobs.run.record import RunReport
from jobs.run.services import Records, Services
from jobs.run.stop import Stop

log = logging.getLogger(__name__)

PUBLISH_EVERY = 5.0  # seconds between looks at the outbox while listings are enriched
LOCK_PATIENCE = 600.0  # seconds to wait for another process's publish at the end of a run
LOCK_POLL = 1.0
DISCOVER, PUBLISH, REINDEX = "discover", "publish", "reindex"  # the locks


def check_index(services: Services) -> None:
    """Find out that the index cannot be used before anything is written.

    Raises:
        IndexSetupError: it cannot be used as set up. One that does not answer now is waited for later.
    """
    with suppress(IndexUnavailable):
        services.index.check()


def discover_beside(
    records: Records, report: RunReport, run_id: int, ids: Sequence[str] | None = None
) -> None:
    """Discover, unless a nightly run is under way, which does the discovering."""
    with suppress(BusyError), records.locks.hold(DISCOVER, records.settings.lease_seconds) as hold:
        at = (records.source, records.database, records.settings, run_id)
        report.discovery = discover(*at, ids=ids, check=hold.check)


def enrich_and_publish(
    services: Services,
    report: RunReport,
    stop: Stop,
    *,
    ids: Sequence[str] | None = None,
    limit: int | None = None,
) -> None:
    """Enrich what is claimable, publishing meanwhile and at the end."""

    queue, figures = services.queue, report.figures

    def remaining() -> int:
        waiting = queue.waiting_count(ids)
        return waiting if limit is None else max(min(waiting, limit - figures.listings), 0)

    def work(stopping: Callable[[], bool]) -> None:
        if queue.claimable(ids):
            pipeline = pipeline_on(services, queue, stopping, figures)
            with shown(figures, remaining, services.settings.log_interval):
                pipeline.run(ids=ids, limit=limit)

    publish_beside(services, report, stop, work)


def publish_beside(
    services: Services, report: RunReport, stop: Stop, work: Callable[[Callable[[], bool]], None]
) -> None:
    """Do `work`, which is told how to ask whether to stop, publishing meanwhile and at the end.

    When told to stop, what is not published yet stays in the outbox for the next run.
    """
    publisher = Publisher(services.outbox, services.index, services.bundle, services.settings)
    report.published = publisher.figures
    with _publishing(services, publisher) as failed:
        try:
            work(lambda: stop.is_set() or bool(failed))
        finally:
            report.figures.quarantined += services.queue.newly_quarantined
    if failed:
        raise failed[0]
    services.backfills.finish()
    publish_now(services, publisher, stop)


def publish_now(services: Services, publisher: Publisher, stop: Stop) -> None:
    """Publish everything, waiting for another process's publish to end first.

    A lock that was lost, because the database was away, is taken again: nothing is written without it.

    Raises:
        BusyError: the other one did not end.
    """

    def work(hold: Hold) -> None:
        publisher.publish(until=stop.is_set, check=hold.check)
        hold.check()
        _forget_removed(services)

    if holding_publish(services, stop, work):
        publisher.refusals.warn()


def _forget_removed(services: Services) -> None:
    """Nothing is to wait for a kept index that somebody removed by hand."""
    settings, database = services.settings, services.database
    kept = targets.beside(database, settings.index, settings.index_mode)
    with suppress(IndexUnavailable):
        if gone := services.index.gone(kept) if kept else []:
            targets.forget(database, gone)
            log.warning("%d indices that were kept are gone: nothing waits for them any more", len(gone))


def holding_publish(
    services: Records,
    stop: Stop,
    work: Callable[[Hold], object],
    patience: float | None = None,
    poll: float = LOCK_POLL,
) -> bool:
    """Do `work` with the lock `publish`, waiting for another process to give it back; False: told to stop.

    `patience`: for how many seconds, else `LOCK_PATIENCE`; `poll`: the seconds between looks.

    Raises:
        BusyError: the other one did not end.
    """
    patience = LOCK_PATIENCE if patience is None else patience
    deadline = time.monotonic() + patience
    while not stop.is_set():
        try:
            with services.locks.hold(PUBLISH, services.settings.lease_seconds) as hold:
                work(hold)
            return True
        except LockLostError:  # it was ours: we wait anew
            deadline = time.monotonic() + patience
        except BusyError:
            if time.monotonic() > deadline:
                raise
        stop.wait(poll)
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
