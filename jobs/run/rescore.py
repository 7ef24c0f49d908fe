"""Rescore: the current bundle applied to what was scored before, from kept features.

Listings whose photos all have them are handed to the pipeline, which finds every photo known.
"""

from collections.abc import Callable, Sequence

from enrich.model.features import feature_id
from enrich.model.open import LateEngine
from enrich.settings import Settings
from enrich.state.backfills import Selection
from enrich.state.rescoring import Rescoring
from jobs.run.progress import shown
from jobs.run.record import RunReport, recorded
from jobs.run.services import open_services
from jobs.run.session import check_index, pipeline_on, publish_beside
from jobs.run.stop import Stop


def rescore(settings: Settings, ids: Sequence[str] | None, stop: Stop) -> RunReport:
    """Score, aggregate and publish the listings made with another bundle (of `ids`, if given), as far as
    features of their photos were kept.

    Raises:
        EnrichError: with the exit code of the command; see `enrich.errors`.
    """
    report = RunReport()
    with open_services(settings, "rescore", stop) as services:
        check_index(services)
        bundle = services.bundle
        ids = services.spelled(ids)
        services.warn_of_unknown(ids)
        selection = Selection(ids, stale_bundle=bundle.bundle_id)
        features = {member.model_id: feature_id(member) for member in bundle.members}
        rescoring = Rescoring(services.database, selection, features)
        engine = LateEngine(bundle, settings)

        def work(stopping: Callable[[], bool]) -> None:
            for page in rescoring.pages():
                if not stopping() and (ready := rescoring.mark(page)):
                    pipeline_on(services, services.queue, stopping, report.figures, engine).run(ids=ready)
                if stopping():
                    report.left = rescoring.left()
                    return

        with recorded(services, "rescore", report, stop):
            with shown(report.figures, rescoring.left, settings.log_interval):
                publish_beside(services, report, stop, work)
            report.other_bundle = rescoring.left(everything=True)
    return report
