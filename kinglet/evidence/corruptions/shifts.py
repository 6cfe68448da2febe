"""What changes when another camera takes the picture: exposure, compression, resolution; five steps each."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from kinglet.evidence.corruptions.digital import jpeg_compression
from kinglet.evidence.corruptions.pixels import resize_batch


def expose(images: NDArray[np.uint8], stops: float) -> NDArray[np.uint8]:
    """Return the images exposed `stops` longer: 1 doubles the light on the sensor, -1 halves it; white is the most.

    Source: the transfer curve of IEC 61966-2-1 (sRGB) between bytes and light.
    """
    values = np.arange(256) / 255
    light = np.where(values <= 0.04045, values / 12.92, ((values + 0.055) / 1.055) ** 2.4)
    exposed = np.clip(light * 2.0**stops, 0, 1)
    encoded = np.where(exposed <= 0.0031308, 12.92 * exposed, 1.055 * exposed ** (1 / 2.4) - 0.055)
    return np.rint(255 * encoded).astype(np.uint8)[images]


def compress(images: NDArray[np.uint8], quality: int) -> NDArray[np.uint8]:
    """Return the images as JPEG of this quality gives them back."""
    return jpeg_compression(images, quality, ())


def coarsen(images: NDArray[np.uint8], share: float) -> NDArray[np.uint8]:
    """Return the images taken with this share of the pixels along an edge, and enlarged again."""
    _, height, width, _ = images.shape
    small = resize_batch(images, max(1, round(height * share)), max(1, round(width * share)), Image.Resampling.BILINEAR)
    return resize_batch(small, height, width, Image.Resampling.BILINEAR)


Shift = Callable[[NDArray[np.uint8], float], NDArray[np.uint8]]

# The steps grow from what two cameras of one series differ by to what a person would complain about.
SHIFTS: dict[str, tuple[Shift, tuple[float, ...]]] = {
    "darker": (expose, (-0.5, -1, -1.5, -2, -3)),
    "brighter": (expose, (0.25, 0.5, 0.75, 1, 1.5)),
    "jpeg_quality": (compress, (90, 75, 50, 30, 10)),  # type: ignore[dict-item]  # whole numbers
    "resolution": (coarsen, (0.8, 0.65, 0.5, 0.4, 0.25)),
}
UNITS = {"darker": "stops", "brighter": "stops", "jpeg_quality": "of 100", "resolution": "of the edge"}
