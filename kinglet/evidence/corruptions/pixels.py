"""Between bytes and light, and from one grid of pixels to another, for whole batches.

Batches are of shape (n, height, width, channels); light is float32 with 0 black and 1 white.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

Light = NDArray[np.float32]
# Luma of ITU-R BT.601, which turns colours to gray in Pillow and OpenCV.
LUMA = np.array([0.299, 0.587, 0.114], np.float32)


def to_light(images: NDArray[np.uint8]) -> Light:
    """Return bytes as light."""
    return images.astype(np.float32) * np.float32(1 / 255)


def to_bytes(light: NDArray[np.floating[Any]]) -> NDArray[np.uint8]:
    """Return light as bytes, cut off at black and white, rounded to the nearest."""
    return np.rint(np.clip(light, 0, 1) * 255).astype(np.uint8)


def gray(light: Light) -> Light:
    """Return light without colour, with one channel."""
    return light if light.shape[-1] == 1 else (light @ LUMA)[..., None]


def resize_batch(images: NDArray[np.uint8], height: int, width: int, resample: Image.Resampling) -> NDArray[np.uint8]:
    """Return the images at another size: bit for bit what Pillow makes of each, all at once.

    images: uint8 of shape (n, any height, any width, channels). Pillow resizes rows first, then columns, with bytes
    in between; rows know nothing of each other, so a whole batch is one tall picture.
    """
    n, old_height, old_width, channels = images.shape
    rows = resize_rows(images.transpose(0, 3, 1, 2).reshape(-1, old_width), width, resample)
    columns = rows.reshape(n, channels, old_height, width).transpose(0, 1, 3, 2).reshape(-1, old_height)
    done = resize_rows(columns, height, resample).reshape(n, channels, width, height)
    return np.ascontiguousarray(done.transpose(0, 3, 2, 1))


def resize_rows(rows: NDArray[np.uint8], width: int, resample: Image.Resampling) -> NDArray[np.uint8]:
    """Return rows of pixels, shape (n_rows, any width), at this width."""
    if rows.shape[1] == width:
        return rows
    picture = Image.fromarray(np.ascontiguousarray(rows))
    return np.asarray(picture.resize((width, len(rows)), resample))


def clipped_zoom(light: Light, factor: float) -> Light:
    """Return the middle of the images, enlarged by `factor`, at least 1, to their old size, linearly interpolated."""
    for axis in (1, 2):
        positions, start = zoomed_positions(light.shape[axis], factor)
        light = linear_along(light, positions + start, axis)
    return light


def zoomed_positions(edge: int, factor: float) -> tuple[NDArray[np.float64], int]:
    """Return where the pixels of the enlarged middle lie in it, (edge,), and where the middle begins.

    As scipy.ndimage.zoom puts them: the outermost pixels stay outermost.
    """
    middle = int(np.ceil(edge / factor))
    enlarged = max(round(middle * factor), edge)
    step = (middle - 1) / (enlarged - 1) if enlarged > 1 else 0.0
    trim = (enlarged - edge) // 2
    return (np.arange(edge, dtype=np.float64) + trim) * step, (edge - middle) // 2


def linear_along(light: Light, positions: NDArray[np.float64], axis: int) -> Light:
    """Return the light at these positions along an axis, between pixels linearly interpolated."""
    below = np.clip(np.floor(positions).astype(np.int64), 0, light.shape[axis] - 1)
    above = np.minimum(below + 1, light.shape[axis] - 1)
    share = (positions - below).astype(np.float32).reshape([-1 if place == axis else 1 for place in range(light.ndim)])
    low = light.take(below, axis)
    return low + share * (light.take(above, axis) - low)


def sample(light: Light, rows: NDArray[np.floating[Any]], columns: NDArray[np.floating[Any]], mirror: str) -> Light:
    """Return the light at any positions, bilinear; outside, the image is mirrored.

    rows, columns: float of shape (n, height, width), in pixels. mirror: "edge" repeats the outermost pixel (d c b a |
    a b c d), "centre" does not (d c b | a b c d).
    """
    n, height, width, channels = light.shape
    top, left = np.floor(rows), np.floor(columns)
    down, right = (rows - top).astype(np.float32)[..., None], (columns - left).astype(np.float32)[..., None]
    above, below = (mirrored(top.astype(np.int64) + step, height, mirror) * width for step in (0, 1))
    before, after = (mirrored(left.astype(np.int64) + step, width, mirror) for step in (0, 1))
    flat = light.reshape(-1, channels)
    base = np.arange(n)[:, None, None] * (height * width)

    def at(row: NDArray[np.int64], column: NDArray[np.int64]) -> Light:
        return flat.take(base + row + column, axis=0)

    upper = at(above, before) * (1 - right) + at(above, after) * right
    lower = at(below, before) * (1 - right) + at(below, after) * right
    sampled: Light = upper * (1 - down) + lower * down
    return sampled


def mirrored(places: NDArray[np.int64], edge: int, mirror: str) -> NDArray[np.int64]:
    """Return places along an edge, with those outside mirrored back into it; mirror as in `sample`."""
    if edge == 1:
        return np.zeros_like(places)
    if mirror == "edge":
        places = np.mod(places, 2 * edge)
        return np.minimum(places, 2 * edge - 1 - places)
    places = np.mod(places, 2 * (edge - 1))
    return np.minimum(places, 2 * (edge - 1) - places)
