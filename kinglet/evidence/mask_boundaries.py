"""Do predicted boundaries lie where the true ones do? Counts of boundary pixels, and their F1.

The area of a thin structure is mostly its boundary, and that of a large one hardly at all: overlap alone says little
about where its edge lies.

Source: Csurka, Larlus and Perronnin 2013, "What is a good evaluation measure for semantic segmentation?", section 3: a
boundary pixel counts as right within 0.75 % of the image's diagonal of a boundary pixel of the same class.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import distance_transform_edt

from kinglet.evidence.mask_scores import VOID

# Of the image's diagonal.
TOLERANCE = 0.0075
# The columns of `boundary_counts`.
PREDICTED, PREDICTED_RIGHT, TRUE, TRUE_RIGHT = range(4)


def boundary_counts(truth: NDArray[np.uint8], predicted: NDArray[np.uint8], n_classes: int) -> NDArray[np.int64]:
    """Return boundary pixels of every class, int64 (n_classes, 4).

    truth, predicted: class indices, (height, width); truth may be `VOID`, and no boundary lies there or beside it.
    Columns: those of the prediction, those of them that lie near a true one of the class, the true ones, those of them
    that lie near a predicted one.
    """
    predicted = np.where(truth == VOID, np.uint8(VOID), predicted)
    reach = TOLERANCE * math.hypot(*truth.shape)
    of_truth, of_prediction = boundaries(truth), boundaries(predicted)
    counts = np.zeros((n_classes, 4), np.int64)
    for label in range(n_classes):
        true, found = of_truth & (truth == label), of_prediction & (predicted == label)
        counts[label] = (
            np.count_nonzero(found),
            count_near(found, true, reach),
            np.count_nonzero(true),
            count_near(true, found, reach),
        )
    return counts


def boundaries(mask: NDArray[np.uint8]) -> NDArray[np.bool_]:
    """Return which pixels have a pixel of another class above, below, left or right of them; void is no class."""
    found = np.zeros(mask.shape, bool)
    for one, other in (
        ((slice(1, None), slice(None)), (slice(None, -1), slice(None))),
        ((slice(None), slice(1, None)), (slice(None), slice(None, -1))),
    ):
        differ = (mask[one] != mask[other]) & (mask[one] != VOID) & (mask[other] != VOID)
        found[one] |= differ
        found[other] |= differ
    return found


def count_near(pixels: NDArray[np.bool_], others: NDArray[np.bool_], reach: float) -> int:
    """Return how many of the pixels lie at most `reach` pixels from one of the others."""
    if not (pixels.any() and others.any()):
        return 0
    # Outside the rectangle that holds all of them nothing is asked, and nothing is near.
    rows, columns = (np.flatnonzero((pixels | others).any(axis=axis)) for axis in (1, 0))
    inside = slice(rows[0], rows[-1] + 1), slice(columns[0], columns[-1] + 1)
    distances = distance_transform_edt(~others[inside])
    return int(np.count_nonzero(distances[pixels[inside]] <= reach))


def boundary_f1(counts: NDArray[np.int64]) -> NDArray[np.float64]:
    """Return the F1 of every image and class, float64 (..., n_classes), NaN where neither mask has the boundary.

    counts: (..., n_classes, 4) of `boundary_counts`.
    """
    precision, recall = (
        np.divide(counts[..., right], counts[..., of], out=np.zeros(counts.shape[:-1]), where=counts[..., of] > 0)
        for right, of in ((PREDICTED_RIGHT, PREDICTED), (TRUE_RIGHT, TRUE))
    )
    both = precision + recall
    f1 = np.divide(2 * precision * recall, both, out=np.zeros_like(both), where=both > 0)
    return np.where((counts[..., PREDICTED] > 0) | (counts[..., TRUE] > 0), f1, np.nan)
