"""From what a segmenter computes to the class of every pixel of an image, in numpy alone."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from kinglet.runtime.preprocessing import Placement

# In a mask: pixels that nobody has labelled. They are of no class, and nothing is scored there.
VOID = 255
# As many classes as a mask of 8 bits can tell apart beside void.
MAX_CLASSES = 255
# Numbers of one strip of enlarged logits, 4 bytes each: a photo of 100 megapixels is decoded strip by strip.
STRIP_VALUES = 4_000_000

Mask = NDArray[np.uint8]


def decode_masks(
    logits: NDArray[np.float32], placements: Sequence[Placement], sizes: NDArray[np.int64] | Sequence[Sequence[int]]
) -> list[Mask]:
    """Return the most probable class of every pixel of every image, uint8 (height, width) each.

    logits: float32 (n, n_classes, h, w) of a square input, before softmax. placements: of each image in the input.
    sizes: width and height of each mask in pixels, (n, 2): the image's own, or another for a mask of the whole image
    that is larger or smaller. Logits are enlarged bilinearly with half-pixel centres, as torch's
    `interpolate(align_corners=False)` does; of equal logits, the first class is taken.
    Raises ValueError for other shapes, for more classes than a mask can hold, for logits that are not finite, and for
    an image that does not lie in the input whole.
    """
    n = len(placements)
    if logits.ndim != 4 or len(logits) != n or len(sizes) != n or logits.shape[2] != logits.shape[3]:
        raise ValueError(f"logits {logits.shape} and {len(sizes)} sizes are not those of {n} images")
    if not 1 <= logits.shape[1] <= MAX_CLASSES:
        raise ValueError(f"a mask tells 1 to {MAX_CLASSES} classes apart, and these logits are of {logits.shape[1]}")
    if not np.isfinite(logits).all():
        raise ValueError("the model gives logits that are NaN or infinite")
    return [
        decode_mask(of_image, placed, int(size[0]), int(size[1]))
        for of_image, placed, size in zip(logits, placements, sizes, strict=True)
    ]


def decode_mask(logits: NDArray[np.float32], placed: Placement, width: int, height: int) -> Mask:
    """Return the most probable class of every pixel of one image; logits (n_classes, h, w); see `decode_masks`."""
    mask = np.empty((height, width), np.uint8)
    start = 0
    for strip in enlarged_strips(logits, placed, width, height):
        rows = mask[start : start + strip.shape[1]]
        rows[:] = 0
        # Class by class: numpy's argmax over the first axis takes several times as long.
        best = strip[0].copy()
        for label in range(1, len(strip)):
            better = strip[label] > best
            np.copyto(rows, label, where=better)
            np.maximum(best, strip[label], out=best)
        start += len(rows)
    return mask


def enlarged_strips(
    logits: NDArray[np.float32], placed: Placement, width: int, height: int
) -> Iterator[NDArray[np.float32]]:
    """Yield the logits of an image's pixels from top to bottom, float32 (n_classes, rows, width).

    logits: (n_classes, h, w) of the square input. Raises ValueError if the image does not lie in the input whole, or
    for a mask without pixels.
    """
    if min(width, height) < 1:
        raise ValueError(f"a mask of {width} x {height} pixels has no pixel")
    size = placed.input_size
    if placed.left < 0 or placed.top < 0:
        raise ValueError("an image of which the input shows only a part has pixels without an answer")
    n_classes, h, w = logits.shape
    left, right, across = neighbours(width, placed.width * placed.scale_x, placed.left, w / size, w)
    upper, lower, down = neighbours(height, placed.height * placed.scale_y, placed.top, h / size, h)
    # First across, then down: of the rows that lie between two rows of logits only the second step differs.
    wide = logits[:, :, left] * (1 - across) + logits[:, :, right] * across
    rows = max(1, STRIP_VALUES // (n_classes * width))
    for start in range(0, height, rows):
        part = slice(start, start + rows)
        share = down[part, None]
        yield np.asarray(wide[:, upper[part]] * (1 - share) + wide[:, lower[part]] * share, np.float32)


def neighbours(
    count: int, length: float, start: float, scale: float, edge: int
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float32]]:
    """Return between which two logits each of `count` pixels lies along one axis, and the share of the second.

    length, start: of the image in the input, in input pixels. scale: logits per input pixel. edge: logits along the
    axis. What lies outside the outermost centres takes the outermost logit.
    """
    centres = (np.arange(count) + 0.5) * (length / count) + start
    places = (centres * scale - 0.5).clip(0, edge - 1)
    first = np.minimum(np.floor(places).astype(np.int64), edge - 1)
    return first, np.minimum(first + 1, edge - 1), (places - first).astype(np.float32)
