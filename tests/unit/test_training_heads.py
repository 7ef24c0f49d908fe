"""Heads: no site on both sides, masked labels have no say, a class too thin to learn is refused."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from enrich.errors import UsageError
from training.data.labels import UNLABELLED
from training.data.photos import PhotoSet
from training.models.heads import (
    GROUP_CAP,
    FittedHead,
    fit_head,
    macro_average_precision,
    photo_weights,
    site_folds,
)

RNG = np.random.default_rng(7)
SITES = np.repeat([f"site-{n}" for n in range(30)], 6)


def features_of(labels: np.ndarray, noise: float = 0.5) -> np.ndarray:
    """[photos, 8]: the label moves feature `label`; the others are noise."""
    matrix = RNG.normal(0, noise, (len(labels), 8)).astype(np.float32)
    matrix[np.arange(len(labels)), np.maximum(labels, 0)] += 2
    return matrix


def fit(labels: np.ndarray, matrix: np.ndarray, classes: Sequence[str] = (), others: str = "") -> FittedHead:
    """A head fitted on photos of `SITES`, but those of the site `others`."""
    names = tuple(map(str, range(len(labels))))
    split = np.where(others == SITES, "listing", "train")
    known = {"test": tuple(classes)} if classes else {}
    photos = PhotoSet(Path(), names, names, SITES, SITES, split, SITES, SITES, {"test": labels}, known)
    return fit_head(photos, "test", {"whole": matrix}, 0)


def test_a_site_is_never_in_two_folds() -> None:
    labels = RNG.integers(0, 2, len(SITES))
    folds = site_folds(labels, SITES, seed=3)
    assert set(folds) == {0, 1, 2, 3, 4}
    assert all(len(set(folds[site == SITES])) == 1 for site in set(SITES))


def test_held_out_logits_know_nothing_of_their_own_site() -> None:
    """Labels that only the site explains: a leak would make them predictable."""
    labels = np.repeat(RNG.permutation(np.repeat([0, 1], 15)), 6)
    matrix = np.repeat(RNG.normal(0, 1, (30, 40)), 6, axis=0).astype(np.float32)
    fitted = fit(labels, matrix)
    held_out = (fitted.held_out[:, 0] > 0) == (labels == 1)
    learnt = (fitted.head.logits(matrix)[:, 0] > 0) == (labels == 1)
    assert learnt.mean() > 0.9
    assert held_out.mean() < 0.75


def test_unlabelled_photos_change_nothing() -> None:
    labels = np.tile([0, 1, UNLABELLED], 60)
    matrix = features_of(labels)
    before = fit(labels, matrix)
    matrix[labels == UNLABELLED] = 1_000.0
    after = fit(labels, matrix)
    np.testing.assert_array_equal(before.head.weight, after.head.weight)
    np.testing.assert_array_equal(before.held_out, after.held_out)
    assert np.isnan(after.held_out[labels == UNLABELLED]).all()
    assert (after.fold[labels == UNLABELLED] == -1).all()


def test_photos_not_for_training_change_nothing() -> None:
    labels = np.tile([0, 1], 90)
    matrix = features_of(labels)
    one = fit(labels, matrix, others="site-0")
    matrix[SITES == "site-0"] = -50.0
    two = fit(labels, matrix, others="site-0")
    np.testing.assert_array_equal(one.head.weight, two.head.weight)


def test_heads_learn_binary_and_classes() -> None:
    labels = np.tile([0, 1, 2], 60)
    matrix = features_of(labels)
    classes = fit(labels, matrix, ["a", "b", "c"])
    assert classes.head.weight.shape == (3, 8)
    assert (classes.held_out.argmax(axis=1) == labels).mean() > 0.95
    binary = fit((labels == 1).astype(np.int64), matrix)
    assert binary.head.weight.shape == (1, 8)
    even = np.ones(len(labels))
    assert macro_average_precision((labels == 1).astype(np.int64), binary.held_out, even) > 0.95


def test_a_head_of_two_classes_has_two_outputs() -> None:
    labels = np.tile([0, 1], 90)
    fitted = fit(labels, features_of(labels), ["a", "b"])
    assert fitted.head.weight.shape == (2, 8)
    assert (fitted.held_out.argmax(axis=1) == labels).mean() > 0.95


@pytest.mark.parametrize("each", [2, 3, 4])
def test_classes_of_fewer_photos_than_there_are_folds_are_learnt(each: int) -> None:
    labels = np.full(len(SITES), UNLABELLED)
    labels[: 6 * 3 * each : 6] = np.tile([0, 1, 2], each)  # one photo a site
    fitted = fit(labels, features_of(labels), ["a", "b", "c"])
    labelled = labels != UNLABELLED
    assert np.isfinite(fitted.held_out[labelled]).all()
    assert (fitted.fold[labelled] >= 0).all() and len(set(fitted.fold[labelled])) == each


@pytest.mark.parametrize("only", [0, 1])
def test_one_class_only_is_refused(only: int) -> None:
    labels = np.full(len(SITES), only)
    with pytest.raises(UsageError, match=f"head test: class {1 - only} has training photos of 0 sites"):
        fit(labels, features_of(labels))


def test_an_empty_class_is_refused() -> None:
    labels = np.tile([0, 1], 90)
    with pytest.raises(UsageError, match="class attic has training photos of 0 sites"):
        fit(labels, features_of(labels), ["a", "b", "attic"])


def test_a_group_weighs_no_more_than_the_cap() -> None:
    labels = np.array([1] * 40 + [1] * 4 + [0] * 44)
    group = np.array(["villa"] * 40 + ["flat"] * 4 + [f"g{n}" for n in range(44)])
    weight = photo_weights(labels, group)
    assert weight[:40].sum() / weight[40:44].sum() == pytest.approx(GROUP_CAP / 4)
    assert weight.mean() == pytest.approx(1)
