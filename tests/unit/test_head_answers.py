"""What a head says of a listing, in words: thresholds beside probabilities, and why unknown is unknown."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest

from enrich.model.head import Head, HeadClass
from enrich.model.kind import KINDS, overridable
from enrich.model.seen import Seen, seen_of
from enrich.records import Photo, PhotoResult, PhotoScore, PhotoStatus
from training.thresholds.rules import in_words

BALCONY = Head("balcony", "binary", true_threshold=0.88, false_threshold=0.05)
ROOM = Head("room", "multiclass", (HeadClass("kitchen", True, 0.6), HeadClass("other", False, 0.0)))
NO = 0.02


def seen(photos: int, failed: int = 0, alike: bool = False) -> Seen:
    """What is seen of a listing with so many photos scored, and so many not."""
    results = []
    for number in range(photos + failed):
        photo = Photo(number, f"u{number}", f"k{number}", f"u{number}")
        dhash = 0 if alike else int(np.random.default_rng(number).integers(-(2**63), 2**63 - 1))
        score = PhotoScore(f"s{number}", dhash, {})
        scored = number < photos
        status = PhotoStatus.OK if scored else PhotoStatus.GONE
        results.append(PhotoResult(photo, status, score=score if scored else None))
    return seen_of(results, 8)


def explained(head: Head, chances: Sequence[float], found: Seen) -> str:
    logits = np.log(np.array(chances) / (1 - np.array(chances))).reshape(-1, 1)
    return head.rules.explained(head, logits, found)


@pytest.mark.parametrize(
    ("chances", "found", "text"),
    [
        ([NO, 0.97], seen(2), "0.97, yes from 0.88"),
        ([NO] * 8, seen(8), "0.02, no below 0.05"),
        ([NO] * 9 + [0.67], seen(10), "0.67, between the thresholds: yes from 0.88, no below 0.05"),
        ([NO] * 5, seen(5), "0.02, no below 0.05, but too few photos seen: 5 of the 8 that no takes"),
        (
            [NO] * 9,
            seen(9, alike=True),
            "0.02, no below 0.05, but too few photos seen: 1 of the 8 that no takes",
        ),
        (
            [NO] * 8,
            seen(8, failed=2),
            "0.02, no below 0.05, but only 8 of 10 photos could be seen, and no takes nine tenths",
        ),
        ([], seen(0, failed=3), "no photo could be seen"),
        ([], seen(0), "there are no photos"),
        ([0.8799], seen(1), "0.8799, between the thresholds: yes from 0.8800, no below 0.0500"),
        ([0.879996], seen(1), "0.879996, between the thresholds: yes from 0.880000, no below 0.050000"),
    ],
)
def test_an_answer_says_what_it_rests_on(chances: list[float], found: Seen, text: str) -> None:
    assert explained(BALCONY, chances, found) == text


def test_a_head_that_never_says_no_says_so() -> None:
    head = Head("balcony", "binary", true_threshold=0.88)
    assert explained(head, [NO] * 9, seen(9)) == "0.02, yes from 0.88; this model never says no"
    assert in_words(0.88, 0.0) == "yes from 0.880, never says *no*"
    assert in_words(0.88, 0.05) == "yes from 0.880, no below 0.050"


def test_the_words_and_the_answer_agree() -> None:
    for photos in (7, 8):
        logits, found = np.full((photos, 1), -4.0), seen(photos)
        says = BALCONY.rules.answer(BALCONY, logits, found).fields["has_balcony"]
        assert ("too few" in BALCONY.rules.explained(BALCONY, logits, found)) is (says is None)


def test_a_photo_right_below_a_threshold_is_not_enough_as_the_answer_says() -> None:
    below = np.log(np.array([0.879996]) / (1 - np.array([0.879996])))
    plain = BALCONY.rules.plain(BALCONY, BALCONY.probabilities(below))
    assert BALCONY.rules.photo_shown(BALCONY, plain) == ("0.880", False)
    assert BALCONY.rules.answer(BALCONY, below.reshape(1, 1), seen(1)).fields["has_balcony"] is None


def test_a_photo_s_class_right_below_its_threshold_is_not_enough_either() -> None:
    below = np.log(np.array([0.599996, 0.400004]))
    plain = ROOM.rules.plain(ROOM, ROOM.probabilities(below))
    assert ROOM.rules.photo_shown(ROOM, plain) == ("kitchen 0.60", False)
    assert ROOM.rules.answer(ROOM, below.reshape(1, 2), seen(1)).fields["room_types"] == []


def test_classes_say_from_which_threshold_they_count() -> None:
    kitchen = np.array([[4.0, 0.0], [0.1, 0.0]])
    assert ROOM.rules.explained(ROOM, kitchen, seen(2)) == "kitchen from 0.60"
    assert ROOM.rules.explained(ROOM, kitchen[1:], seen(1)) == "no class reached its threshold"


def test_a_class_without_a_threshold_is_not_said_to_have_one_of_0() -> None:
    room = replace(ROOM, classes=(HeadClass("kitchen", True, 0.0), HeadClass("other", False, 0.0)))
    assert room.rules.explained(room, np.array([[4.0, 0.0]]), seen(1)) == "kitchen at any probability"


@pytest.mark.parametrize(
    ("field", "owner"),
    [
        ("has_balcony", ("binary", "balcony")),
        ("room_types", ("multiclass", "room")),
        ("has_", None),
        ("_types", None),
        ("balcony_confidence", None),
        ("price", None),
    ],
)
def test_a_field_is_known_by_its_name(field: str, owner: tuple[str, str] | None) -> None:
    found = overridable(field)
    assert (found and (found[0], found[1])) == (owner and (KINDS[owner[0]], owner[1]))
