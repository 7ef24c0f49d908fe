"""Simulated listings: made of held-out photos as the docstring says, and harder the more photos they have."""

from pathlib import Path

import numpy as np
import pytest

from training.calibrate import choose_true
from training.data import ROOM, PhotoSet
from training.simulate import Pool, pool, simulate

HOMES, PHOTOS = 150, 10
BEDROOM, EXTERIOR = ROOM.classes.index("bedroom"), ROOM.classes.index("exterior")


@pytest.fixture(scope="module")
def photos() -> PhotoSet:
    """Ten photos a home, the last three exteriors; every third home shows a balcony on two of those. The
    homes of `scenes` have exteriors only."""
    group = np.repeat([f"h{n:03}" for n in range(HOMES)], PHOTOS)
    home, place = np.repeat(np.arange(HOMES), PHOTOS), np.tile(np.arange(PHOTOS), HOMES)
    scenes = home >= 100
    return PhotoSet(
        folder=Path(),
        paths=tuple(f"{n}.jpg" for n in range(HOMES * PHOTOS)),
        sha256=("",) * (HOMES * PHOTOS),
        group=group,
        site=group,
        split=np.full(HOMES * PHOTOS, "train"),
        collection=np.where(scenes, "scenes", "web_homes"),
        licence=np.full(HOMES * PHOTOS, ""),
        labels={
            "balcony": ((home % 3 == 0) & (place >= 8)).astype(np.int64),
            "room": np.where((place >= 7) | scenes, EXTERIOR, BEDROOM),
        },
        classes={"room": ROOM.classes},
    )


@pytest.fixture(scope="module")
def drawn(photos: PhotoSet) -> Pool:
    fold = np.where(photos.group == "h000", -1, 0)
    return pool(photos, "balcony", fold, "web_homes")


def test_photos_come_from_those_held_out(drawn: Pool, photos: PhotoSet) -> None:
    assert "h000" not in {photos.group[row] for rows in drawn.positive for row in rows}
    assert "h000" not in set(photos.group[drawn.negative])
    assert len(drawn.positive) == 49
    assert all(len(set(photos.group[rows])) == 1 for rows in drawn.positive)
    assert not photos.labels["balcony"][drawn.negative].any()


def test_rooms_come_in_the_shares_of_whole_homes(drawn: Pool, photos: PhotoSet) -> None:
    exteriors = photos.labels["room"][drawn.negative] == EXTERIOR
    in_homes = photos.collection[drawn.negative] == "web_homes"
    assert exteriors.mean() > 0.4, "the scenes are all exteriors"
    assert drawn.chance[exteriors].sum() == pytest.approx(exteriors[in_homes].mean())


def test_a_listing_has_one_to_three_photos_that_show_it_or_none(drawn: Pool, photos: PhotoSet) -> None:
    shows = photos.labels["balcony"].astype(np.float64)
    listings = simulate(drawn, shows, size=12, prevalence=0.25, seed=0, listings=400)
    assert listings.truth.sum() == 100
    assert (listings.highest[listings.truth] == 1).all()
    assert (listings.highest[~listings.truth] == 0).all()


def test_more_photos_need_a_higher_threshold(drawn: Pool, photos: PhotoSet) -> None:
    draw, shows = np.random.default_rng(0), photos.labels["balcony"] == 1
    chances = np.where(shows, draw.beta(8, 2, len(shows)), draw.beta(1, 8, len(shows)))
    few, many = (simulate(drawn, chances, size, 0.3, seed=0) for size in (5, 40))
    low, high = (choose_true(one.highest, one.truth, 0.3, 0.95) for one in (few, many))
    assert low < high


def test_the_same_seed_draws_the_same(drawn: Pool) -> None:
    chances = np.random.default_rng(0).random(HOMES * PHOTOS)
    one, same, other = (simulate(drawn, chances, 15, 0.3, seed, 50).highest for seed in (1, 1, 2))
    assert (one == same).all()
    assert (one != other).any()
