"""Simulated listings: listings of any size and prevalence, drawn from held-out photos.

Real homes with both labels looked at are few and have the photo counts that they have; a threshold must hold
at others, too. A positive listing gets 1 to 3 photos that show the attribute, all of one home. The other
photos do not show it and come from several homes, some photos of each at once: a home that fools the model
does so with many of its photos, and spread over many listings these would count for more than they do in
life.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from training.data.homes import MIN_PHOTOS
from training.data.photos import PhotoSet

SIZES = (5, 15, 25, 40)
"""Photos per listing."""
LISTINGS = 2_000
"""Simulated listings per size."""
POSITIVE_PHOTOS = (1, 2, 3)
TOGETHER = 8
"""Photos without the attribute that one home gives to a listing, at most."""


@dataclass(frozen=True)
class Simulated:
    """Listings of one size: their highest held-out photo, and whether they have the attribute; [listings]."""

    photos: int
    highest: NDArray[np.float64]
    truth: NDArray[np.bool_]


@dataclass(frozen=True)
class Pool:
    """Held-out photos that listings are drawn from: per home, the rows of the photos that show the attribute,
    and of those that do not."""

    positive: tuple[NDArray[np.int64], ...]
    negative: tuple[NDArray[np.int64], ...]


def pool(photos: PhotoSet, head: str, fold: NDArray[np.int64]) -> Pool:
    """The held-out photos (`fold` ≥ 0) of the binary `head`.

    Photos without the attribute are those of homes with `MIN_PHOTOS` such photos, in any collection:
    kitchens, exteriors, stairs, patios, in the shares they have there.
    """
    labels = photos.labels[head]
    positive, negative = (
        _by_home(photos, np.flatnonzero((labels == value) & (fold >= 0))) for value in (1, 0)
    )
    of_homes = [rows for rows in negative if len(rows) >= MIN_PHOTOS]
    return Pool(tuple(positive), tuple(of_homes or negative))


def _by_home(photos: PhotoSet, rows: NDArray[np.int64]) -> list[NDArray[np.int64]]:
    rows = rows[np.argsort(photos.group[rows], kind="stable")]
    return np.split(rows, np.flatnonzero(photos.group[rows][1:] != photos.group[rows][:-1]) + 1)


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
    weight = np.array([min(len(rows), TOGETHER) for rows in pool.negative], dtype=np.float64)
    homes = draw.choice(len(pool.negative), (listings, size), p=weight / weight.sum())
    highest = np.empty(listings)
    for listing, has_it in enumerate(truth):
        drawn = (
            _some(pool.positive[draw.integers(len(pool.positive))], POSITIVE_PHOTOS, draw) if has_it else []
        )
        for home in homes[listing]:
            if len(drawn) >= size:
                break
            drawn = [*drawn, *draw.permutation(pool.negative[home])[:TOGETHER]]
        highest[listing] = chances[drawn[:size]].max()
    return Simulated(size, highest, truth)


def _some(home: NDArray[np.int64], counts: tuple[int, ...], draw: np.random.Generator) -> list[np.int64]:
    return list(draw.permutation(home)[: int(draw.choice(counts))])
