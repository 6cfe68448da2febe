"""What happens after the sensor: contrast lost, lines bent, pixels too coarse, too much compression.

Signature as in `noise`.
"""

from __future__ import annotations

import io
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy.ndimage import gaussian_filter1d

from kinglet.evidence.corruptions.pixels import resize_batch, sample, to_bytes, to_light
from kinglet.evidence.corruptions.streams import Streams, between

# Pixels along the edge of a block, and the rows that a JPEG has at most.
JPEG_BLOCK, JPEG_HIGHEST = 8, 65_500


def contrast(images: NDArray[np.uint8], share: float, _streams: Streams) -> NDArray[np.uint8]:
    """Return the images with this share of their distance to their mean colour."""
    light = to_light(images)
    means = light.mean(axis=(1, 2), keepdims=True, dtype=np.float64).astype(np.float32)
    return to_bytes((light - means) * np.float32(share) + means)


def elastic_transform(
    images: NDArray[np.uint8], setting: tuple[float, float, float], streams: Streams
) -> NDArray[np.uint8]:
    """Return the images sheared and bent.

    setting: (farthest local shift, its smoothness, farthest shift of three corners), each as a share of the short
    edge.
    """
    _, height, width, _ = images.shape
    shift, smoothness, jitter = (share * min(height, width) for share in setting)
    rows, columns = sheared(height, width, between(streams, -jitter, jitter, (3, 2)))
    light = sample(to_light(images), rows, columns, mirror="centre")
    if shift:
        bends = shift * smooth_fields(between(streams, -1, 1, (2, height, width)), smoothness)
        down, right = np.arange(height)[:, None] + bends[:, 0], np.arange(width) + bends[:, 1]
        light = sample(light, down, right, mirror="edge")
    return to_bytes(light)


def sheared(height: int, width: int, jitter: NDArray[np.float32]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return from where every pixel comes when three points of the image move; rows and columns, (n, height, width).

    jitter: in pixels, (n, 3, 2), of points around the centre, two thirds of the short edge apart.
    """
    reach = min(height, width) // 3
    corners = np.array([(1, 1), (1, -1), (-1, -1)]) * reach + np.array([height // 2, width // 2])
    before = np.concatenate([corners, np.ones((3, 1))], axis=1)
    after = before + np.pad(jitter.astype(np.float64), ((0, 0), (0, 0), (0, 1)))
    # Positions in the new image times this give those in the old one.
    back = (
        np.linalg.solve(after, np.broadcast_to(before, after.shape))
        if reach
        else np.tile(np.eye(3), (len(after), 1, 1))
    )
    down, right = np.arange(height)[:, None], np.arange(width)
    rows, columns = (
        back[:, 0, axis, None, None] * down + back[:, 1, axis, None, None] * right + back[:, 2, axis, None, None]
        for axis in (0, 1)
    )
    return rows, columns


def smooth_fields(fields: NDArray[np.float32], deviation: float) -> NDArray[Any]:
    """Return fields of shape (n, k, height, width) under a normal blur, cut at 3 deviations, mirrored outside."""
    # The blur of an axis as a matrix: as fast for a deviation of 170 pixels as for one of 2.
    across, along = (
        gaussian_filter1d(np.eye(edge), deviation, axis=0, mode="reflect", truncate=3).astype(np.float32)
        for edge in fields.shape[2:]
    )
    return across @ fields @ along.T


def pixelate(images: NDArray[np.uint8], share: float, _streams: Streams) -> NDArray[np.uint8]:
    """Return the images with so coarse pixels that this share of their edges' number is left."""
    _, height, width, _ = images.shape
    coarse = max(1, int(height * share)), max(1, int(width * share))
    small = resize_batch(images, *coarse, Image.Resampling.BOX)
    return resize_batch(small, height, width, Image.Resampling.BOX)


def jpeg_compression(images: NDArray[np.uint8], quality: int, _streams: Streams) -> NDArray[np.uint8]:
    """Return the images as JPEG of this quality, 1 to 95, gives them back."""
    if images.shape[3] == 1:
        return gray_through_jpeg(images, quality)
    return np.stack([through_jpeg(image, quality) for image in images])


def gray_through_jpeg(images: NDArray[np.uint8], quality: int) -> NDArray[np.uint8]:
    """Return gray images, (n, height, width, 1), written as JPEG and read again: bit for bit as each alone.

    Small ones go through it in tall pictures: 185 µs for an image of 28 px alone, 16 in 128 at once.
    """
    # JPEG fills up its blocks with the outermost pixels, and no gray block knows of another. (Colours do: their
    # pixels are smoothed across blocks.)
    n, height, width, _ = images.shape
    filled = np.pad(images[..., 0], ((0, 0), (0, -height % JPEG_BLOCK), (0, -width % JPEG_BLOCK)), mode="edge")
    rows, columns = filled.shape[1:]
    at_once = max(1, JPEG_HIGHEST // rows)
    written = np.empty_like(filled)
    for start in range(0, n, at_once):
        some = filled[start : start + at_once]
        written[start : start + at_once] = through_jpeg(some.reshape(-1, columns, 1), quality).reshape(some.shape)
    return written[:, :height, :width, None]


def through_jpeg(image: NDArray[np.uint8], quality: int) -> NDArray[np.uint8]:
    """Return one image, (height, width, 1 or 3), written as JPEG and read again."""
    written = io.BytesIO()
    Image.fromarray(image[:, :, 0] if image.shape[2] == 1 else image).save(written, "JPEG", quality=quality)
    return np.asarray(Image.open(written)).reshape(image.shape)
