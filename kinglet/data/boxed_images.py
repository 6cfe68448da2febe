"""Packed images with the boxes of the objects on them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Objects:
    """What is on one picture. xyxy: float32 (m, 4), in pixels of the picture. labels: int64 (m,), class indices."""

    xyxy: NDArray[np.float32]
    labels: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.labels)


@dataclass(frozen=True)
class BoxedImages:
    """Images of a part of a data set, packed at one size, with their objects.

    packed: uint8 (n, size, size, channels). rows: int64 (n_examples,) into `packed`. insides: int64 (n_examples, 4),
    where in its square the image lies, left, top, right, bottom; around it are borders. objects: of each example, in
    pixels of the square.
    """

    packed: NDArray[np.uint8]
    rows: NDArray[np.int64]
    insides: NDArray[np.int64]
    objects: tuple[Objects, ...]

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def size(self) -> int:
        """The edge length of the squares in pixels."""
        return int(self.packed.shape[1])
