"""What was seen of a listing: its scored photos, in which near-duplicates count once."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from enrich.records import PhotoResult

NEAR_DUPLICATE_BITS = 4
FEW = 100  # photos that are compared all with all in one step
SEEN_SHARE_FALSE = 0.9  # of the listing's photos that must have been seen before an attribute may be false


@dataclass(frozen=True, slots=True)
class Seen:
    """A listing's scored photos by position, and how much of the listing they are.

    Near-duplicates (the same bytes, or difference hashes at most `NEAR_DUPLICATE_BITS` apart) form one *view*
    and count once; `views` holds the number of each photo's view, from 0.
    """

    photos: tuple[PhotoResult, ...]
    views: tuple[int, ...]
    total: int
    """The listing's photos, failed ones included."""
    min_photos_false: int

    @property
    def view_count(self) -> int:
        return len(set(self.views))

    @property
    def nearly_all(self) -> bool:
        """Whether enough of the listing's photos were seen to say that something is not there."""
        return len(self.photos) >= SEEN_SHARE_FALSE * self.total


def seen_of(results: Sequence[PhotoResult], min_photos_false: int) -> Seen:
    """What was seen, from one result per photo of the listing, seen or failed."""
    photos = sorted(
        (r for r in results if r.score is not None), key=lambda r: (r.photo.position, r.photo.key)
    )
    views = distinct_views([r.score.dhash for r in photos if r.score is not None])
    return Seen(tuple(photos), tuple(views), len(results), min_photos_false)


def distinct_views(hashes: Sequence[int]) -> list[int]:
    """For each 64-bit hash, the number of its view: that of the first one within `NEAR_DUPLICATE_BITS`."""
    bits = np.array(hashes, dtype=np.int64).view(np.uint64)
    if len(bits) <= FEW and np.count_nonzero(_near(bits[:, None] ^ bits)) == len(bits):
        return list(range(len(bits)))
    first: list[int] = []
    views: list[int] = []
    for value in bits:
        near = np.flatnonzero(_near(bits[first] ^ value))
        if near.size:
            views.append(int(near[0]))
        else:
            views.append(len(first))
            first.append(len(views) - 1)
    return views


def _near(differences: NDArray[np.uint64]) -> NDArray[np.bool_]:
    return np.asarray(np.bitwise_count(differences) <= NEAR_DUPLICATE_BITS)
