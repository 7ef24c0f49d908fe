"""Publish only: what is in the outbox, to the index."""

from enrich.index.publish import Publisher
from enrich.settings import Settings
from jobs.run.record import RunReport, recorded
from jobs.run.services import open_services
from jobs.run.session import publish_now
from jobs.run.stop import Stop


def publish(settings: Settings, stop: Stop) -> RunReport:
    """Publish everything that is unpublished.

    Raises:
        EnrichError: with the exit code of the command; see `enrich.errors`.
    """
    report = RunReport()
    with open_services(settings) as services, recorded(services, "publish", report, stop):
        publisher = Publisher(services.outbox, services.index, services.bundle, settings)
        report.published = publisher.figures
        publish_now(services, publisher, stop)
    return report
