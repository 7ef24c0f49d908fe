"""`enrich prune`: deletes what nothing uses any more, or says what it would delete."""

from collections.abc import Callable, Iterator
from contextlib import nullcontext
from dataclasses import dataclass

from enrich.errors import BusyError
from enrich.model.features import feature_id
from enrich.state.pruning import UNUSED, Pruning
from jobs.run.services import Records
from jobs.run.session import DISCOVER


@dataclass(frozen=True, slots=True)
class Pruned:
    """Rows of one kind."""

    what: str
    rows: int
    skipped: bool = False
    """Left as they are, because a run is discovering."""


def prune(records: Records, days: int, yes: bool, stopping: Callable[[], bool]) -> Iterator[Pruned]:
    """Go through all that may be unused for `days`; with `yes` delete it, else count it."""
    bundle = records.bundle
    members = [member for one in bundle.in_all_arithmetics for member in one.members]
    pruning = Pruning(
        records.database,
        days,
        bundle.bundle_id,
        [member.model_id for member in members],
        [feature_id(member) for member in members],
    )
    for unused in UNUSED:
        if stopping():
            return
        if not yes:
            yield Pruned(unused.what, pruning.count(unused))
            continue
        lock = records.locks.hold(DISCOVER, records.settings.lease_seconds)
        try:
            with lock if unused.for_discovery else nullcontext():
                done = Pruned(unused.what, pruning.delete(unused, stopping))
        except BusyError:
            done = Pruned(unused.what, pruning.count(unused), skipped=True)
        yield done
