"""Duplicates among the photos of a task: what goes, and what people should look at.

Two photos are compared by 128 bits: the perceptual hash (Zauner 2010: low frequencies of the cosine
transform) and the difference hash of `imagehash`, 64 bits each. Either alone takes rooms of a like layout for
the same photo long before it has found all copies. The limit of 24 bits was chosen by eye on 6,600 photos of
homes: up to 25 bits all 15 pairs were the same view, at 26 to 28 four of 18.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from training.data.clean import Inspected
from training.data.sources import Candidate

NEAR = 24
"""Up to this distance two photos count as the same."""
DOUBT = 4
"""Pairs up to this much farther apart are shown to people."""


@dataclass(frozen=True)
class Pair:
    """Two photos of a task, by their position among its candidates; `first` comes before `second`."""

    first: int
    second: int
    distance: int
    """Differing bits of 128."""
    exact: bool
    """The two files are equal byte by byte."""

    @property
    def how(self) -> str:
        """The likeness in words."""
        return "equal to" if self.exact else f"{self.distance} of 128 bits from"


def find_pairs(photos: Mapping[int, Inspected], limit: int) -> list[Pair]:
    """All pairs of photos (position -> photo) that differ in at most `limit` of 128 bits, in order."""
    positions, looked = list(photos), list(photos.values())
    perceptual, difference = (
        np.asarray([photo.fingerprint[k] for photo in looked], dtype=np.uint64) for k in (0, 1)
    )
    pairs = []
    for i in range(len(looked) - 1):
        distance = np.bitwise_count(perceptual[i] ^ perceptual[i + 1 :]).astype(int)
        distance += np.bitwise_count(difference[i] ^ difference[i + 1 :])
        for offset in np.flatnonzero(distance <= limit):
            j = i + 1 + int(offset)
            exact = looked[i].sha256 == looked[j].sha256
            pairs.append(Pair(positions[i], positions[j], int(distance[offset]), exact))
    return pairs


def classify_pairs(candidates: Sequence[Candidate], near: Sequence[Pair]) -> dict[int, tuple[str, str]]:
    """Position -> (reason, detail) of the candidates of one task that near-duplicate pairs lead to drop.

    The same photo in two classes has contradicting labels: both go. Within a class the first stays.
    """
    dropped: dict[int, tuple[str, str]] = {}
    for pair in near:
        a, b = candidates[pair.first], candidates[pair.second]
        if a.label != b.label:
            dropped.setdefault(pair.first, ("contradicting", f"{pair.how} {b.source} of class {b.label}"))
            dropped.setdefault(pair.second, ("contradicting", f"{pair.how} {a.source} of class {a.label}"))
    for pair in near:  # in the order of `first`, so that what stays is settled before its copies are
        if pair.first in dropped or pair.second in dropped:
            continue
        reason = "duplicate" if pair.exact else "near_duplicate"
        dropped[pair.second] = (reason, f"{pair.how} {candidates[pair.first].source}")
    return dropped
