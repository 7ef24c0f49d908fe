"""Rescore: the current bundle applied to what was scored before, from kept features.

`enrich rescore` takes along the listings whose photos all have them. A backfill of listings made with another
bundle begins with it, so that only the other photos are fetched.
"""

import time
from collections.abc import Callable, Sequence

import numpy as np

from enrich.model.features import LinearHeads, feature_id, unpack
from enrich.model.open import LateEngine
from enrich.records import Scores
from enrich.settings import Settings
from enrich.state.backfills import Selection
from enrich.state.embeddings import Packed
from enrich.state.rescoring import Heads, Rescoring
from jobs.run.progress import shown
from jobs.run.services import Services, open_services
from jobs.run.session import (
    Rescored,
    RunReport,
    check_index,
    pipeline_on,
    publish_beside,
    recorded,
)
from jobs.run.stop import Stop


def rescore(settings: Settings, ids: Sequence[str] | None, stop: Stop) -> RunReport:
    """Score, aggregate and publish the listings made with another bundle (of `ids`, if given), as far as
    features of their photos were kept.

    Raises:
        EnrichError: with the exit code of the command; see `enrich.errors`.
    """
    report = RunReport()
    with open_services(settings, "rescore") as services:
        check_index(services)
        selection = Selection(services.spelled(ids), stale_bundle=services.bundle.bundle_id)
        rescoring = _rescoring(services, selection)
        engine = LateEngine(services.bundle, settings)

        def work(stopping: Callable[[], bool]) -> None:
            for page in rescoring.pages():
                _score(rescoring, page, report, stopping)
                if not stopping() and (ready := rescoring.mark(page)):
                    pipeline_on(services, services.queue, stopping, report.figures, engine).run(ids=ready)
                if stopping():
                    report.left = rescoring.left()
                    return

        with recorded(services, "rescore", report, stop):
            report.rescored = Rescored()
            with shown(report.figures, rescoring.left, settings.log_interval):
                publish_beside(services, report, stop, work)
            report.figures.quarantined += services.queue.newly_quarantined
            report.rescored.left = rescoring.left(everything=True)
    return report


def mark_backfills(services: Services, report: RunReport, stop: Stop) -> None:
    """Take the marking of all backfills further; those of listings made with another bundle than the current
    one are first scored from kept features."""
    for selection in services.backfills.unmarked().values():
        if selection.stale_bundle == services.bundle.bundle_id:
            report.rescored = report.rescored or Rescored()
            rescoring = _rescoring(services, selection)
            for page in rescoring.pages():
                _score(rescoring, page, report, stop.is_set)
                if stop.is_set():
                    return
    services.backfills.mark(stop.is_set)


def _rescoring(services: Services, selection: Selection) -> Rescoring:
    bundle = services.bundle
    heads = {
        (feature_id(member), member.model_id): _applied(LinearHeads(bundle, member))
        for member in bundle.members
    }
    return Rescoring(services.database, selection, heads)


def _applied(heads: LinearHeads) -> Heads:
    def apply(packed: Packed) -> Sequence[Scores]:
        return heads.scores(unpack(packed.kind, np.array(packed.scales), packed.data))

    return apply


def _score(
    rescoring: Rescoring, page: Sequence[str], report: RunReport, stopping: Callable[[], bool]
) -> None:
    assert report.rescored is not None
    start = time.perf_counter()
    report.rescored.photos += rescoring.score(page, stopping)
    report.rescored.seconds += time.perf_counter() - start
