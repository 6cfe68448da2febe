import numpy as np
import pytest
import sklearn.metrics
from hypothesis import given
from hypothesis import strategies as st

from kinglet.evidence.metrics import (
    accuracy,
    class_scores,
    confusion_matrix,
    expected_calibration_error,
    log_loss,
    top_k_accuracy,
)


def answers(n, n_classes, seed, sharpness=2.0):
    generator = np.random.default_rng(seed)
    labels = generator.integers(0, n_classes, n)
    logits = generator.normal(0, 1, (n, n_classes))
    logits[np.arange(n), labels] += sharpness
    exponentials = np.exp(logits)
    return labels, (exponentials / exponentials.sum(axis=1, keepdims=True)).astype(np.float32)


@pytest.mark.parametrize(("n", "n_classes", "seed"), [(500, 10, 0), (60, 3, 1), (40, 2, 2), (7, 5, 3), (1, 4, 4)])
def test_scores_agree_with_scikit_learn(n, n_classes, seed):
    labels, probabilities = answers(n, n_classes, seed)
    predicted = probabilities.argmax(axis=1)
    confusion = confusion_matrix(labels, predicted, n_classes)
    classes = np.arange(n_classes)
    np.testing.assert_array_equal(confusion, sklearn.metrics.confusion_matrix(labels, predicted, labels=classes))
    assert accuracy(confusion) == pytest.approx(sklearn.metrics.accuracy_score(labels, predicted))
    scores = class_scores(confusion)
    expected = sklearn.metrics.precision_recall_fscore_support(labels, predicted, labels=classes, zero_division=0)
    for own, other in zip((scores.precision, scores.recall, scores.f1, scores.support), expected, strict=True):
        np.testing.assert_allclose(own, other)
    present = np.unique(labels)
    macro_f1 = sklearn.metrics.f1_score(labels, predicted, labels=present, average="macro", zero_division=0)
    assert scores.macro(scores.f1) == pytest.approx(macro_f1)
    weighted = sklearn.metrics.precision_score(labels, predicted, average="weighted", zero_division=0)
    assert scores.weighted(scores.precision) == pytest.approx(weighted)
    assert log_loss(labels, probabilities) == pytest.approx(
        sklearn.metrics.log_loss(labels, probabilities.astype(np.float64), labels=classes), rel=1e-5
    )


@pytest.mark.parametrize("k", [1, 2, 3, 9])
def test_top_k_agrees_with_scikit_learn(k):
    labels, probabilities = answers(300, 8, 5)
    expected = 1.0 if k >= 8 else sklearn.metrics.top_k_accuracy_score(labels, probabilities, k=k, labels=np.arange(8))
    assert top_k_accuracy(labels, probabilities, k) == pytest.approx(expected)


def test_top_1_is_accuracy_even_with_ties():
    labels, probabilities = np.array([1, 0]), np.array([[0.5, 0.5], [0.5, 0.5]])
    assert top_k_accuracy(labels, probabilities, 1) == 0.5


@pytest.mark.parametrize(("n", "bins", "seed"), [(400, 15, 0), (50, 10, 1), (3, 15, 2)])
def test_calibration_error_agrees_with_a_loop_over_bins(n, bins, seed):
    labels, probabilities = answers(n, 6, seed)
    confidence, correct = probabilities.max(axis=1), probabilities.argmax(axis=1) == labels
    expected = 0.0
    for number in range(bins):
        inside = (confidence > number / bins) & (confidence <= (number + 1) / bins)
        if inside.any():
            expected += inside.mean() * abs(correct[inside].mean() - confidence[inside].mean())
    assert expected_calibration_error(labels, probabilities, bins) == pytest.approx(expected, abs=1e-6)


def test_sure_and_right_is_perfectly_calibrated():
    assert expected_calibration_error(np.array([0, 1]), np.eye(2)) == 0


def test_log_loss_of_an_impossible_answer_is_finite():
    assert log_loss(np.array([0]), np.array([[0.0, 1.0]])) == pytest.approx(-np.log(1e-7))


@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 3)), max_size=40))
def test_scores_stay_in_their_range(pairs):
    labels, predicted = (np.array([pair[side] for pair in pairs], dtype=int) for side in (0, 1))
    confusion = confusion_matrix(labels, predicted, 4)
    scores = class_scores(confusion)
    assert confusion.sum() == len(pairs)
    for values in (scores.precision, scores.recall, scores.f1):
        assert ((values >= 0) & (values <= 1)).all()
        assert 0 <= scores.macro(values) <= 1


@pytest.mark.parametrize(
    ("labels", "predicted", "said"),
    [([0, 1], [0], "2 labels for 1"), ([0, 5], [0, 1], "0..2, got 0..5"), ([0, -1], [0, 1], "got -1..0")],
)
def test_labels_that_do_not_fit_are_refused(labels, predicted, said):
    with pytest.raises(ValueError, match=said):
        confusion_matrix(np.array(labels), np.array(predicted), 3)
