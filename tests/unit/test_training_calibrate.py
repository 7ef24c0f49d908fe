"""Thresholds against cases worked out by hand, intervals against closed forms."""

from dataclasses import astuple

import numpy as np
import pytest
from scipy.special import expit

from training.thresholds.calibrate import (
    Counts,
    Share,
    calibrate_binary,
    calibrate_classes,
    chance_of_homes,
    choose_aggregation,
    choose_class_threshold,
    choose_false,
    choose_true,
    cross_fitted,
)

SCORES = np.array([0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95])
TRUTH = np.array([0, 0, 0, 1, 0, 1, 0, 1, 1, 1], dtype=bool)


def test_clopper_pearson_bounds() -> None:
    assert Share(0, 0).interval == (0.0, 1.0)
    # With no errors the bound has a closed form: (alpha / 2) ** (1 / n).
    low, high = Share(59, 59).interval
    assert (low, high) == (pytest.approx(0.025 ** (1 / 59)), 1.0)
    low, high = Share(0, 10).interval
    assert (low, high) == (0.0, pytest.approx(1 - 0.025 ** (1 / 10)))
    # 8 of 10, from published tables.
    assert Share(8, 10).interval == (pytest.approx(0.4439, abs=1e-4), pytest.approx(0.9748, abs=1e-4))


def test_counts_at_a_threshold_include_it() -> None:
    assert Counts.at(SCORES, TRUTH, 0.6) == Counts(tp=4, fp=1, fn=1, tn=4)


def test_precision_at_another_prevalence() -> None:
    counts = Counts(tp=40, fp=5, fn=10, tn=45)  # found 0.8 of those with, 0.1 of those without
    assert counts.precision.value == pytest.approx(40 / 45)
    assert counts.precision_at(0.5) == pytest.approx(0.8 / 0.9)
    assert counts.precision_at(0.3) == pytest.approx(0.24 / (0.24 + 0.07))
    assert counts.negative_precision_at(0.3) == pytest.approx(0.63 / (0.63 + 0.06))


