"""From photo scores to a listing's attributes."""

import math
from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from enrich.model.aggregate import aggregate
from enrich.model.arithmetic import Arithmetic, Variant
from enrich.model.binary import listing_probability
from enrich.model.bundle import Bundle, Member, Preprocessing
from enrich.model.head import Aggregation, Head, HeadClass
from enrich.model.seen import distinct_views
from enrich.records import Attributes, Photo, PhotoResult, PhotoScore, PhotoStatus

PREPROCESSING = Preprocessing((8, 8), "squash", "bicubic", (0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
BALCONY = Head("balcony", "binary", true_threshold=0.9, false_threshold=0.2)
ROOM = Head(
    "room",
    "multiclass",
    (HeadClass("kitchen", True, 0.6), HeadClass("bathroom", True, 0.6), HeadClass("other", False, 0.0)),
)
YES, MAYBE, NO = 4.0, 0.5, -4.0  # logits: 0.98, 0.62, 0.02
KITCHEN, BATHROOM, OTHER, UNSURE = (5.0, 0.0, 0.0), (0.0, 5.0, 0.0), (0.0, 0.0, 5.0), (0.2, 0.1, 0.0)


def bundle(balcony: Head = BALCONY) -> Bundle:
    from pathlib import Path

    variants: dict[Arithmetic, Variant] = {"fp32": Variant("m", (balcony, ROOM))}
    member = Member("timm:test_resnet", "b", "w.safetensors", PREPROCESSING, variants)
    return Bundle(Path("."), "b", "test", (member,), {})


def seen(position: int, logit: float, room: Sequence[float] = OTHER, dhash: int | None = None) -> PhotoResult:
    """A scored photo; without `dhash` it looks like no other."""
    photo = Photo(position, f"u{position}", f"k{position}", f"http://host/{position}.jpg")
    unlike = int(np.random.default_rng(position).integers(-(2**63), 2**63 - 1))
    score = PhotoScore(
        f"s{position}",
        unlike if dhash is None else dhash,
        {"m": {"balcony": (logit,), "room": tuple(room)}},
    )
    return PhotoResult(photo, PhotoStatus.OK, score.sha256, score)


def failed(position: int) -> PhotoResult:
    return PhotoResult(Photo(position, "u", f"k{position}", "u"), PhotoStatus.GONE, failures=1)


def of(results: Sequence[PhotoResult], min_photos_false: int = 8, head: Head = BALCONY) -> Attributes:
    return aggregate(bundle(head), results, min_photos_false)


def test_one_photo_over_the_threshold_makes_it_true_and_is_the_evidence() -> None:
    found = of([seen(0, NO), seen(1, YES), seen(2, MAYBE)])
    assert found.fields["has_balcony"] is True
    assert found.evidence["balcony"].url == "http://host/1.jpg"
    assert found.evidence["balcony"].position == 1
    assert found.evidence["balcony"].confidence == pytest.approx(1 / (1 + math.exp(-YES)), abs=1e-4)


def test_the_threshold_itself_is_enough() -> None:
    exactly = Head("balcony", "binary", true_threshold=0.5, false_threshold=0.2)
    assert of([seen(0, 0.0)], head=exactly).fields["has_balcony"] is True


def test_false_needs_enough_photos() -> None:
    assert of([seen(i, NO) for i in range(7)]).fields["has_balcony"] is None
    assert of([seen(i, NO) for i in range(8)]).fields["has_balcony"] is False


def test_false_needs_nine_tenths_of_the_listings_photos() -> None:
    some_failed = [seen(i, NO) for i in range(9)] + [failed(9)]
    assert of(some_failed).fields["has_balcony"] is False
    assert of([*some_failed, failed(10)]).fields["has_balcony"] is None


def test_a_doubtful_photo_leaves_it_unknown() -> None:
    found = of([seen(i, NO) for i in range(9)] + [seen(9, MAYBE)])
    assert found.fields["has_balcony"] is None
    assert found.fields["balcony_confidence"] is not None
    assert found.evidence == {}


def test_near_duplicates_do_not_add_up_to_false() -> None:
    same = [seen(i, NO, dhash=0b111 << i % 2) for i in range(8)]
    assert of(same).fields["has_balcony"] is None


def test_nothing_seen_is_unknown_and_not_an_empty_list() -> None:
    for results in ([], [failed(0)]):
        found = of(results)
        assert found.fields == {"has_balcony": None, "balcony_confidence": None, "room_types": None}
        assert (found.photos_seen, found.photos_failed) == (0, len(results))


def test_processed_with_nothing_found_is_an_empty_list() -> None:
    assert of([seen(0, NO, OTHER)]).fields["room_types"] == []


def test_rooms_are_counted_by_view_and_unpublished_or_unsure_ones_stay_out() -> None:
    found = of([
        seen(0, NO, KITCHEN, dhash=1),
        seen(1, NO, KITCHEN, dhash=3),  # one bit apart: the same kitchen
        seen(2, NO, KITCHEN, dhash=-1),
        seen(3, NO, BATHROOM),
        seen(4, NO, OTHER),
        seen(5, NO, UNSURE),
    ])  # fmt: skip
    assert found.fields["room_types"] == ["bathroom", "kitchen"]
    assert found.counts == {"room_counts": {"bathroom": 1, "kitchen": 2}}


def test_the_order_in_which_photos_arrive_does_not_matter() -> None:
    results = [seen(i, [NO, YES, MAYBE][i % 3], [KITCHEN, BATHROOM][i % 2]) for i in range(12)]
    shuffled = [results[i] for i in np.random.default_rng(1).permutation(12)]
    assert of(shuffled) == of(results)


def test_earlier_scores_stand_in_for_a_photo_that_fails_for_now() -> None:
    stale = seen(0, YES)
    result = PhotoResult(stale.photo, PhotoStatus.TIMEOUT, stale.sha256, stale.score, failures=1)
    assert of([result]).fields["has_balcony"] is True


@pytest.mark.parametrize(
    ("rule", "expected"),
    [
        (Aggregation("max"), 0.8),
        (Aggregation("topk_mean", k=2), 0.5),  # the logits of .8 and .2 cancel out
        (Aggregation("topk_mean", k=9), 1 / (1 + math.exp(math.log(9) / 3))),  # of all three: -log(9) / 3
        (Aggregation("noisy_or"), 1 - 0.2 * 0.8 * 0.9),
        (Aggregation("max", slope=2.0, intercept=-1.0), 1 / (1 + math.exp(-(2 * math.log(4) - 1)))),
    ],
)  # fmt: skip
def test_pooling_against_hand_computed_values(rule: Aggregation, expected: float) -> None:
    logits = np.log(np.array([0.8 / 0.2, 0.2 / 0.8, 0.1 / 0.9]))
    assert listing_probability(rule, logits) == pytest.approx(expected, abs=1e-9)


@given(
    st.lists(st.floats(-80, 80), min_size=1, max_size=50), st.sampled_from(["max", "topk_mean", "noisy_or"])
)
def test_a_confidence_is_a_probability_whatever_the_logits(logits: list[float], method: str) -> None:
    chance = listing_probability(Aggregation(method, k=3), np.array(logits))  # type: ignore[arg-type]
    assert 0.0 <= chance <= 1.0


def test_views_are_numbered_in_order_of_their_first_photo() -> None:
    far = 0x0F0F0F0F0F0F0F0F
    assert distinct_views([0, far, 0b1111, 0b11111, far ^ 1, -1]) == [0, 1, 0, 2, 1, 3]
