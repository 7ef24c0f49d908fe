"""What the pipeline needs of state: the protocol that the real queue and the dry run's keep."""

from collections.abc import Mapping, Sequence, Set
from typing import Protocol

from enrich.records import Claim, ListingResult, Packed, PhotoResult, PhotoScore, PhotoState


class WorkQueue(Protocol):
    """Listings that wait for enrichment, leased to this process one claim at a time.

    A claim is told from an earlier claim of the same listing by its token; what carries a stale token changes
    nothing. Calls come from several threads. All methods raise `OutageError` when the database is away for
    too long.
    """

    def claim(self, limit: int, ids: Sequence[str] | None = None, *, alone: bool = False) -> list[Claim]:
        """Lease up to `limit` listings that wait (of `ids`, if given), those of the nightly run first.

        Those with photos that failed come when no others wait.
        Listings in whose hands a worker died are left out, unless `alone`: then one such listing is leased,
        for the caller to work on while it has nothing else in hand.
        """

    def claimable(self, ids: Sequence[str] | None = None) -> bool:
        """Whether a listing (of `ids`, if given) can be claimed now or is in some worker's hands."""

    def orphaned(self, ids: Sequence[str] | None = None) -> bool:
        """Whether a listing of the nightly run (of `ids`, if given) can be claimed `alone` now."""

    def heartbeat(self, claims: Sequence[Claim]) -> list[Claim]:
        """Say that this process lives; answers those of its claims that are not its own any more."""

    def release(self, claims: Sequence[Claim], forgive: bool = True, later: float = 0.0) -> None:
        """Give listings back unworked; with `forgive` the attempt does not count.

        They can be claimed again at once, or `later` seconds from now.
        """

    def keep(self, claim: Claim, results: Sequence[PhotoResult]) -> None:
        """Save how photos of a claimed listing ended that is to be given back: its next claim finds them.

        Raises:
            ValueError: one of them cannot be written down; none is saved.
        """

    def complete(self, results: Sequence[ListingResult]) -> Set[Claim]:
        """Save what was found of listings and end their claims; answers those that were not stale.

        Raises:
            ValueError: some listing cannot be written down as it is; none of them is saved.
        """

    def fail(self, claim: Claim, reason: str) -> bool:
        """Quarantine a listing that cannot be worked on; False: asked for again meanwhile, or not ours."""

    def forgive(self, ids: Sequence[str]) -> None:
        """Do not hold the last failures of these listings' photos against them: an outage caused them."""

    def photo_states(self, keys: Sequence[str]) -> Mapping[str, PhotoState]:
        """What is known of these URL keys; unknown ones are absent."""

    def scores(self, shas: Sequence[str], model_ids: Sequence[str]) -> Mapping[str, PhotoScore]:
        """Scores on record for these bytes by these models; `by_model` holds only the models found."""

    def features(self, shas: Sequence[str], feature_id: str) -> Sequence[Packed]:
        """Kept features by `feature_id` of those of these bytes that have some."""


class Scored(Protocol):
    """Where scores are on record: of a `WorkQueue`, just that."""

    def scores(self, shas: Sequence[str], model_ids: Sequence[str]) -> Mapping[str, PhotoScore]:
        """As `WorkQueue.scores`."""


def complete_scores(record: Scored, shas: Sequence[str], model_ids: Sequence[str]) -> dict[str, PhotoScore]:
    """Scores on record for these bytes; those that not all of these models have scored are absent."""
    found = record.scores(shas, model_ids) if shas else {}
    return {sha: score for sha, score in found.items() if set(model_ids) <= set(score.by_model)}
