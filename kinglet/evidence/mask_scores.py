"""Scores of masks as pure functions over confusions: overlap, Dice, share of right pixels.

A confusion counts pixels, rows by what they are and columns by what they were taken for; void pixels are in none.
Confusions of several images are added up before they are scored, so that large images and large regions count by
their pixels. All functions take confusions of shape (..., n_classes, n_classes), many at once.

Source: Everingham et al. 2015, "The PASCAL Visual Object Classes Challenge: A Retrospective", section 4.3 (intersection
over union of confusions added up, void left out); Dice 1945, "Measures of the Amount of Ecologic Association".
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from kinglet.runtime.segmentation import VOID


def mask_confusion(truth: NDArray[np.uint8], predicted: NDArray[np.uint8], n_classes: int) -> NDArray[np.int64]:
    """Return the counts of pixels, int64 (n_classes, n_classes), of masks of the same shape; void truth is left out.

    truth: class indices or `VOID`. predicted: class indices.
    Raises ValueError for other shapes, or an index that is no class.
    """
    if truth.shape != predicted.shape:
        raise ValueError(f"a mask of shape {truth.shape} cannot be held against one of shape {predicted.shape}")
    known = truth != VOID
    rows, columns = truth[known].astype(np.int64), predicted[known].astype(np.int64)
    if rows.size and max(rows.max(), columns.max()) >= n_classes:
        raise ValueError(f"masks must hold classes below {n_classes}, got {max(rows.max(), columns.max())}")
    return np.bincount(rows * n_classes + columns, minlength=n_classes**2).reshape(n_classes, n_classes)


def class_iou(confusion: NDArray[Any]) -> NDArray[np.float64]:
    """Return the intersection over union of every class, (..., n_classes), NaN for one that is nowhere."""
    right, union = _right(confusion), confusion.sum(-1) + confusion.sum(-2)
    return _ratio(right, union - right)


def class_dice(confusion: NDArray[Any]) -> NDArray[np.float64]:
    """Return twice the intersection over both areas of every class, (..., n_classes), NaN for one that is nowhere."""
    return _ratio(2 * _right(confusion), confusion.sum(-1) + confusion.sum(-2))


def mean_iou(confusion: NDArray[Any]) -> NDArray[np.float64]:
    """Return the mean over the classes of their intersection over union, (...,); NaN without pixels.

    A class counts that some pixel is, or is taken for.
    """
    return _mean(class_iou(confusion))


def mean_dice(confusion: NDArray[Any]) -> NDArray[np.float64]:
    """Return the mean of Dice over the classes that some pixel is, or is taken for, (...,); NaN without pixels."""
    return _mean(class_dice(confusion))


def pixel_accuracy(confusion: NDArray[Any]) -> NDArray[np.float64]:
    """Return the share of the pixels that are taken for what they are, (...,); NaN without pixels."""
    return _ratio(_right(confusion).sum(-1), confusion.sum((-1, -2)))


def _right(confusion: NDArray[Any]) -> NDArray[Any]:
    return np.diagonal(confusion, axis1=-2, axis2=-1)


def _ratio(numerator: NDArray[Any], denominator: NDArray[Any]) -> NDArray[np.float64]:
    result = np.full(np.shape(numerator), np.nan)
    return np.divide(numerator, denominator, out=result, where=denominator != 0)


def _mean(of_classes: NDArray[np.float64]) -> NDArray[np.float64]:
    counted = ~np.isnan(of_classes)
    return _ratio(np.where(counted, of_classes, 0.0).sum(-1), counted.sum(-1))
