"""Whole homes, held out: what the thresholds are chosen and evaluated on."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from enrich.errors import UsageError
from training.data.labels import UNLABELLED
from training.data.photos import PhotoSet

MIN_PHOTOS_FALSE = 8
"""`false` needs this many photos by default (ENRICH_MIN_PHOTOS_FALSE), so it is evaluated on such homes."""
MIN_PHOTOS = 4
"""Homes with fewer labelled photos say little about a listing."""


@dataclass(frozen=True)
class Homes:
    """Homes with at least `MIN_PHOTOS` photos labelled for one binary head; unlabelled photos are left out.

    Arrays hold one entry a home; `rows[i]` are the indices of its photos in the photo set.
    """

    rows: tuple[NDArray[np.int64], ...]
    truth: NDArray[np.bool_]
    fold: NDArray[np.int64]
    site: NDArray[np.str_]

    @property
    def sizes(self) -> NDArray[np.int64]:
        return np.array([len(rows) for rows in self.rows])

    @property
    def photos(self) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
        """Rows of the photos of all homes, and their weights: each home weighs alike."""
        return np.concatenate(self.rows), np.repeat(1 / self.sizes, self.sizes)

    def highest(self, chances: NDArray[np.float64]) -> NDArray[np.float64]:
        """Each home's highest photo; `chances` [photos of the photo set]."""
        return np.array([chances[rows].max() for rows in self.rows])

    def with_photos(self, least: int) -> "Homes":
        """The homes with at least `least` labelled photos."""
        keep = np.flatnonzero(self.sizes >= least)
        return Homes(tuple(self.rows[i] for i in keep), self.truth[keep], self.fold[keep], self.site[keep])


def find_homes(
    photos: PhotoSet, usable: NDArray[np.bool_], prefixes: Sequence[str] = ()
) -> list[NDArray[np.int64]]:
    """Rows of each home: groups with at least `MIN_PHOTOS` usable photos, of paths that start so."""
    if prefixes:
        usable = usable & np.array([path.startswith(tuple(prefixes)) for path in photos.paths])
    rows = np.flatnonzero(usable)
    _, inverse, sizes = np.unique(photos.group[rows], return_inverse=True, return_counts=True)
    return [rows[inverse == group] for group in np.flatnonzero(sizes >= MIN_PHOTOS)]


def whole_homes(photos: PhotoSet, head: str, fold: NDArray[np.int64], collection: str) -> Homes:
    """The held-out homes of `collection` (empty: of all) for a binary head; a UsageError where fewer than two
    have the attribute, or lack it."""
    labels = photos.labels[head]
    usable = photos.within(collection) & (labels != UNLABELLED) & (fold >= 0)
    rows = tuple(find_homes(photos, usable))
    truth = np.array([bool((labels[index] == 1).any()) for index in rows], dtype=bool)
    for wanted, words in ((True, "with"), (False, "without")):
        if np.count_nonzero(truth == wanted) < 2:
            raise UsageError(
                f"head {head}: no threshold can be chosen, {collection or 'the manifest'} holds "
                f"fewer than 2 homes {words} "
                f"it with {MIN_PHOTOS} labelled photos; label more, or name the folder of homes in --homes"
            )
    first = [int(index[0]) for index in rows]
    return Homes(rows, truth, fold[first], photos.site[first])
