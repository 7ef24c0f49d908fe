"""The part that the nightly run and the backfill share: enrich what is claimable while publishing it."""

import logging
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field
from threading import Event, Thread
from typing import Any
from urllib.parse import unquote

from enrich.errors import BusyError, EnrichError
from enrich.index.protocol import IndexUnavailable
from enrich.index.publish import Publisher, PublishFigures
from enrich.model.open import open_engine
from enrich.pipeline.figures import Figures
from enrich.pipeline.run import Pipeline
from enrich.settings import Settings
from enrich.source.discover import Discovery
from enrich.state.listings import State
from jobs.run.progress import shown
from jobs.run.services import Services

log = logging.getLogger(__name__)

PUBLISH_EVERY = 5.0  # seconds between looks at the outbox while listings are enriched
LOCK_PATIENCE = 600.0  # seconds to wait for another process's publish at the end of a run
LOCK_POLL = 1.0
DISCOVER, PUBLISH = "discover", "publish"  # the locks


@dataclass(slots=True)
class RunReport:
    """What a job did."""

    figures: Figures = field(default_factory=Figures)
    discovery: Discovery | None = None
    published: PublishFigures = field(default_factory=PublishFigures)
    marked: int | None = None
    """Listings that a backfill marked; None for other jobs, and for a backfill that joined an earlier one."""
    exit_code: int = 0

    def as_json(self) -> dict[str, Any]:
        """For logs and the table `run`."""
        return {
            **self.figures.as_json(),
            "discovery": self.discovery.as_json() if self.discovery else {},
            "documents": asdict(self.published),
            "marked": self.marked,
        }


def check_index(services: Services) -> None:
    """Find out that the index cannot be used before anything is written.

    Raises:
        IndexSetupError: it cannot be used as set up. One that is only busy is waited for later.
    """
    with suppress(IndexUnavailable):
        services.index.check()


@contextmanager
def recorded(services: Services, kind: str, report: RunReport) -> Iterator[int]:
    """Keep the run in the table `run`, with how it ended; yields its id."""
    if services.bundle.notice and not _on_embedded(services.settings):
        log.warning("bundle %s: %s", services.bundle.name, services.bundle.notice)
    run_id = services.runs.start_run(kind, services.bundle.bundle_id)
    error: str | None = None
    report.exit_code = 70
    try:
        yield run_id
        report.exit_code = 1 if report.figures.quarantined or report.published.refused else 0
    except EnrichError as raised:
        report.exit_code, error = raised.exit_code, str(raised)
        raise
    except BaseException as raised:
        error = repr(raised)
        raise
    finally:
        services.runs.finish_run(run_id, report.exit_code, report.as_json(), error)


def _on_embedded(settings: Settings) -> bool:
    """Whether the embedded server is worked on: nobody's own listings. The demo names its database there."""
    url = settings.database_url
    return url is None or str(settings.home) in unquote(url.get_secret_value())


def enrich_and_publish(
    services: Services,
    report: RunReport,
    stop: Event,
    *,
    ids: Sequence[str] | None = None,
    limit: int | None = None,
) -> None:
    """Enrich what is claimable, publishing meanwhile and at the end.

    When told to stop, what is not published yet stays in the outbox for the next run.
    """
    publisher = Publisher(services.outbox, services.index, services.bundle, services.settings)
    report.published = publisher.figures
    with _publishing(services, publisher) as failed:
        if services.state.claimable(ids):
            stopping = lambda: stop.is_set() or bool(failed)  # noqa: E731
            _enrich(services, report.figures, stopping, ids, limit)
    if failed:
        raise failed[0]
    publish_now(services, publisher, stop)


def publish_now(services: Services, publisher: Publisher, stop: Event) -> None:
    """Publish everything, waiting for another process's publish to end first.

    Raises:
        BusyError: the other one did not end.
    """
    deadline = time.monotonic() + LOCK_PATIENCE
    while not stop.is_set():
        try:
            with services.runs.hold(PUBLISH, services.settings.lease_seconds):
                publisher.publish(until=stop.is_set)
            return
        except BusyError:
            if time.monotonic() > deadline:
                raise
            stop.wait(LOCK_POLL)


def pipeline_on(
    services: Services, state: State, stopping: Callable[[], bool], figures: Figures | None = None
) -> Pipeline:
    """The pipeline with the model of the settings, working on `state`."""
    settings = services.settings
    engine = open_engine(services.bundle, settings)
    return Pipeline(
        state, services.source, services.bundle, engine, settings, stopping=stopping, figures=figures
    )


def _enrich(
    services: Services,
    figures: Figures,
    stopping: Callable[[], bool],
    ids: Sequence[str] | None,
    limit: int | None,
) -> None:
    state = services.state
    pipeline = pipeline_on(services, state, stopping, figures)
    with shown(figures, lambda: state.claimable(ids), services.settings.log_interval):
        pipeline.run(ids=ids, limit=limit)
    figures.quarantined += state.newly_quarantined


@contextmanager
def _publishing(services: Services, publisher: Publisher) -> Iterator[list[Exception]]:
    """Publish every few seconds beside the block; what ended that early is in the list that it yields."""
    done = Event()
    failed: list[Exception] = []

    def work() -> None:
        while not done.wait(PUBLISH_EVERY):
            try:
                with services.runs.hold(PUBLISH, services.settings.lease_seconds):
                    publisher.publish(until=done.is_set)
            except BusyError:
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
