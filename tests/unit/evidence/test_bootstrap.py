import time

import numpy as np
import pytest
import scipy.stats

from kinglet.evidence.bootstrap import (
    Cells,
    Interval,
    accuracy_interval,
    bootstrap_intervals,
    cells_of,
    draw_counts,
    examples_to_establish,
    f1_macro_interval,
    joined,
    leave_one_out,
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


# What a data set of 4 classes fixes: the images of each class; the model's accuracy differs between them.
LABELS = np.repeat([0, 1, 2, 3], [160, 120, 80, 40])
SHARES = np.array([0.95, 0.85, 0.7, 0.6])


def draw_predictions(generator, n_data_sets):
    """Predictions of shape (n_data_sets, 400): right with the class's probability, else any other class."""
    right = generator.random((n_data_sets, len(LABELS))) < SHARES[LABELS]
    return np.where(right, LABELS, (LABELS + generator.integers(1, 4, right.shape)) % 4)


@pytest.mark.parametrize("method", ["percentile", "bca"])
def test_stratified_accuracy_intervals_cover_as_often_as_they_say(method):
    predicted = draw_predictions(np.random.default_rng(11), 1200)
    truth = SHARES[LABELS].mean()
    held = [
        found.low <= truth <= found.high
        for seed, row in enumerate(predicted)
        for found in [accuracy_interval(row == LABELS, strata=LABELS, method=method, resamples=1000, seed=seed)]
    ]
    assert 0.93 <= np.mean(held) <= 0.97


@pytest.mark.parametrize("method", ["percentile", "bca"])
def test_stratified_f1_intervals_cover_as_often_as_they_say(method):
    predicted = draw_predictions(np.random.default_rng(12), 1000)
    # The F1 of the whole population: a data set of a million images would have these shares.
    shares = np.full((4, 4), 0.0)
    for label in range(4):
        shares[label] = (1 - SHARES[label]) / 3
        shares[label, label] = SHARES[label]
    population = (shares * np.bincount(LABELS)[:, None] * 10_000).round().astype(np.int64)
    truth = class_scores(population).f1.mean()
    held = [
        found.low <= truth <= found.high
        for seed, row in enumerate(predicted)
        for found in [
            f1_macro_interval(
                confusion_matrix(LABELS, row, 4), stratified=True, method=method, resamples=800, seed=seed
            )
        ]
    ]
    assert 0.93 <= np.mean(held) <= 0.97


@pytest.mark.parametrize("method", ["percentile", "bca"])
def test_paired_intervals_cover_as_often_as_they_say(method):
    generator = np.random.default_rng(13)
    # Only the first is right on 4 % of the images, only the second on 7 %.
    kinds = generator.choice(3, p=[0.04, 0.07, 0.89], size=(1200, 600))
    held = [
        found.low <= -0.03 <= found.high
        for seed, row in enumerate(kinds)
        for found in [paired_interval(row != 1, row != 0, method=method, resamples=1000, seed=seed)]
    ]
    assert 0.93 <= np.mean(held) <= 0.97


def test_bca_agrees_with_scipys():
    correct = np.random.default_rng(14).random(150) < 0.93
    reference = scipy.stats.bootstrap(
        (correct.astype(float),), np.mean, n_resamples=20_000, method="BCa", rng=np.random.default_rng(0)
    ).confidence_interval
    own = accuracy_interval(correct, method="bca", resamples=20_000)
    plain = accuracy_interval(correct, resamples=20_000)
    # A count is the finest step that the two may differ by.
    assert (own.low, own.high) == pytest.approx((reference.low, reference.high), abs=1 / 150 + 1e-9)
    assert own.low < plain.low


def test_bca_of_a_skewed_score_agrees_with_scipys_to_the_noise_of_resampling():
    generator = np.random.default_rng(15)
    values = generator.integers(0, 6, 80) ** 2
    cells, examples = cells_of(values)

    def deviation(counts):
        mean = counts @ values[examples] / 80
        return np.sqrt(np.maximum(0, counts @ values[examples] ** 2 / 80 - mean**2))[:, None]

    (own,) = bootstrap_intervals(deviation, cells, method="bca", resamples=40_000)
    reference = scipy.stats.bootstrap(
        (values,), np.std, n_resamples=40_000, method="BCa", rng=np.random.default_rng(1)
    ).confidence_interval
    assert own.value == pytest.approx(np.std(values))
    assert (own.low, own.high) == pytest.approx((reference.low, reference.high), abs=0.06)


def test_resampling_within_classes_leaves_out_the_chance_of_the_class_mix():
    labels = np.repeat([0, 1], 200)
    correct = labels == 0  # One class always right, the other never: within the classes nothing is left to chance.
    assert accuracy_interval(correct, strata=labels) == Interval(0.5, 0.5, 0.5)
    assert accuracy_interval(correct).high > 0.54


def test_classes_of_a_single_example_are_drawn_together():
    labels = np.array([0, 0, 0, 1, 2, 3, 4, 4])
    assert joined(labels).tolist() == [0, 0, 0, 5, 5, 5, 4, 4]
    assert joined(np.arange(4)).tolist() == [4, 4, 4, 4]
    assert joined(np.array([0, 1, 2]), np.array([3, 1, 1])).tolist() == [0, 3, 3]


def test_a_lone_single_example_is_drawn_with_the_smallest_class():
    assert joined(np.array([0, 0, 0, 1, 1, 2])).tolist() == [0, 0, 0, 3, 3, 3]
    assert joined(np.array([7])).tolist() == [1]


@pytest.mark.parametrize("method", ["percentile", "bca"])
def test_one_example_a_class_leaves_an_interval_as_wide_as_without_classes(method):
    labels = np.arange(20)
    correct = labels < 15
    found = accuracy_interval(correct, strata=labels, method=method)
    assert found == accuracy_interval(correct, method=method)
    assert found.low < 0.6 < 0.85 < found.high
    confusion = confusion_matrix(labels, np.where(correct, labels, 0), 20)
    of_classes = f1_macro_interval(confusion, stratified=True, method=method)
    assert of_classes == f1_macro_interval(confusion, method=method)
    assert of_classes.high - of_classes.low > 0.2


def test_intervals_of_few_examples_a_class_cover_the_truth():
    """Forty classes of one example and one of ten; the truth is that each is right with 70 %."""
    labels = np.concatenate([np.arange(40), np.full(10, 40)])
    covered = 0
    for seed in range(400):
        correct = np.random.default_rng(seed).random(50) < 0.7
        found = accuracy_interval(correct, strata=labels, resamples=1000, seed=seed)
        covered += found.low <= 0.7 <= found.high
    assert 0.9 <= covered / 400 <= 0.98


def test_blocks_of_resamples_are_bounded_and_complete(monkeypatch):
    monkeypatch.setattr("kinglet.evidence.bootstrap.CELLS_PER_BLOCK", 70)
    blocks = list(draw_counts(Cells(np.array([3, 4, 5]), np.array([0, 0, 1])), 100, seed=0))
    assert [len(block) for block in blocks] == [23, 23, 23, 23, 8]
    drawn = np.concatenate(blocks)
    assert (drawn[:, :2].sum(axis=1) == 7).all()
    assert (drawn[:, 2] == 5).all()
    monkeypatch.setattr("kinglet.evidence.bootstrap.CELLS_PER_BLOCK", 6)
    left_out = list(leave_one_out(Cells(np.array([3, 4, 5]), np.array([0, 0, 1]))))
    assert [block.tolist() for block in left_out] == [[[2, 4, 5], [3, 3, 5]], [[3, 4, 4]]]
