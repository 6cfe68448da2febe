"""Packed images with the class of every pixel."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from kinglet.runtime.segmentation import VOID


@dataclass(frozen=True)
class MaskedImages:
    """Images of a part of a data set, packed at one size, with their masks.

    packed: uint8 (n, size, size, channels). masks: uint8 (n, size, size), class indices or `VOID`, which bars around an
    image are as well; row i of it belongs to row i of `packed`. rows: int64 (n_examples,) into both.
    """

    packed: NDArray[np.uint8]
    masks: NDArray[np.uint8]
    rows: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def size(self) -> int:
        """The edge length of the squares in pixels."""
        return int(self.packed.shape[1])

    def counts(self, n_classes: int) -> NDArray[np.int64]:
        """Return how many pixels of these images show each class, int64 (n_classes,); void is not counted."""
        total = np.zeros(VOID + 1, np.int64)
        for row in self.rows.tolist():
            total += np.bincount(np.asarray(self.masks[row]).ravel(), minlength=VOID + 1)
        return total[:n_classes]
