"""What becomes of one photo: its result from what state knows, or from what a request brought."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

from enrich.records import (
    MAY_LAST,
    Decoded,
    Fetched,
    Photo,
    PhotoResult,
    PhotoScore,
    PhotoState,
    PhotoStatus,
    Validators,
)
from enrich.state.queue import WorkQueue

ScoresOf = Callable[[Sequence[str]], Mapping[str, PhotoScore]]
"""Scores by all models of a bundle of these bytes, as far as they are known: `KnownScores.of`."""


@dataclass(frozen=True, slots=True)
class Known:
    """What state already knows of a photo; the scores are those of the bundle's models, all of them."""

    state: PhotoState | None = None
    score: PhotoScore | None = None
    seen: bool = False
    """Whether the listing has asked for it in the version that it has now, so that what another one found
    later, in a version of its own, is news to it and no reason to ask."""

    def validators(self, photo: Photo) -> Validators | None:
        """What a request for the photo may send: only bytes that are scored need not come again.

        A date is sent only with the version that the bytes came with: hosts take any file for unchanged that
        is no newer, also an older one put back.
        """
        before = self.state
        if before is None or self.score is None:
            return None
        if before.status.ok and before.version == photo.version:
            return before.validators
        return replace(before.validators, last_modified=None)


UNKNOWN = Known()


def look_up(queue: WorkQueue, keys: Sequence[str], scores_of: ScoresOf) -> dict[str, Known]:
    """What state knows of these URL keys, with the scores of their bytes."""
    states = queue.photo_states(keys)
    scores = scores_of(sorted({state.sha256 for state in states.values() if state.sha256}))
    return {key: Known(state, scores.get(state.sha256 or "")) for key, state in states.items()}


def seen(photos: Sequence[Photo], known: Mapping[str, Known]) -> Mapping[str, Known]:
    """What is known, for a listing that was completed with these very photos."""
    others = {
        photo.key: replace(found, seen=True)
        for photo in photos
        if (found := known.get(photo.key)) and found.state and found.state.version != photo.version
    }
    return {**known, **others} if others else known


def settled(photo: Photo, known: Known) -> PhotoResult | None:
    """The result of a photo that needs no request; None where it is to be asked for."""
    before = known.state
    if before is None or not (known.seen or before.version == photo.version):
        return None
    if before.status.ok and known.score is not None:
        return PhotoResult(photo, PhotoStatus.OK, before.sha256, known.score, before.validators)
    if before.status is PhotoStatus.FORBIDDEN_ADDRESS:  # what forbids it is a setting, which may be mended
        return None
    if not before.status.ok and not before.retry_due:
        return _failed(photo, before, before.failures, before.sha256, known.score)
    return None


def without_bytes(photo: Photo, known: Known, fetched: Fetched) -> PhotoResult | None:
    """The result of a requested photo whose answer brings nothing to score; None where it brings bytes."""
    before = known.state
    if fetched.status is PhotoStatus.UNCHANGED and before is not None:
        return PhotoResult(
            photo, fetched.status, before.sha256, known.score, before.validators, requested=True
        )
    if fetched.body is None or fetched.sha256 is None:
        sha = before.sha256 if before else None
        return replace(
            _failed(photo, fetched, _failures(photo, known, fetched.status), sha, known.score), requested=True
        )
    return None


def with_bytes(photo: Photo, known: Known, fetched: Fetched, score: PhotoScore | Decoded) -> PhotoResult:
    """The result of a photo whose bytes came: scored, or why they cannot be decoded."""
    if isinstance(score, Decoded):
        failed = _failed(photo, score, _failures(photo, known, score.status), fetched.sha256, None)
        return replace(failed, requested=True, validators=fetched.validators)
    return PhotoResult(photo, PhotoStatus.OK, fetched.sha256, score, fetched.validators, requested=True)


def _failures(photo: Photo, known: Known, status: PhotoStatus) -> int:
    """Tries in a row that failed, this one included; a first 404 is a first failure whatever came before."""
    before = known.state
    if before is None or not (known.seen or before.version == photo.version):
        return 1
    return 1 if status in MAY_LAST and before.status not in MAY_LAST else before.failures + 1


def _failed(
    photo: Photo,
    end: PhotoState | Fetched | Decoded,
    failures: int,
    sha256: str | None,
    earlier: PhotoScore | None,
) -> PhotoResult:
    """A failure; while it may pass, the scores of the bytes we had stand in, so that no filter flickers."""
    result = PhotoResult(photo, end.status, sha256, error=end.error, failures=failures)
    return replace(result, score=earlier) if result.transient else result
