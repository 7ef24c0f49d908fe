"""Collects the metrics when they are asked for, from what is counted anyway: no stage learns of them."""

import logging
import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from threading import Lock

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from sqlalchemy.exc import DBAPIError, SQLAlchemyError

from enrich.errors import EnrichError
from enrich.records import PhotoStatus
from enrich.state.database import Database, one_line
from enrich.state.runs import Runs
from enrich.state.summary import Summary, summary
from jobs.metrics import names
from jobs.metrics.names import Metric
from jobs.run.drift import read
from jobs.run.record import RunReport

log = logging.getLogger(__name__)

STATE_EVERY = 60.0  # seconds between looks at the database, at least
STATE_SHARE = 0.05  # of the time that the database spends on them, at most: a large state takes seconds
FAILURES = tuple(str(status) for status in PhotoStatus if not status.ok)
STATUSES = ("pending", "leased", "retry", "quarantined", "done", "gone")

Sample = tuple[Metric, tuple[str, ...], float]


class Collector:
    """The metrics of this process and of the state in `database`; a prometheus_client `Collector`.

    Asked from several threads. Numbers that count go on from job to job.
    """

    def __init__(self, database: Database) -> None:
        self._database = database
        self._lock = Lock()
        self._report = RunReport()
        self._before: defaultdict[tuple[Metric, tuple[str, ...]], float] = defaultdict(float)
        self._running = False
        self._state_lock = Lock()  # another one: no job waits while the database is asked
        self._state: list[Sample] = []
        self._state_until = 0.0
        self._readable = True

    @contextmanager
    def job(self, report: RunReport) -> Iterator[None]:
        """Collect from `report` from now on; the block is the job."""
        with self._lock:
            for metric, labels, value in _counted(self._report):
                self._before[metric, labels] += value
            self._report, self._running = report, True
        try:
            yield
        finally:
            with self._lock:
                self._running = False
            with self._state_lock:
                self._state_until = 0.0

    def collect(self) -> Iterator[CounterMetricFamily | GaugeMetricFamily]:
        """All metrics, also those that have no samples now."""
        with self._lock:
            values = self._before.copy()
            for metric, labels, value in _counted(self._report):
                values[metric, labels] += value
            now = list(self._now())
        with self._state_lock:
            now += self._of_state()
        values.update({(metric, labels): value for metric, labels, value in now})
        families = {metric: metric.family() for metric in names.METRICS}
        for (metric, labels), value in values.items():
            families[metric].add_metric(labels, value)
        yield from families.values()

    def _now(self) -> Iterator[Sample]:
        figures = self._report.figures
        yield names.RUNNING, (), float(self._running)
        yield names.SPEED, (), figures.speed
        for stage, length in figures.queues.items():
            yield names.QUEUES, (stage,), float(length())

    def _of_state(self) -> list[Sample]:
        started = time.monotonic()
        if started > self._state_until:
            try:
                self._state = [*_state(summary(self._database)), *_runs(Runs(self._database))]
                readable = True
            except (EnrichError, SQLAlchemyError) as error:
                self._state, readable = [], False
                if self._readable:
                    cause = error.__cause__
                    reason = one_line(cause) if isinstance(cause, DBAPIError) else error
                    log.warning("metrics: the database cannot be asked how things stand (%s)", reason)
            self._state.append((names.READABLE, (), float(readable)))
            self._readable, ended = readable, time.monotonic()
            self._state_until = ended + max(STATE_EVERY, (ended - started) / STATE_SHARE)
        return self._state


def _counted(report: RunReport) -> Iterator[Sample]:
    """What counts of one job, and of the cluster that worked ahead of it."""
    for figures in (report.figures, *([report.ahead.figures] if report.ahead else [])):
        for status in ("fetched", "unchanged", "cached"):
            yield names.PHOTOS, (status,), getattr(figures, status)
        for failure in FAILURES:  # from nought on: Prometheus takes no first sight of a number for growth
            yield names.PHOTOS, (failure,), figures.failures[failure]
        yield names.SCORED, (), figures.scored
        yield names.BYTES, (), figures.bytes
        yield names.PLACES, (), figures.places
        for stage, seconds in figures.seconds.copy().items():
            yield names.STAGE_SECONDS, (stage,), seconds
    for outcome, count in (
        ("enriched", report.figures.listings),
        ("retry", report.figures.retry),
        ("quarantined", report.figures.quarantined),
    ):
        yield names.LISTINGS, (outcome,), count
    yield names.LEASES_LOST, (), report.figures.stale
    for status, count in report.published.answers.copy().items():
        yield names.ANSWERS, (status,), count


def _state(told: Summary) -> Iterator[Sample]:
    for status in STATUSES:
        yield names.STATE, (status,), told.listings.get(status, 0)
    yield names.LAG, (), told.lag_seconds or 0.0
    counts = told.outbox
    yield names.OUTBOX, ("waiting",), counts.unpublished - counts.awaiting - counts.refused
    yield names.OUTBOX, ("awaiting",), counts.awaiting
    yield names.OUTBOX, ("refused",), counts.refused


def _runs(runs: Runs) -> Iterator[Sample]:
    for kind, finished in runs.successes().items():
        yield names.SUCCESS, (kind,), finished
    for night in runs.nights(1):
        for measure in read(night).values():
            yield names.NIGHT, (measure.figure,), measure.value
            yield names.DRIFTED, (measure.figure,), float(measure.drifted)
            if measure.usual is not None:
                yield names.USUAL, (measure.figure,), measure.usual
