"""Publish only: what is in the outbox, to the index."""

import logging
from collections.abc import Sequence

from enrich.errors import BusyError, EnrichError
from enrich.index.protocol import IndexLost, IndexUnavailable
from enrich.index.publish import Publisher, publish_these
from enrich.records import WriteResult, WriteStatus
from enrich.settings import Settings
from enrich.state.locks import Hold
from enrich.state.outbox import Outbox
from jobs.run.record import RunReport, recorded
from jobs.run.services import Services, open_services
from jobs.run.session import holding_publish, publish_now
from jobs.run.stop import Stop

log = logging.getLogger(__name__)
PATIENCE, POLL = 3.0, 0.1  # seconds that a person waits for another process's publish, and between looks
BUSY = "another process is publishing, and that publish or the next one takes it along"


def publish(settings: Settings, stop: Stop) -> RunReport:
    """Publish everything that is unpublished.

    Raises:
        EnrichError: with the exit code of the command; see `enrich.errors`.
    """
    report = RunReport()
    with open_services(settings, stop=stop) as services, recorded(services, "publish", report, stop):
        publisher = Publisher(services.outbox, services.index, services.bundle, settings)
        report.published = publisher.figures
        publish_now(services, publisher, stop)
    return report


def publish_at_once(services: Services, ids: Sequence[str]) -> str | None:
    """Publish what a person just changed of these listings, if the index answers.

    Another process's publish is waited for where it is short: it may be one for another person, and take
    nothing of this along.

    None: done. Else why it waits in the outbox, for people (`BUSY`: others publish); nothing is lost.
    """
    outbox = Outbox(services.database)  # one of its own: others may be at work with that of the services
    results: list[WriteResult] | None = None

    def work(hold: Hold) -> None:
        nonlocal results
        hold.check()
        results = publish_these(outbox, services.index, services.bundle, services.settings, ids)

    try:
        holding_publish(services, Stop(), work, PATIENCE, POLL)
    except BusyError:
        return BUSY
    except (IndexUnavailable, IndexLost, EnrichError) as error:
        log.warning("what a person said is not published yet: %s", error)
        return f"the next publish takes it to the index, which took nothing now ({error})"
    if results is None:
        return "the index is another one now, and the next publish fills it"
    for result in results:
        if result.status is WriteStatus.AWAITING:
            return "the portal has no document of it yet"
        if result.status is not WriteStatus.DONE:
            return f"the next publish takes it to the index ({result.error or result.status})"
    return None
