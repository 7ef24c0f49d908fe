"""The one way from held-out homes to thresholds, whoever asks."""

import numpy as np
import pytest

from training.data.homes import Homes
from training.thresholds.rules import PRECISIONS, Targets, false_threshold, true_thresholds


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


def test_no_is_never_said_above_yes_and_not_on_few_homes_or_few_photos() -> None:
    homes, chances = town(120)
    said, figures = false_threshold(homes, chances, 1.0, Targets(), 0.5)
    assert 0 < said < 0.6 and figures["homes"] == 120
    assert false_threshold(homes, chances, said / 2, Targets(), 0.5)[0] == said / 2
    assert false_threshold(*town(18), 1.0, Targets(), 0.5)[0] == 0.0
    assert false_threshold(*town(120, photos=7), 1.0, Targets(), 0.5)[0] == 0.0
