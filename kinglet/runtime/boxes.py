"""How much boxes share."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray


def box_iou(one: NDArray[np.floating[Any]], other: NDArray[np.floating[Any]]) -> NDArray[np.float64]:
    """Return the intersection over union of all pairs of boxes, float64 (len(one), len(other)), in [0, 1].

    one, other: xyxy, (n, 4) and (m, 4); two boxes without an area share nothing.
    """
    first, second = one.astype(np.float64).T[:, :, None], other.astype(np.float64).T[:, None, :]
    width = np.minimum(first[2], second[2]) - np.maximum(first[0], second[0])
    height = np.minimum(first[3], second[3]) - np.maximum(first[1], second[1])
    shared = width.clip(0) * height.clip(0)
    areas = [(corners[2] - corners[0]) * (corners[3] - corners[1]) for corners in (first, second)]
    either = areas[0] + areas[1] - shared
    return np.divide(shared, either, out=np.zeros_like(shared), where=either > 0)
