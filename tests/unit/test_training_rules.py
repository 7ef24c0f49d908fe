"""The one way from held-out homes to thresholds, whoever asks."""

import numpy as np
import pytest

from training.data.homes import Homes
from training.thresholds.calibrate import Floats, Truth
from training.thresholds.rules import Choose, false_threshold, true_threshold

CHANCES = np.array([0.2, 0.4, 0.6, 0.8])
HOMES = Homes(
    tuple(np.full(8, place) for place in range(4)),
    truth=np.array([False, False, True, True]),
    fold=np.array([0, 1, 0, 1]),
    site=np.array(["a", "b", "c", "d"]),
)
"""Four homes of eight photos each."""


def always(threshold: float) -> Choose:
    def choose(scores: Floats, truth: Truth) -> float:
        return threshold

    return choose


@pytest.mark.parametrize(("least", "threshold", "found"), [(0.0, 0.5, 2), (0.7, 0.7, 1), (0.3, 0.5, 2)])
def test_yes_asks_for_what_simulated_listings_ask_for_at_least(
    least: float, threshold: float, found: int
) -> None:
    chosen, fair, figures = true_threshold(HOMES, CHANCES, always(0.5), least, 0.95, 0.3)
    assert chosen == threshold and figures["on_homes_alone"] == 0.5
    assert fair.recall.hits == found, "what the threshold is to do elsewhere is counted with it"
    assert figures["basis"] == "simulated", "four homes back no precision"


def test_no_is_never_said_above_yes() -> None:
    chosen, figures = false_threshold(HOMES, CHANCES, always(0.7), 0.5, 0.9, 0.3)
    assert chosen == 0.5 and figures["homes"] == 4
    assert false_threshold(HOMES, CHANCES, always(0.7), 0.5, 0.9, 0.3, fewest=3)[0] == 0.0
