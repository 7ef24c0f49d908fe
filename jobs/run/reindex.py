"""Reindex: a new index under the same alias, with no moment without results.

`build` fills it from state, beside the one that serves, which goes on being published to. `catch_up`
publishes what changed meanwhile. Then, with the lock `publish`, it is caught up once more and compared, and
`swap` moves the alias in one step. Killed or stopped before that, the old index serves on, and the next
reindex takes the new one up, or drops it where the settings are others by then.
"""

import logging
import sys
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass

from enrich.errors import StoppedError
from enrich.index.document import build as build_document
from enrich.index.document import same
from enrich.index.open import open_generations
from enrich.index.protocol import Generations
from enrich.index.publish import Publisher
from enrich.settings import Settings
from enrich.state.locks import Hold
from enrich.state.targets import Beside, serve
from jobs.run.lifecycle import Reindexed
from jobs.run.progress import counted
from jobs.run.record import RunReport, recorded
from jobs.run.services import Records, open_records
from jobs.run.session import REINDEX, discover_beside, holding_publish
from jobs.run.stop import Stop

log = logging.getLogger(__name__)
SAMPLE = 1_000  # documents read back and compared before the swap


@dataclass(frozen=True, slots=True)
class Rebuild:
    """A reindex under way."""

    records: Records
    generations: Generations
    outbox: Beside
    publisher: Publisher
    done: Reindexed
    keep: int
    stop: Stop


def reindex(settings: Settings, keep: int, stop: Stop) -> RunReport:
    """Build an index as the settings have it, and have it serve; `keep` so many of those that served before.

    Raises:
        StoppedError: the new index lacks documents, or holds others than it should: it takes nobody's place.
        EnrichError: with the exit code of the command; see `enrich.errors`.
    """
    report = RunReport()
    with _opened(settings, report, stop) as (records, generations, hold, run_id):
        done = report.reindexed = Reindexed(taken_up=generations.take_up())
        discover_beside(records, report, run_id)  # other columns may be why there is to be another index
        if report.refusal is not None:
            log.warning(report.refusal)
        outbox = Beside(records.database)
        publisher = Publisher(outbox, generations.building, records.bundle, settings)
        report.published = publisher.figures
        job = Rebuild(records, generations, outbox, publisher, done, keep, stop)
        build(job, hold.check)
        if not stop.is_set():
            catch_up(job, hold.check)

        def finish(publishing: Hold) -> None:
            catch_up(job, publishing.check)
            if not stop.is_set():
                compare(job)
                publishing.check()
                swap(job)

        hold.check()
        holding_publish(records, stop, finish)
        publisher.refusals.warn()
        if done.serving is None:  # told to stop
            report.left = max(outbox.counts().unpublished, 1)
    return report


def rollback(settings: Settings, stop: Stop) -> RunReport:
    """Have the index serve again that the last reindex replaced.

    Raises:
        UsageError: none is kept.
        EnrichError: with the exit code of the command; see `enrich.errors`.
    """
    report = RunReport()
    with _opened(settings, report, stop) as (records, generations, _, _):
        done = report.reindexed = Reindexed(went_back=True)

        def back(publishing: Hold) -> None:
            publishing.check()
            before = generations.serving()
            name, uuid = generations.rollback()
            done.lacks = _record(records, generations, uuid, sys.maxsize)  # none of them is removed
            done.serving, done.before = name, before and before[0]
            # At last: it may have taken hours, and there may be nothing to go back to.
            if why := _drop(generations):
                told = "the index in the making is still there (%s): `enrich reindex` goes on with it"
                log.warning(told, why)

        if holding_publish(records, stop, back):
            done.contradiction = generations.contradiction()
        else:
            report.left = 1
    return report


def _drop(generations: Generations) -> str | None:
    """Drop the index in the making; why it is still there, which is less than what the command has to say."""
    try:
        generations.drop()
    except Exception as error:
        return str(error) or type(error).__name__
    return None


@contextmanager
def _opened(
    settings: Settings, report: RunReport, stop: Stop
) -> Iterator[tuple[Records, Generations, Hold, int]]:
    with open_records(settings, "reindex", stop) as records:
        indices = open_generations(settings, records.bundle.heads, records.source.copied_columns())
        with (
            closing(indices) as generations,
            records.locks.hold(REINDEX, settings.lease_seconds) as hold,
            recorded(records, "reindex", report, stop) as run_id,
        ):
            yield records, generations, hold, run_id


def build(job: Rebuild, check: Callable[[], None]) -> None:
    """Fill the new index from state, or what an earlier reindex left of it."""
    figures = job.publisher.figures
    with counted(lambda: figures.written, job.records.settings.log_interval):
        job.publisher.publish(until=job.stop.is_set, check=check)


def catch_up(job: Rebuild, check: Callable[[], None]) -> None:
    """Publish to the new index what changed meanwhile."""
    job.publisher.publish(until=job.stop.is_set, check=check)


def compare(job: Rebuild) -> None:
    """Make sure that no search finds less in the new index: by counts, and by a sample of documents.

    Raises:
        StoppedError: it would.
    """
    index = job.records.settings.index
    if lacking := job.generations.held(job.outbox.lacking()):
        job.publisher.refusals.warn()
        raise StoppedError(
            f"the new index refuses {len(lacking)} documents that the one behind {index} has, of listing "
            f"{lacking[0]} among others; the log says why. The old one goes on serving: correct the mapping "
            "or the columns, and start `enrich reindex` again"
        )
    held, waiting, found = job.outbox.held(), job.outbox.counts().unpublished, job.generations.count()
    if abs(found - held) > waiting:
        raise _spoilt(job, f"the new index has {found} documents, {held} were written")
    rows = job.outbox.sample(SAMPLE)
    new = job.generations.building
    documents = new.documents([row.id for row in rows])
    without = new.unmapped({name for row in rows for name in row.columns})
    for row in rows:
        made = build_document(row, job.records.bundle.heads, "own", without)
        if not same(made, documents.get(row.id, {})):
            raise _spoilt(job, f"in the new index the document of listing {row.id} is not as it was written")
    job.done.documents, job.done.sampled = found, len(rows)


def _spoilt(job: Rebuild, how: str) -> StoppedError:
    """The new index is dropped: taken up by the next reindex, it would stop that one as well."""
    index = job.records.settings.index
    new = "The new one was removed"
    if why := _drop(job.generations):
        new = f"The new one, behind {index}-next, is still there ({why}): remove it before the next reindex"
    return StoppedError(
        f"{how}. {new}, and the old one behind {index} goes on serving: does somebody else write to the new "
        "one? Start `enrich reindex` again"
    )


def swap(job: Rebuild) -> None:
    """Have the new index serve, write that down, and remove older ones."""
    before = job.generations.serving()
    name, uuid = job.generations.swap()
    job.done.lacks = _record(job.records, job.generations, uuid, job.keep)
    job.done.serving, job.done.before = name, before and before[0]
    try:
        job.done.removed = job.generations.prune(job.generations.kept(job.keep))
    except Exception as error:  # by now the new one serves, and that is written down
        log.warning("older indices are still there (%s): the next `enrich reindex` removes them", error)


def _record(records: Records, generations: Generations, uuid: str, keep: int) -> int:
    """Write down which index serves, and which are kept; how many documents it is still to get."""
    settings = records.settings
    kept = list(generations.kept(keep).values())
    return serve(records.database, settings.index, settings.index_mode, uuid, kept)
