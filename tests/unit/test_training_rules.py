"""The one way from held-out homes to thresholds, whoever asks."""

import numpy as np
import pytest

from enrich.model.multiclass import Multiclass
from training.data.homes import Homes
from training.thresholds.calibrate import choose_classes
from training.thresholds.rules import PRECISIONS, Targets, class_fields, false_threshold, true_thresholds


def town(homes: int, photos: int = 8) -> tuple[Homes, np.ndarray]:
    """Homes of as many photos each, told apart but for a few in the middle; and their photos' chances."""
    truth = np.arange(homes) % 2 == 1
    highest = np.where(truth, np.linspace(0.4, 0.99, homes), np.linspace(0.01, 0.6, homes))
    place = np.arange(homes)
    return (
        Homes(tuple(np.full(photos, home) for home in place), truth, place % 3, place.astype(str)),
        highest,
    )


@pytest.mark.parametrize("asked", [0.95, 0.85])
def test_a_bundle_has_thresholds_for_more_precisions_than_it_was_asked_for(asked: float) -> None:
    homes, chances = town(120)
    true, at, figures = true_thresholds(homes, chances, Targets(asked), 0.5)
    assert {float(name) for name in at} == {*PRECISIONS, asked} and at[f"{asked:g}"] == true
    assert list(at.values()) == sorted(at.values()), "more precision, higher thresholds"
    recalls = [one["cross_fitted"]["recall"]["hits"] for one in figures["by_target"].values()]
    assert recalls == sorted(recalls, reverse=True) and recalls[0] > recalls[-1]
    assert figures["cross_fitted"] == figures["by_target"][f"{asked:g}"]["cross_fitted"]
    assert [row[0] for row in figures["curve"]] == sorted((row[0] for row in figures["curve"]), reverse=True)


def test_a_precision_that_few_homes_back_is_called_an_estimate() -> None:
    assert true_thresholds(*town(20), Targets(), 0.5)[2]["basis"] == "estimate"
    assert true_thresholds(*town(600), Targets(), 0.5)[2]["basis"] == "homes"
    figures = true_thresholds(*town(400), Targets(), 0.5)[2]["by_target"]
    assert {name: one["basis"] for name, one in figures.items() if float(name) >= 0.95} == {
        "0.95": "homes",
        "0.98": "estimate",
        "0.99": "estimate",
    }, "140 homes may show 0.95; 112 of 112 are no proof of 0.98, nor 95 of 95 of 0.99"


def test_no_is_never_said_above_yes_and_not_on_few_homes_or_few_photos() -> None:
    homes, chances = town(120)
    said, figures = false_threshold(homes, chances, 1.0, Targets(), 0.5)
    assert 0 < said < 0.6 and figures["homes"] == 120
    assert false_threshold(homes, chances, said / 2, Targets(), 0.5)[0] == said / 2
    assert false_threshold(*town(18), 1.0, Targets(), 0.5)[0] == 0.0
    assert false_threshold(*town(120, photos=7), 1.0, Targets(), 0.5)[0] == 0.0


def rooms(homes: int = 200, photos: int = 6) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Logits of three rooms, what the photos show and of which home each is: 0 and 1 are told apart, and
    what looks like room 2 is one in two of the cases."""
    draw = np.random.default_rng(0)
    home, seen = np.repeat(np.arange(homes), photos), draw.integers(0, 3, homes * photos)
    logits = draw.normal(0, 1, (len(seen), 3)) + 6 * np.eye(3)[seen]
    return logits, np.where((seen == 2) & (draw.random(len(seen)) < 0.5), 0, seen), home


def test_a_class_is_named_for_homes_as_precisely_as_asked_and_published_only_then() -> None:
    logits, truth, home = rooms()
    fields = class_fields(logits, truth, home, {"kitchen": True, "bath": True, "stove": True}, 0.9)
    kitchen, bath, stove = fields["classes"]
    assert kitchen["publish"] and bath["publish"] and not stove["publish"]
    figures = fields["metrics"]["classes"]
    assert figures["bath"]["homes"]["precision"]["value"] >= 0.9
    assert figures["bath"]["homes"]["recall"]["of"] == len(np.unique(home[truth == 1]))
    assert figures["bath"]["recall"]["of"] == (truth == 1).sum()


def test_a_class_that_nobody_is_to_see_is_not_published_and_few_homes_are_judged_by_photos() -> None:
    logits, truth, home = rooms(homes=6)
    fields = class_fields(logits, truth, home, {"kitchen": True, "bath": False, "stove": True}, 0.4)
    assert [one["publish"] for one in fields["classes"]] == [True, False, True]
    by_photos = choose_classes(Multiclass().chances(logits / fields["temperature"]), truth, 0.4)
    assert [one["threshold"] for one in fields["classes"]] == [threshold for threshold, _ in by_photos]


def test_homes_are_what_a_class_must_be_right_about_not_each_photo() -> None:
    logits, truth, home = rooms()
    wrong = (truth == 1) & (np.random.default_rng(1).random(len(truth)) < 0.2)
    fields = class_fields(
        logits, np.where(wrong, 0, truth), home, {"kitchen": True, "bath": True, "stove": True}, 0.9
    )
    figures, (_, bath, _) = fields["metrics"]["classes"]["bath"], fields["classes"]
    assert bath["publish"] and figures["precision"]["value"] < 0.9 <= figures["homes"]["precision"]["value"]
