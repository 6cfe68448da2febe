"""Noise of a sensor: of its electronics, of light itself, of broken pixels.

Every corruption takes uint8 images (n, height, width, 1 or 3), the setting of its severity, and a stream of random
numbers per image, and returns images of the same shape and type.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from kinglet.evidence.corruptions.pixels import to_bytes, to_light
from kinglet.evidence.corruptions.streams import Streams, normals, poissons, uniforms


def gaussian_noise(images: NDArray[np.uint8], deviation: float, streams: Streams) -> NDArray[np.uint8]:
    """Return the images with normal noise of this standard deviation, in units of white."""
    return to_bytes(to_light(images) + np.float32(deviation) * normals(streams, images.shape[1:]))


def shot_noise(images: NDArray[np.uint8], photons: float, streams: Streams) -> NDArray[np.uint8]:
    """Return the images as so many photons per white pixel would draw them."""
    # In float64, as a Poisson mean.
    return to_bytes(poissons(streams, images / 255.0 * photons) / np.float32(photons))


def impulse_noise(images: NDArray[np.uint8], share: float, streams: Streams) -> NDArray[np.uint8]:
    """Return the images with this share of their values black or white, half each."""
    drawn = uniforms(streams, images.shape[1:])
    white = np.where(drawn < share, np.uint8(255), images)
    return np.where(drawn < share / 2, np.uint8(0), white)
