"""Duplicates: copies are found through scaling, brightness and compression, other photos are left alone."""

from pathlib import Path

import pytest
from PIL import ImageEnhance

from tests.support.pictures import picture
from training.data.clean import Inspected, inspect
from training.data.duplicates import NEAR, Pair, classify_pairs, find_pairs
from training.data.sources import Candidate


def looked(path: Path) -> Inspected:
    found = inspect(path, 500, 1)
    assert isinstance(found, Inspected)
    return found


def photo(bits: int = 0, difference: int = 0, sha256: str = "") -> Inspected:
    return Inspected(sha256 or f"{bits}-{difference}", (bits, difference), 500, 333, True, 1)


def test_a_copy_is_found_and_forty_others_are_not(tmp_path: Path) -> None:
    original = picture(0, 300, 200)
    original.save(tmp_path / "original.jpg")
    original.resize((240, 160)).save(tmp_path / "smaller.jpg", quality=60)
    ImageEnhance.Brightness(original).enhance(0.8).save(tmp_path / "darker.png")
    copies = [looked(tmp_path / name) for name in ("original.jpg", "smaller.jpg", "darker.png")]
    for seed in range(1, 41):
        picture(seed, 300, 200).save(tmp_path / f"{seed}.jpg")
    others = [looked(tmp_path / f"{seed}.jpg") for seed in range(1, 41)]
    pairs = find_pairs(dict(enumerate(copies + others)), NEAR)
    assert [(pair.first, pair.second, pair.exact) for pair in pairs] == [
        (0, 1, False),
        (0, 2, False),
        (1, 2, False),
    ]


def test_the_distance_counts_the_bits_of_both_hashes() -> None:
    photos = {3: photo(), 5: photo(0b111, 1 << 63), 9: photo((1 << 64) - 1)}
    assert find_pairs(photos, 4) == [Pair(3, 5, 4, False)]
    assert find_pairs(photos, 3) == []


def test_equal_files_are_told_from_alike_ones() -> None:
    pairs = find_pairs({0: photo(sha256="x"), 1: photo(sha256="x"), 2: photo(sha256="y")}, 0)
    assert [(pair.first, pair.second, pair.exact) for pair in pairs] == [
        (0, 1, True),
        (0, 2, False),
        (1, 2, False),
    ]


def candidates(labels: str) -> list[Candidate]:
    return [Candidate("t", label, f"{i}.jpg", "") for i, label in enumerate(labels)]


def decided(labels: str, *pairs: tuple[int, int, bool]) -> dict[int, tuple[str, str]]:
    return classify_pairs(candidates(labels), [Pair(a, b, 0 if exact else 7, exact) for a, b, exact in pairs])


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
def test_no_pairs_without_two_photos(photos: dict[int, Inspected]) -> None:
    assert find_pairs(photos, NEAR) == []
