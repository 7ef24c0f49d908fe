"""What a command's settings ask to be seen of its jobs: served while they run, handed over when they end."""

import logging
import socket
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager, nullcontext
from http.client import HTTPException

from prometheus_client.exposition import generate_latest, push_to_gateway

from enrich.atomic import new_file
from enrich.settings import Settings
from enrich.state.database import state_database
from jobs.metrics.collecting import Collector
from jobs.metrics.serving import served
from jobs.run.record import RunReport, Watch

log = logging.getLogger(__name__)

PATIENCE = 0.0  # seconds that the metrics wait for a database that is away
PUSH_SECONDS = 10.0


@contextmanager
def watched(settings: Settings) -> Iterator[Watch]:
    """For the jobs of a command: whatever `ENRICH_METRICS_…` asks for, while the block runs.

    Raises:
        SettingsError: there is no database that could be asked.
    """
    if not (settings.metrics_port or settings.metrics_file or settings.metrics_push):
        yield nullcontext
        return
    with closing(state_database(settings, PATIENCE)) as database, ExitStack() as stack:
        collector = Collector(database)
        if settings.metrics_port:
            stack.enter_context(served(settings, settings.metrics_port, collector))

        @contextmanager
        def watch(report: RunReport) -> Iterator[None]:
            try:
                with collector.job(report):
                    yield
            finally:
                _hand_over(settings, collector)

        yield watch


def _hand_over(settings: Settings, collector: Collector) -> None:
    """To the file and the push gateway; that it fails is a warning."""
    if settings.metrics_file:
        try:
            with new_file(settings.metrics_file) as part:
                part.write_bytes(generate_latest(collector))
        except OSError as error:
            log.warning("ENRICH_METRICS_FILE=%s cannot be written: %s", settings.metrics_file, error)
    if settings.metrics_push:
        gateway, host = settings.metrics_push.get_secret_value(), socket.gethostname()
        try:
            push_to_gateway(gateway, "enrich", collector, {"instance": host}, timeout=PUSH_SECONDS)
        except (OSError, HTTPException, ValueError) as error:
            log.warning("ENRICH_METRICS_PUSH: the gateway did not take the metrics (%s)", error)
