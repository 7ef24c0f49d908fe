"""Simulated listings: held-out photos put together to listings of any size and prevalence.

Real homes with both labels looked at are few and have the photo counts that they have; a threshold must hold
at others, too. A positive listing gets 1 to 3 photos that show the attribute, all of one home; every other
photo is drawn from those that do not, of any home, so that the kinds of room come in the shares they have in
whole homes. Photos drawn one by one are less alike than those of one home: that makes a simulated listing
without the attribute a little harder than a real one.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from training.data import ROOM, UNLABELLED, PhotoSet

SIZES = (5, 15, 25, 40)
"""Photos per listing."""
LISTINGS = 4_000
"""Simulated listings per size."""
POSITIVE_PHOTOS = (1, 2, 3)


@dataclass(frozen=True)
class Simulated:
    """Listings of one size: their highest held-out photo, and whether they have the attribute; [listings]."""

    photos: int
    highest: NDArray[np.float64]
    truth: NDArray[np.bool_]


@dataclass(frozen=True)
class Pool:
    """Held-out photos that listings are drawn from. `positive[i]`: rows of the photos of one home that show
    the attribute; `negative`: rows of those that do not, with their chance to be drawn."""

    positive: tuple[NDArray[np.int64], ...]
    negative: NDArray[np.int64]
    chance: NDArray[np.float64]
    negative_homes: int


def pool(photos: PhotoSet, head: str, fold: NDArray[np.int64], homes: str) -> Pool:
    """The held-out photos (`fold` ≥ 0) of the binary `head`.

    `homes`: the collection of whole homes (empty: all), whose shares of rooms the negatives get; where rooms
    are not labelled all photos count alike.
    """
    labels = photos.labels[head]
    shown = np.flatnonzero((labels == 1) & (fold >= 0))
    negative = np.flatnonzero((labels == 0) & (fold >= 0))
    groups = np.unique(photos.group[shown])
    room = photos.labels.get(ROOM.column, np.full(len(photos), UNLABELLED))[negative]
    of_homes = photos.within(homes)[negative]
    chance = np.zeros(len(negative))
    for kind in np.unique(room):
        mine = room == kind
        wanted = (mine & of_homes).sum() / max(1, of_homes.sum()) if of_homes.any() else mine.mean()
        chance[mine] = wanted / mine.sum()
    return Pool(
        positive=tuple(shown[photos.group[shown] == group] for group in groups),
        negative=negative,
        chance=chance / chance.sum(),
        negative_homes=len(np.unique(photos.group[negative])),
    )


def simulate(
    pool: Pool,
    chances: NDArray[np.float64],
    size: int,
    prevalence: float,
    seed: int,
    listings: int = LISTINGS,
) -> Simulated:
    """Draw `listings` listings of `size` photos, `prevalence` of them with the attribute.

    `chances` [photo set]: each photo's held-out probability.
    """
    draw = np.random.default_rng([seed, size])
    truth = np.arange(listings) < round(listings * prevalence)
    drawn = draw.choice(pool.negative, (listings, size), p=pool.chance)
    for listing in np.flatnonzero(truth):
        home = pool.positive[draw.integers(len(pool.positive))]
        count = min(int(draw.choice(POSITIVE_PHOTOS)), len(home), size)
        drawn[listing, :count] = draw.choice(home, count, replace=False)
    return Simulated(size, chances[drawn].max(axis=1), truth)
