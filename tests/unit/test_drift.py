"""Drift: a night is held against the nights before, and chance is not taken for drift."""

import json
import random
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

import pytest

from enrich.pipeline.figures import Figures
from enrich.records import Attributes, Photo, PhotoResult, PhotoStatus
from enrich.state.runs import Run
from jobs.run.drift import Measure, judged, plain, read

BOUND = 0.1


def attributes(seen: int = 1, **fields: Any) -> Attributes:
    return Attributes(fields, {}, {}, 1, seen, 1 - seen)


def night(*listings: Attributes, photos: int = 0, failed: int = 0) -> Figures:
    """What a run counts that saves these listings, and photos of which some failed."""
    figures = Figures()
    for listing in listings:
        figures.answered(listing)
    photo = Photo(0, "http://h/1.jpg", "k", "http://h/1.jpg")
    for number in range(photos):
        status = PhotoStatus.GONE if number < failed else PhotoStatus.OK
        figures.count(PhotoResult(photo, status, requested=True))
    return figures


def balconies(yes: int, of: int) -> list[Attributes]:
    return [
        attributes(has_balcony=number < yes or None, balcony_confidence=0.9 if number < yes else 0.1)
        for number in range(of)
    ]


def kept(measures: list[Measure], bundle: str = "b") -> Run:
    """The run as the table `run` gives it back."""
    figures = json.loads(json.dumps({"drift": plain(measures)}))
    return Run(1, "run", "host", datetime.now(UTC), datetime.now(UTC), 0, None, bundle, figures)


def before(figures: Figures, nights: int = 30, bundle: str = "b") -> list[Run]:
    return [kept(judged(figures, bundle, [], BOUND), bundle)] * nights


def by_figure(measures: list[Measure]) -> Mapping[str, Measure]:
    return {measure.figure: measure for measure in measures}


def test_a_night_is_measured_by_shares_means_and_failures() -> None:
    listings = [
        attributes(has_balcony=True, balcony_confidence=0.8, room_types=["bath", "kitchen"]),
        attributes(has_balcony=False, balcony_confidence=0.1, room_types=["kitchen"]),
        attributes(has_balcony=None, balcony_confidence=0.3, room_types=[]),
        attributes(seen=0, has_balcony=None, balcony_confidence=None, room_types=None),
    ]
    found = judged(night(*listings, photos=8, failed=2), "b", [], BOUND)
    assert {m.figure: (pytest.approx(m.value), m.of) for m in found} == {
        "has_balcony": (1 / 3, 3),
        "balcony_confidence": (0.4, 3),
        "room_types": (2 / 3, 3),
        "room_types=bath": (1 / 3, 3),
        "room_types=kitchen": (2 / 3, 3),
        "photo_failures": (0.25, 8),
    }
    assert not any(m.drifted or m.usual for m in found)


def test_a_night_in_which_nothing_was_seen_has_no_measures() -> None:
    assert judged(night(), "b", before(night(*balconies(20, 100))), BOUND) == []


@pytest.mark.parametrize(
    ("tonight", "drifted"),
    [
        (night(*balconies(20, 100)), set()),
        (night(*balconies(60, 100)), {"has_balcony", "balcony_confidence"}),
        (night(*balconies(0, 1000)), {"has_balcony", "balcony_confidence"}),
        (night(*balconies(20, 100), photos=100, failed=30), {"photo_failures"}),
        (night(*balconies(49, 49)), set()),  # too few listings to say anything
    ],
)
def test_what_lies_beyond_the_bound_has_drifted(tonight: Figures, drifted: set[str]) -> None:
    nights = before(night(*balconies(20, 100), photos=100, failed=1))
    assert {m.figure for m in judged(tonight, "b", nights, BOUND) if m.drifted} == drifted
    assert not any(m.drifted for m in judged(tonight, "b", nights, 1.0))


def test_usual_is_the_mean_of_the_nights_that_had_enough_listings() -> None:
    nights = [*before(night(*balconies(10, 100)), 3), *before(night(*balconies(300, 1000)), 3)]
    nights += before(night(*balconies(10, 10)), 20)
    usual = by_figure(judged(night(*balconies(20, 100)), "b", nights, BOUND))["has_balcony"].usual
    assert usual == pytest.approx(0.2)


def test_few_nights_say_nothing() -> None:
    nights = before(night(*balconies(20, 100)), 4)
    assert by_figure(judged(night(*balconies(99, 100)), "b", nights, BOUND))["has_balcony"].usual is None


def test_a_room_type_that_no_home_shows_any_more_has_drifted() -> None:
    nights = before(night(*[attributes(room_types=["kitchen"])] * 60, *[attributes(room_types=[])] * 40))
    tonight = night(*[attributes(room_types=["bath"])] * 60, *[attributes(room_types=[])] * 40)
    found = by_figure(judged(tonight, "b", nights, BOUND))
    assert (found["room_types=kitchen"].value, found["room_types=kitchen"].drifted) == (0.0, True)
    assert (found["room_types=bath"].usual, found["room_types=bath"].drifted) == (0.0, True)
    assert not found["room_types"].drifted


def test_a_new_head_has_not_drifted() -> None:
    tonight = night(*[attributes(has_balcony=True, has_seaview=True)] * 100)
    found = by_figure(judged(tonight, "b", before(night(*[attributes(has_balcony=True)] * 100)), BOUND))
    assert found["has_seaview"].usual is None and found["has_balcony"].usual == 1.0


def test_another_bundle_is_held_against_its_own_nights_once_there_are_enough() -> None:
    old, tonight = before(night(*balconies(20, 100)), 25, "old"), night(*balconies(60, 100))
    own = before(night(*balconies(60, 100)), 5, "new")
    assert by_figure(judged(tonight, "new", [*own[:4], *old], BOUND))["has_balcony"].drifted
    assert not by_figure(judged(tonight, "new", [*own, *old], BOUND))["has_balcony"].drifted


def test_chance_is_not_drift() -> None:
    """50 homes a night, half of them with a balcony: hardly an alarm in a thousand nights."""
    drawn = random.Random(1)
    nights = before(night(*balconies(50, 100)))
    alarms = 0
    for _ in range(1000):
        yes = sum(drawn.random() < 0.5 for _ in range(50))
        alarms += any(m.drifted for m in judged(night(*balconies(yes, 50)), "b", nights, 0.01))
    assert alarms <= 3


def test_what_is_kept_reads_back() -> None:
    measures = judged(night(*balconies(60, 100)), "b", before(night(*balconies(20, 100))), BOUND)
    assert list(read(kept(measures)).values()) == [
        Measure("balcony_confidence", 0.58, 100, 0.26, True),
        Measure("has_balcony", 0.6, 100, 0.2, True),
    ]
