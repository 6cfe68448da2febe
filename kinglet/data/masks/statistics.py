"""What a mask holds, in numbers."""

from __future__ import annotations

import hashlib

import numpy as np
from numpy.typing import NDArray

from kinglet.data.masks.faults import VOID


def class_pixels(mask: NDArray[np.uint8], n_classes: int) -> tuple[NDArray[np.int64], int]:
    """Return the pixels of each class, int64 (n_classes,), and the number of those that are void.

    mask: uint8 (height, width), class indices below `n_classes`, or 255.
    """
    pixels = np.bincount(mask.ravel(), minlength=VOID + 1).astype(np.int64)
    return pixels[:n_classes], int(pixels[VOID])


def mask_words(mask: NDArray[np.uint8]) -> str:
    """Return a mask in words that are equal for equal masks."""
    digest = hashlib.sha256(repr(mask.shape).encode())
    digest.update(np.ascontiguousarray(mask).data)
    return f"mask #{digest.hexdigest()[:8]}"
