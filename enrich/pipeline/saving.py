"""Saves listings in groups; one that cannot be written down is quarantined and costs the others nothing."""

import logging
from collections.abc import Sequence
from enum import Enum, auto

from enrich.records import Claim, ListingResult
from enrich.state.queue import WorkQueue

log = logging.getLogger(__name__)


class Ended(Enum):
    """How the claim of a listing ended."""

    SAVED = auto()
    STALE = auto()  # it was not ours any more, or is asked for again already
    QUARANTINED = auto()


def save(queue: WorkQueue, results: Sequence[ListingResult]) -> list[Ended]:
    """Save listings in one transaction; where one of them cannot be written down, the halves in turn."""
    try:
        saved = queue.complete(results)
    except ValueError as error:
        if len(results) > 1:
            middle = len(results) // 2
            return save(queue, results[:middle]) + save(queue, results[middle:])
        claim = results[0].claim
        log.error("listing %s cannot be saved: %s", claim.id, error)
        return [quarantine(queue, claim, f"save: {error}")]
    return [Ended.SAVED if result.claim in saved else Ended.STALE for result in results]


def quarantine(queue: WorkQueue, claim: Claim, reason: str) -> Ended:
    """End the claim of a listing that cannot be worked on."""
    return Ended.QUARANTINED if queue.fail(claim, reason) else Ended.STALE
