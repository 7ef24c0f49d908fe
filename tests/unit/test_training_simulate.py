"""Simulated listings: made of held-out photos as the docstring says, and harder the more photos they have."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from training.data.labels import ROOM
from training.data.photos import PhotoSet
from training.thresholds.calibrate import choose_true
from training.thresholds.simulate import Pool, pool, simulate

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
    return pool(photos, "balcony", np.where(photos.group == "h000", -1, 0))


def test_photos_come_from_those_held_out_home_by_home(drawn: Pool, photos: PhotoSet) -> None:
    labels = photos.labels["balcony"]
    for rows_of_homes, label, homes in ((drawn.positive, 1, HOMES // 3 - 1), (drawn.negative, 0, HOMES - 1)):
        assert len(rows_of_homes) == homes
        assert all((labels[rows] == label).all() for rows in rows_of_homes)
        assert all(len(set(photos.group[rows])) == 1 for rows in rows_of_homes)
        assert "h000" not in {photos.group[rows[0]] for rows in rows_of_homes}


def test_single_photos_are_no_homes_unless_there_are_no_others(photos: PhotoSet) -> None:
    single = replace(photos, group=np.where(np.arange(len(photos)) < 40, photos.paths, photos.group))
    fold = np.zeros(len(photos), dtype=np.int64)
    assert len(pool(single, "balcony", fold).negative) == HOMES - 4
    alone = replace(photos, group=np.array(photos.paths))
    assert len(pool(alone, "balcony", fold).negative) == (photos.labels["balcony"] == 0).sum()


def test_a_listing_has_photos_that_show_it_or_none(drawn: Pool, photos: PhotoSet) -> None:
    shows = photos.labels["balcony"].astype(np.float64)
    listings = simulate(drawn, shows, size=12, prevalence=0.25, seed=0, listings=400)
    assert listings.truth.sum() == 100
    assert (listings.highest[listings.truth] == 1).all()
    assert (listings.highest[~listings.truth] == 0).all()


def test_a_home_that_fools_the_model_spoils_few_listings(drawn: Pool, photos: PhotoSet) -> None:
    fooled = (photos.group == "h001").astype(np.float64)  # ten photos of 1,500
    listings = simulate(drawn, fooled, size=8, prevalence=0.0, seed=0)
    assert 0 < listings.highest.mean() < 0.015, "one by one they would be in one listing of twenty"


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
