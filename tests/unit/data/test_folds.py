"""Folds: even classes, nobody torn apart, and hardly anybody moves when an image is added."""

from __future__ import annotations

import hashlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.model_selection import StratifiedGroupKFold

from kinglet.data.folds import FoldPlan, classes_in_one_fold, plan_folds


def hashes(n: int) -> np.ndarray:
    return np.array([hashlib.sha256(str(number).encode()).hexdigest() for number in range(n)], object)


def plan(labels: np.ndarray, groups: np.ndarray | None = None, n_folds: int = 3, repeat: int = 1) -> FoldPlan:
    groups = np.full(len(labels), "", object) if groups is None else groups
    near = np.arange(len(labels))
    return plan_folds(hashes(len(labels)), labels, groups, near, n_folds=n_folds, repeat=repeat, seed=0)


def table(labels: np.ndarray, fold: np.ndarray) -> np.ndarray:
    """Return the number of images by fold and class."""
    return np.array([[((fold == f) & (labels == c)).sum() for c in np.unique(labels)] for f in np.unique(fold)])


@settings(max_examples=40, deadline=None)
@given(counts=st.lists(st.integers(1, 25), min_size=1, max_size=5), n_folds=st.integers(2, 6), repeat=st.integers(1, 3))
def test_without_groups_no_two_folds_differ_by_more_than_one_image_of_a_class(counts, n_folds, repeat):
    labels = np.repeat(np.arange(len(counts)), counts)
    if len(labels) < n_folds:
        return
    fold = plan(labels, n_folds=n_folds, repeat=repeat).fold
    found = table(labels, fold)
    assert found.shape[0] == n_folds
    assert np.ptp(found, axis=0).max() <= 1
    assert np.ptp(found.sum(axis=1)) <= 1


@settings(max_examples=40, deadline=None)
@given(data=st.data())
def test_what_belongs_together_shares_a_fold_and_no_fold_is_empty(data):
    n = data.draw(st.integers(6, 60))
    labels = np.array(data.draw(st.lists(st.integers(0, 3), min_size=n, max_size=n)))
    groups = np.array(data.draw(st.lists(st.sampled_from(["", "a", "b", "c", "d"]), min_size=n, max_size=n)), object)
    near = np.array(data.draw(st.lists(st.integers(0, n), min_size=n, max_size=n)))
    try:
        found = plan_folds(hashes(n), labels, groups, near, n_folds=3, repeat=1, seed=0)
    except ValueError:
        return
    for name in ("a", "b", "c", "d"):
        assert len(np.unique(found.fold[groups == name])) <= 1
    for number in np.unique(near):
        assert len(np.unique(found.fold[near == number])) == 1
        assert len(np.unique(found.draw[near == number])) == 1
    assert set(found.fold) == {1, 2, 3}


def test_groups_are_spread_as_evenly_as_scikit_learn_spreads_them():
    generator = np.random.default_rng(0)
    groups = np.array([f"video {number}" for number in generator.integers(0, 60, 900)], object)
    of_group = {name: generator.choice(4, p=(0.4, 0.3, 0.2, 0.1)) for name in np.unique(groups)}
    labels = np.array([of_group[name] if generator.random() < 0.8 else generator.integers(4) for name in groups])

    def unevenness(fold: np.ndarray) -> float:
        shares = table(labels, fold) / table(labels, fold).sum(axis=0)
        return float(shares.std(axis=0).mean())

    theirs = np.zeros(900, int)
    for number, (_, held_out) in enumerate(
        StratifiedGroupKFold(5, shuffle=True, random_state=0).split(labels, labels, groups)
    ):
        theirs[held_out] = number
    ours = plan(labels, groups, n_folds=5).fold
    assert unevenness(ours) <= 1.1 * unevenness(theirs)


def test_one_image_more_moves_hardly_any_other():
    labels = np.arange(1001) % 4
    before, after = plan(labels[:1000]).fold, plan(labels).fold[:1000]
    # Each class moves one image over each of two borders at the most.
    assert (before != after).sum() <= 8


def test_the_order_of_the_images_does_not_matter_and_each_repetition_is_another():
    labels = np.arange(300) % 3
    order = np.random.default_rng(0).permutation(300)
    arguments = {"n_folds": 3, "repeat": 1, "seed": 0}
    empty, near = np.full(300, "", object), np.arange(300)
    shuffled = plan_folds(hashes(300)[order], labels[order], empty, near, **arguments)
    np.testing.assert_array_equal(shuffled.fold, plan(labels).fold[order])
    agreement = (plan(labels, repeat=2).fold == plan(labels).fold).mean()
    assert 0.2 < agreement < 0.5


def test_the_draw_is_even_in_every_fold():
    found = plan(np.zeros(3000, int))
    for number in (1, 2, 3):
        assert abs((found.draw[found.fold == number] < 0.1).mean() - 0.1) < 0.03


def test_too_few_independent_images_are_refused():
    groups = np.array(["a"] * 5 + ["b"] * 5, object)
    with pytest.raises(ValueError, match="2 independent images do not make 3 folds"):
        plan(np.zeros(10, int), groups)


def test_classes_whose_images_lie_in_one_fold_are_named():
    assert classes_in_one_fold(np.array([0, 0, 1, 1, 2]), np.array([1, 2, 2, 2, 3])) == [1, 2]
