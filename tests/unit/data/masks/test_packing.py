"""Masks in squares lie where their images lie."""

from __future__ import annotations

import numpy as np
import pytest

from kinglet.data.masks.faults import VOID
from kinglet.data.masks.packing import place_mask
from kinglet.data.masks.statistics import class_pixels, mask_words
from kinglet.runtime.preprocessing import resize


@pytest.mark.parametrize("fit", ["pad", "stretch"])
@pytest.mark.parametrize("shape", [(30, 40), (40, 30), (64, 64), (100, 37), (32, 32), (1, 5)])
def test_a_mask_is_placed_as_its_image_is(shape: tuple[int, int], fit: str) -> None:
    """An image that is all white shows in its square what belongs to it; the same by plain loops gives the classes."""
    mask = np.random.default_rng(0).integers(0, 3, shape).astype(np.uint8)
    placed = place_mask(mask, 32, fit)
    inside = resize(np.full((*shape, 1), 255, np.uint8), 32, fit)[:, :, 0] > 0
    np.testing.assert_array_equal(placed != VOID, inside)
    rows, columns = np.flatnonzero(inside.any(axis=1)), np.flatnonzero(inside.any(axis=0))
    for row in range(len(rows)):
        for column in range(len(columns)):
            y = int((row + 0.5) * shape[0] / len(rows))
            x = int((column + 0.5) * shape[1] / len(columns))
            assert placed[rows[row], columns[column]] == mask[y, x]


def test_counts_and_words_of_a_mask() -> None:
    mask = np.array([[0, 2, 2], [VOID, 0, 2]], np.uint8)
    pixels, void = class_pixels(mask, 4)
    assert (pixels.tolist(), void) == ([2, 0, 3, 0], 1)
    assert mask_words(mask) == mask_words(mask.copy()) != mask_words(mask.T)
