"""Which pixels does a model have wrong that a reference has right, and the other way round?"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from kinglet.evidence.mask_scores import VOID


def mask_changes(
    truth: NDArray[np.uint8], of_reference: NDArray[np.uint8], predicted: NDArray[np.uint8], n_classes: int
) -> NDArray[np.int64]:
    """Return the pixels of every class that are newly wrong, and newly right, int64 (2, n_classes).

    truth: class indices or `VOID`, which counts for nothing. of_reference, predicted: class indices of two models.
    Raises ValueError for masks of different shapes.
    """
    if not truth.shape == of_reference.shape == predicted.shape:
        raise ValueError(
            f"masks of one image have one shape, got {truth.shape}, {of_reference.shape}, {predicted.shape}"
        )
    known, was_right, is_right = truth != VOID, of_reference == truth, predicted == truth
    return np.stack(
        [
            np.bincount(truth[known & was_right & ~is_right], minlength=n_classes),
            np.bincount(truth[known & ~was_right & is_right], minlength=n_classes),
        ]
    ).astype(np.int64)
