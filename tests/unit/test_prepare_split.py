"""Splits: the thesis's by order, ours by home; and how classes are cut down."""

from collections import Counter

import numpy as np
import pandas as pd
import pytest

from enrich.errors import UsageError
from training.data import decide
from training.data.decide import cap, draw, group_split, thesis_split


def photos(label: str, count: int, homes: int = 0, task: str = "t") -> pd.DataFrame:
    rows = [
        (task, label, f"{label}{i}", f"home-{i % homes}" if homes else f"{label}{i}") for i in range(count)
    ]
    return pd.DataFrame(rows, columns=["task", "label", "source", "group"])


def together(*parts: pd.DataFrame) -> pd.DataFrame:
    return pd.concat(parts, ignore_index=True)


def test_the_first_four_fifths_of_each_class_train() -> None:
    sides = thesis_split(together(photos("a", 10), photos("b", 6))).tolist()
    assert sides == ["train"] * 8 + ["val"] * 2 + ["train"] * 4 + ["val"] * 2


def test_two_photos_are_enough_for_both_sides() -> None:
    assert thesis_split(photos("a", 2)).tolist() == ["train", "val"]


def test_homes_stay_whole_and_a_fifth_of_each_class_validates() -> None:
    candidates = together(photos("a", 200, homes=40), photos("b", 90, homes=40), photos("c", 60))
    sides = group_split(candidates, seed=1).tolist()
    homes: dict[str, set[str]] = {"train": set(), "val": set()}
    for candidate, side in zip(candidates.itertuples(), sides, strict=True):
        homes[side].add(candidate.group)
    assert not homes["train"] & homes["val"]
    validating = Counter(
        c.label for c, side in zip(candidates.itertuples(), sides, strict=True) if side == "val"
    )
    for label, count in (("a", 200), ("b", 90), ("c", 60)):
        assert validating[label] == pytest.approx(count / 5, rel=0.15)
    assert sides == group_split(candidates, seed=1).tolist()
    assert sides != group_split(candidates, seed=2).tolist()


def test_too_few_homes_cannot_be_split_by_home() -> None:
    with pytest.raises(UsageError, match=r"class b of task t has photos of 4 homes only"):
        group_split(together(photos("a", 20), photos("b", 20, homes=4)), seed=0)


def test_a_home_that_has_nearly_all_of_a_class_trains() -> None:
    palace = photos("b", 500, homes=1).replace("home-0", "palace")
    candidates = together(photos("a", 20, homes=5), photos("b", 5, homes=5), palace)
    sides = group_split(candidates, seed=0).tolist()
    assert set(sides[-500:]) == {"train"}
    assert {c.label for c, side in zip(candidates.itertuples(), sides, strict=True) if side == "val"} == {
        "a",
        "b",
    }


def test_no_class_may_be_missing_from_validation(monkeypatch: pytest.MonkeyPatch) -> None:
    class AllOfOneClass:
        def __init__(self, *args: object, **kwargs: object) -> None: ...

        def split(self, *args: object) -> list[tuple[None, np.ndarray]]:
            return [(None, np.arange(4))]

    monkeypatch.setattr(decide, "StratifiedGroupKFold", AllOfOneClass)
    with pytest.raises(UsageError, match="class b of task t cannot be split by home"):
        group_split(together(photos("a", 20), photos("b", 20)), seed=0)


def test_cap_keeps_the_first_of_each_home_and_class() -> None:
    candidates = together(photos("a", 4, homes=2), photos("b", 3, homes=1))
    assert cap(candidates, 1) == [2, 3, 5, 6]
    assert cap(candidates, 9) == []


def test_classes_are_drawn_down_to_the_thesis_size_where_it_had_them() -> None:
    candidates = together(photos("balcony", 700, task="balcony"), photos("indoor", 9, task="balcony"))
    over = draw(candidates, seed=3)
    assert len(over) == 3
    assert over == draw(candidates, seed=3) != draw(candidates, seed=4)
    assert max(over) < 700
    assert draw(photos("wood", 900), seed=0) == []
