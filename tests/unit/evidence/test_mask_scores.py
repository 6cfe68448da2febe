"""Scores of masks, by hand and against scikit-learn."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn import metrics

from kinglet.evidence.mask_scores import (
    class_dice,
    class_iou,
    mask_confusion,
    mean_dice,
    mean_iou,
    pixel_accuracy,
)
from kinglet.runtime.segmentation import VOID

TRUTH = np.array([[0, 0, 1], [1, 1, VOID]], np.uint8)
PREDICTED = np.array([[0, 1, 1], [1, 0, 0]], np.uint8)


def test_pixels_are_counted_by_what_they_are_and_what_they_are_taken_for_and_void_is_not() -> None:
    assert mask_confusion(TRUTH, PREDICTED, 3).tolist() == [[1, 1, 0], [1, 2, 0], [0, 0, 0]]


def test_the_scores_are_those_reckoned_by_hand() -> None:
    confusion = mask_confusion(TRUTH, PREDICTED, 3)
    np.testing.assert_allclose(class_iou(confusion), [1 / 3, 2 / 4, np.nan])
    np.testing.assert_allclose(class_dice(confusion), [2 / 4, 4 / 6, np.nan])
    assert mean_iou(confusion) == pytest.approx(5 / 12)
    assert mean_dice(confusion) == pytest.approx(7 / 12)
    assert pixel_accuracy(confusion) == pytest.approx(3 / 5)


def test_the_scores_are_those_of_scikit_learn() -> None:
    generator = np.random.default_rng(0)
    truth, predicted = generator.integers(0, 4, (2, 30, 20), dtype=np.uint8)
    confusion, flat = mask_confusion(truth, predicted, 4), (truth.ravel(), predicted.ravel())
    np.testing.assert_array_equal(confusion, metrics.confusion_matrix(*flat))
    np.testing.assert_allclose(class_iou(confusion), metrics.jaccard_score(*flat, average=None))
    np.testing.assert_allclose(class_dice(confusion), metrics.f1_score(*flat, average=None))
    assert pixel_accuracy(confusion) == pytest.approx(metrics.accuracy_score(*flat))


def test_many_confusions_are_scored_at_once_and_one_without_pixels_has_no_score() -> None:
    confusion = mask_confusion(TRUTH, PREDICTED, 3)
    many = np.stack([confusion, 2 * confusion, np.zeros((3, 3), np.int64)])
    for score in (mean_iou, mean_dice, pixel_accuracy):
        np.testing.assert_allclose(score(many), [score(confusion), score(confusion), np.nan])


def test_a_class_that_pixels_are_only_taken_for_counts_as_missed() -> None:
    truth, predicted = np.zeros((1, 4), np.uint8), np.array([[0, 0, 0, 1]], np.uint8)
    assert mean_iou(mask_confusion(truth, predicted, 2)) == pytest.approx((3 / 4 + 0) / 2)


@pytest.mark.parametrize(
    ("truth", "predicted", "message"),
    [
        (np.zeros((2, 3), np.uint8), np.zeros((3, 2), np.uint8), r"shape \(2, 3\) .* shape \(3, 2\)"),
        (np.full((1, 1), 2, np.uint8), np.zeros((1, 1), np.uint8), "classes below 2, got 2"),
        (np.zeros((1, 1), np.uint8), np.full((1, 1), VOID, np.uint8), "classes below 2, got 255"),
    ],
)
def test_what_is_no_pair_of_masks_is_refused(truth: np.ndarray, predicted: np.ndarray, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        mask_confusion(truth, predicted, 2)
