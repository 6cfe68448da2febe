import time

import numpy as np
import pytest
import scipy.stats

from kinglet.evidence.bootstrap import (
    Interval,
    accuracy_interval,
    examples_to_establish,
    f1_macro_interval,
    paired_interval,
)
from kinglet.evidence.metrics import class_scores, confusion_matrix


def test_accuracy_interval_agrees_with_scipys_bootstrap():
    correct = np.random.default_rng(0).random(400) < 0.9
    reference = scipy.stats.bootstrap(
        (correct.astype(float),), np.mean, n_resamples=5000, method="percentile", random_state=0
    ).confidence_interval
    own = accuracy_interval(correct)
    assert own.value == pytest.approx(correct.mean())
    assert (own.low, own.high) == pytest.approx((reference.low, reference.high), abs=0.004)


def test_paired_interval_agrees_with_resampling_the_examples():
    generator = np.random.default_rng(1)
    first = generator.random(600) < 0.9
    second = np.where(generator.random(600) < 0.93, first, ~first)
    drawn = generator.integers(0, 600, (4000, 600))
    differences = first[drawn].mean(axis=1) - second[drawn].mean(axis=1)
    low, high = np.quantile(differences, [0.025, 0.975])
    own = paired_interval(first, second)
    assert own.value == pytest.approx(first.mean() - second.mean())
    assert (own.low, own.high) == pytest.approx((low, high), abs=0.003)


def test_macro_f1_interval_agrees_with_resampling_the_examples():
    generator = np.random.default_rng(2)
    labels = generator.integers(0, 4, 300)
    predicted = np.where(generator.random(300) < 0.8, labels, generator.integers(0, 4, 300))
    values = []
    for _ in range(3000):
        rows = generator.integers(0, 300, 300)
        scores = class_scores(confusion_matrix(labels[rows], predicted[rows], 4))
        values.append(scores.macro(scores.f1))
    own = f1_macro_interval(confusion_matrix(labels, predicted, 4))
    assert (own.low, own.high) == pytest.approx(tuple(np.quantile(values, [0.025, 0.975])), abs=0.006)


def test_intervals_hold_the_true_accuracy_as_often_as_they_say():
    generator = np.random.default_rng(3)
    held = [
        interval.low <= 0.85 <= interval.high
        for seed in range(400)
        for interval in [accuracy_interval(generator.random(300) < 0.85, resamples=2000, seed=seed)]
    ]
    assert 0.91 < np.mean(held) < 0.98


def test_an_interval_without_mistakes_still_has_width():
    own = accuracy_interval(np.ones(50, bool))
    exact = scipy.stats.binomtest(50, 50).proportion_ci(method="exact")
    assert (own.low, own.high) == pytest.approx((exact.low, 1))
    same = paired_interval(np.ones(50, bool), np.ones(50, bool))
    assert same.value == 0
    assert same.low < 0 < same.high
    assert f1_macro_interval(np.diag([25, 25])).low < 1


def test_the_same_seed_gives_the_same_interval():
    correct = np.random.default_rng(4).random(500) < 0.7
    assert accuracy_interval(correct, seed=7) == accuracy_interval(correct, seed=7)


def test_resampling_ten_thousand_predictions_is_fast():
    generator = np.random.default_rng(5)
    labels = generator.integers(0, 10, 10_000)
    predicted = np.where(generator.random(10_000) < 0.93, labels, generator.integers(0, 10, 10_000))
    confusion = confusion_matrix(labels, predicted, 10)
    started = time.process_time()
    f1_macro_interval(confusion)
    assert time.process_time() - started < 10  # Far above the 0.3 s it takes: a wrong order of growth is what fails.


@pytest.mark.parametrize(
    ("value", "low", "limit", "expected"),
    [
        (-0.002, -0.006, -0.01, 1000),  # shown already
        (-0.005, -0.015, -0.01, 4000),  # twice the width, four times the images
        (-0.012, -0.02, -0.01, None),  # no number of images would show it
    ],
)
def test_examples_to_establish(value, low, limit, expected):
    assert examples_to_establish(Interval(value, low, 0.0), limit, 1000) == expected


def test_wrong_inputs_are_refused():
    with pytest.raises(ValueError, match="same examples"):
        paired_interval(np.ones(3, bool), np.ones(4, bool))
    with pytest.raises(ValueError, match="at least one"):
        accuracy_interval(np.ones(0, bool))
