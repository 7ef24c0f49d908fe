"""Duplicates: copies are found through scaling, brightness and compression, other photos are left alone."""

from dataclasses import asdict
from pathlib import Path

import pandas as pd
import pytest
from PIL import ImageEnhance

from tests.support.pictures import picture
from training.data.clean import Looked, inspect
from training.data.decide import NEAR, copies, find_pairs


def looked(path: Path) -> Looked:
    found = inspect(path, 500, 1)
    assert not found.reason
    return found


def photo(bits: int = 0, difference: int = 0, sha256: str = "") -> Looked:
    return Looked(sha256=sha256 or f"{bits}-{difference}", fingerprint=(bits, difference))


def pairs(photos: dict[int, Looked], limit: int) -> list[tuple[int, int, int, bool]]:
    """First, second, distance, exact."""
    table = pd.DataFrame(map(asdict, photos.values()), index=list(photos), columns=[*asdict(photo())])
    return [pair[:4] for pair in find_pairs(table, limit).itertuples(index=False, name=None)]


def test_a_copy_is_found_and_forty_others_are_not(tmp_path: Path) -> None:
    original = picture(0, 300, 200)
    original.save(tmp_path / "original.jpg")
    original.resize((240, 160)).save(tmp_path / "smaller.jpg", quality=60)
    ImageEnhance.Brightness(original).enhance(0.8).save(tmp_path / "darker.png")
    alike = [looked(tmp_path / name) for name in ("original.jpg", "smaller.jpg", "darker.png")]
    for seed in range(1, 41):
        picture(seed, 300, 200).save(tmp_path / f"{seed}.jpg")
    others = [looked(tmp_path / f"{seed}.jpg") for seed in range(1, 41)]
    found = pairs(dict(enumerate(alike + others)), NEAR)
    assert [(first, second, exact) for first, second, _, exact in found] == [
        (0, 1, False),
        (0, 2, False),
        (1, 2, False),
    ]


def test_the_distance_counts_the_bits_of_both_hashes() -> None:
    photos = {3: photo(), 5: photo(0b111, 1 << 63), 9: photo((1 << 64) - 1)}
    assert pairs(photos, 4) == [(3, 5, 4, False)]
    assert pairs(photos, 3) == []


def test_equal_files_are_told_from_alike_ones() -> None:
    found = pairs({0: photo(sha256="x"), 1: photo(sha256="x"), 2: photo(sha256="y")}, 0)
    assert found == [(0, 1, 0, True), (0, 2, 0, False), (1, 2, 0, False)]


def decided(labels: str, *near: tuple[int, int, bool]) -> dict[int, tuple[str, str]]:
    photos = pd.DataFrame(
        [(label, f"{i}.jpg") for i, label in enumerate(labels)], columns=["label", "source"]
    )
    like = [(*pair, "equal to" if pair[2] else "7 of 128 bits from") for pair in near]
    return copies(photos, pd.DataFrame(like, columns=["first", "second", "exact", "how"]))


def test_within_a_class_the_first_stays() -> None:
    assert decided("aaa", (0, 1, True), (0, 2, False), (1, 2, False)) == {
        1: ("duplicate", "equal to 0.jpg"),
        2: ("near_duplicate", "7 of 128 bits from 0.jpg"),
    }


def test_a_copy_of_a_copy_that_went_stays() -> None:
    # 0 is like 1, 1 like 2, 0 not like 2: without 1 the other two are different photos.
    assert decided("aaa", (0, 1, False), (1, 2, False)).keys() == {1}


def test_the_same_photo_in_two_classes_contradicts_itself_and_both_go() -> None:
    found = decided("aba", (0, 1, True), (0, 2, False))
    assert found == {
        0: ("contradicting", "equal to 1.jpg of class b"),
        1: ("contradicting", "equal to 0.jpg of class a"),
    }


@pytest.mark.parametrize("photos", [{}, {0: photo()}])
def test_no_pairs_without_two_photos(photos: dict[int, Looked]) -> None:
    assert pairs(photos, NEAR) == []