def town(homes: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Homes whose chance of having it is exactly what their score says."""
    draw = np.random.default_rng(seed)
    scores = expit(draw.normal(0, 2.5, homes))
    return scores, draw.random(homes) < scores


def test_yes_is_as_precise_as_asked_on_homes_that_did_not_choose_the_threshold() -> None:
    elsewhere, truth = town(100_000)
    for target in (0.85, 0.9, 0.95):
        threshold = choose_true(*town(30_000, seed=1), prevalence=0.5, target=target)
        assert Counts.at(elsewhere, truth, threshold).precision.value == pytest.approx(target, abs=0.01)
    below = elsewhere < choose_false(*town(30_000, seed=1), prevalence=0.5, target=0.9)
    assert (~truth[below]).mean() == pytest.approx(0.9, abs=0.01)


def test_homes_of_the_same_score_are_yes_together_or_not_at_all() -> None:
    """As homes of one house are that show the same photo of its front."""
    scores = np.repeat([0.99, 0.8, 0.1], [10, 20, 20])
    truth = np.repeat([True, True, False, True, False], [10, 13, 7, 2, 18])
    threshold = choose_true(scores, truth, prevalence=0.5, target=0.9)
    chance, weight = chance_of_homes(scores, truth, 0.5)
    assert np.average(chance[scores >= 0.8], weights=weight[scores >= 0.8]) < 0.8
    assert threshold == 0.99 and np.average(chance[:10], weights=weight[:10]) > 0.9


def test_one_odd_home_moves_the_threshold_little() -> None:
    scores, truth = town(300)
    before = choose_true(scores, truth, prevalence=0.5, target=0.95)
    odd = truth.copy()
    odd[np.argmax(scores)] = False  # counted, precision at the highest score would be 0
    assert choose_true(scores, odd, prevalence=0.5, target=0.95) - before < 0.1


def test_few_homes_claim_less_than_many_of_the_same_kind() -> None:
    few = np.array([0.2, 0.3, 0.4, 0.45, 0.6, 0.7, 0.8, 0.9]), np.array([0, 0, 1, 0, 0, 1, 1, 1], dtype=bool)
    many = np.tile(few[0], 40), np.tile(few[1], 40)
    assert choose_true(*few, prevalence=0.5, target=0.87) > choose_true(*many, prevalence=0.5, target=0.87)
    sure = [chance_of_homes(scores, truth, 0.5)[0].max() for scores, truth in (few, many)]
    assert sure[0] < sure[1] - 0.01


def test_rarer_attributes_ask_for_more() -> None:
    scores, truth = town(30_000)
    at = [choose_true(scores, truth, prevalence=share, target=0.9) for share in (0.5, 0.3, 0.1)]
    assert at == sorted(at) and at[0] < at[2]
    elsewhere, there = town(100_000, seed=1)
    assert Counts.at(elsewhere, there, at[1]).precision_at(0.3) == pytest.approx(0.9, abs=0.015)


def test_yes_begins_above_and_no_ends_below_a_home_as_likely_to_have_it_as_not() -> None:
    apart = np.array([0.01] * 40 + [0.99] * 40), np.arange(80) >= 40
    assert choose_true(*apart, prevalence=0.5, target=0.6) == 0.99
    assert choose_false(*apart, prevalence=0.5, target=0.6) == 0.99


def test_nothing_is_claimed_where_no_threshold_is_good_enough() -> None:
    assert choose_true(SCORES, ~TRUTH, prevalence=0.3, target=0.95) == 1.0
    assert choose_false(SCORES, ~TRUTH, prevalence=0.5, target=0.9) == 0.0
    assert choose_true(SCORES, np.ones(10, dtype=bool), prevalence=0.5, target=0.95) == 1.0
    assert choose_false(SCORES, np.zeros(10, dtype=bool), prevalence=0.5, target=0.9) == 0.0


def test_cross_fitting_evaluates_each_fold_at_the_others_threshold() -> None:
    folds = np.array([0, 1] * 5)
    thresholds = {0: 0.55, 1: 0.85}

    def choose(scores: np.ndarray, truth: np.ndarray) -> float:
        return thresholds[0] if 0.1 in scores else thresholds[1]  # 0.1 is in fold 0

    even, odd = folds == 0, folds == 1
    each = Counts.at(SCORES[odd], TRUTH[odd], 0.55), Counts.at(SCORES[even], TRUTH[even], 0.85)
    expected = Counts(*map(sum, zip(*map(astuple, each), strict=True)))
    assert cross_fitted(choose, SCORES, TRUTH, folds) == expected


def test_platt_scaling_undoes_a_known_distortion() -> None:
    rng = np.random.default_rng(1)
    logits = rng.normal(0, 2, 20_000)
    labels = (rng.random(20_000) < expit(logits)).astype(np.int64)
    distorted = (logits * 3 - 1.5)[:, None]
    shift, temperature = calibrate_binary(distorted, labels, np.ones(20_000))
    assert temperature == pytest.approx(3, rel=0.1)
    assert shift == pytest.approx(1.5, abs=0.15)


def test_temperature_undoes_a_known_scale() -> None:
    rng = np.random.default_rng(2)
    logits = rng.normal(0, 2, (20_000, 4))
    labels = (logits + rng.gumbel(size=logits.shape)).argmax(axis=1)
    assert calibrate_classes(logits * 2.5, labels, np.ones(20_000)) == pytest.approx(2.5, rel=0.1)


def test_aggregation_prefers_the_pooling_that_made_the_truth() -> None:
    rng = np.random.default_rng(3)
    homes = [rng.normal(-4, 1, rng.integers(5, 40)) for _ in range(300)]
    truth = np.array([number % 2 == 0 for number in range(300)])
    for home in np.flatnonzero(truth):
        homes[home][0] = rng.normal(3, 2)  # one photo shows it
    rule, losses = choose_aggregation(homes, truth, np.arange(300) % 5, prevalence=0.5)
    assert rule.method in ("max", "noisy_or")
    assert losses["max"] < losses["mean of top 3"]
    assert rule.slope > 0


def test_listing_confidence_is_fitted_at_the_expected_prevalence() -> None:
    """Homes that say nothing: the confidence must be the prevalence, not the share in the sample."""
    rng = np.random.default_rng(4)
    homes = [rng.normal(0, 1, 8) for _ in range(400)]
    truth = np.arange(400) % 2 == 0
    rule, _ = choose_aggregation(homes, truth, np.arange(400) % 5, prevalence=0.1)
    assert expit(rule.intercept + rule.slope * 1.4) == pytest.approx(0.1, abs=0.05)


def test_homes_that_are_all_held_out_together_leave_a_confidence_of_the_others() -> None:
    """Two homes with it, both of one fold: from the others alone nothing says what such a home looks like."""
    homes = [np.array([3.0, -3.0, -2.0, -4.0])] * 2 + [np.array([-4.0, -3.0, -2.0, -4.0])] * 10
    truth = np.arange(12) < 2
    rule, losses = choose_aggregation(homes, truth, np.where(truth, 0, np.arange(12) % 3), prevalence=1 / 6)
    assert rule.slope > 1, "all homes together do say it"
    assert all(0.3 < loss < 1 for loss in losses.values())


def test_class_threshold_is_the_lowest_that_reaches_the_target() -> None:
    chances = np.array([0.3, 0.5, 0.6, 0.8, 0.9])
    right = np.array([0, 0, 1, 1, 1], dtype=bool)
    assert choose_class_threshold(chances, right, 0.9) == (0.6, Share(3, 3))
    assert choose_class_threshold(chances, right, 0.6) == (0.0, Share(3, 5))
    assert choose_class_threshold(np.array([]), np.array([], dtype=bool), 0.9) == (1.0, Share(0, 0))


def test_class_threshold_out_of_reach_is_the_most_precise_one() -> None:
    chances = np.array([0.3, 0.5, 0.6, 0.8, 0.9])
    right = np.array([0, 1, 0, 1, 0], dtype=bool)
    assert choose_class_threshold(chances, right, 0.9) == (0.5, Share(2, 4))
