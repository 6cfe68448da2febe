"""Scores of a classifier as pure functions over labels and probabilities; zero where a ratio is undefined."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Labels = NDArray[np.integer[Any]]
Probabilities = NDArray[np.floating[Any]]

# What log loss counts a probability of zero as; float32 cannot tell smaller ones from it.
SMALLEST_PROBABILITY = 1e-7


@dataclass(frozen=True)
class ClassScores:
    """Scores of every class, float64 of shape (n_classes,), in [0, 1]; support: number of examples, int64."""

    precision: NDArray[np.float64]
    recall: NDArray[np.float64]
    f1: NDArray[np.float64]
    support: NDArray[np.int64]

    def macro(self, scores: NDArray[np.float64]) -> float:
        """Return the plain mean over the classes that have examples; 0 if none has."""
        present = self.support > 0
        return float(scores[present].mean()) if present.any() else 0.0

    def weighted(self, scores: NDArray[np.float64]) -> float:
        """Return the mean over classes weighted by their number of examples; 0 without examples."""
        return float(scores @ self.support / self.support.sum()) if self.support.any() else 0.0


def confusion_matrix(labels: Labels, predicted: Labels, n_classes: int) -> NDArray[np.int64]:
    """Return counts of shape (n_classes, n_classes): rows are the labels, columns the predictions.

    labels, predicted: integers in [0, n_classes), shape (n,).
    Raises ValueError if lengths differ or a value is out of range.
    """
    check_labels(labels, len(predicted), n_classes)
    check_labels(predicted, len(labels), n_classes)
    cells = np.bincount(labels.astype(np.int64) * n_classes + predicted.astype(np.int64), minlength=n_classes**2)
    return cells.reshape(n_classes, n_classes)


def accuracy(confusion: NDArray[np.int64]) -> float:
    """Return the share of examples predicted right, in [0, 1]; 0 without examples."""
    return float(np.trace(confusion) / total) if (total := confusion.sum()) else 0.0


def class_scores(confusion: NDArray[np.int64]) -> ClassScores:
    """Return precision, recall, F1 and support of every class from a confusion matrix."""
    right = np.diag(confusion).astype(np.float64)
    support, predicted = confusion.sum(axis=1), confusion.sum(axis=0)
    return ClassScores(
        precision=ratio(right, predicted),
        recall=ratio(right, support),
        f1=ratio(2 * right, support + predicted),
        support=support,
    )


def top_k_accuracy(labels: Labels, probabilities: Probabilities, k: int) -> float:
    """Return the share of examples whose label is among the k most probable classes, in [0, 1].

    A tie counts for the class with the lower number. k at or above the number of classes gives 1.
    Raises ValueError if k < 1 or shapes differ.
    """
    found = in_top_k(labels, probabilities, k)
    return float(found.mean()) if len(found) else 0.0


def in_top_k(labels: Labels, probabilities: Probabilities, k: int) -> NDArray[np.bool_]:
    """Return which labels are among the k most probable classes, bool of shape (n,); see `top_k_accuracy`."""
    if k < 1:
        raise ValueError(f"k must be at least 1, got {k}")
    check_labels(labels, len(probabilities), probabilities.shape[1])
    own = probabilities[np.arange(len(labels)), labels][:, None]
    classes = np.arange(probabilities.shape[1])
    ahead = (probabilities > own) | ((probabilities == own) & (classes < labels[:, None]))
    return np.asarray(ahead.sum(axis=1) < k)


def log_loss(labels: Labels, probabilities: Probabilities) -> float:
    """Return the mean negative natural logarithm of the label's probability; at least 0, lower is better.

    probabilities: shape (n, n_classes). Probabilities below 1e-7 count as 1e-7.
    """
    check_labels(labels, len(probabilities), probabilities.shape[1])
    if not len(labels):
        return 0.0
    own = probabilities[np.arange(len(labels)), labels].astype(np.float64)
    return float(-np.log(np.clip(own, SMALLEST_PROBABILITY, 1)).mean())


def expected_calibration_error(labels: Labels, probabilities: Probabilities, n_bins: int = 15) -> float:
    """Return the mean distance between confidence and accuracy over bins of equal width, weighted by count; in [0, 1].

    Bins are open on the left and closed on the right, as in the paper.
    Source: Guo et al. 2017, "On Calibration of Modern Neural Networks", equation 3.
    """
    check_labels(labels, len(probabilities), probabilities.shape[1])
    return calibration_gap(probabilities.argmax(axis=1) == labels, probabilities.max(axis=1), n_bins)


def calibration_gap(correct: NDArray[np.bool_], confidence: NDArray[np.floating[Any]], n_bins: int = 15) -> float:
    """Return the expected calibration error of answers that are known only as right or wrong; in [0, 1].

    correct: shape (n,). confidence: probability of the class that was predicted, shape (n,).
    """
    if not len(correct):
        return 0.0
    sure = confidence.astype(np.float64)
    bins = np.clip(np.ceil(sure * n_bins).astype(np.int64) - 1, 0, n_bins - 1)
    gaps = np.bincount(bins, weights=correct - sure, minlength=n_bins)
    return float(np.abs(gaps).sum() / len(correct))


def ratio(numerator: NDArray[Any], denominator: NDArray[Any]) -> NDArray[np.float64]:
    """Return numerator / denominator in float64, 0 where the denominator is 0."""
    return np.divide(numerator, denominator, out=np.zeros(np.shape(numerator), np.float64), where=denominator != 0)


def check_labels(labels: Labels, expected_length: int, n_classes: int) -> None:
    """Raise ValueError unless there are `expected_length` labels, all in [0, n_classes)."""
    if len(labels) != expected_length:
        raise ValueError(f"{len(labels)} labels for {expected_length} predictions")
    if len(labels) and not (labels.min() >= 0 and labels.max() < n_classes):
        raise ValueError(f"labels must lie in 0..{n_classes - 1}, got {labels.min()}..{labels.max()}")
