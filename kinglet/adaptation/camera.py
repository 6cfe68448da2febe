"""A made target domain: real images as one certain other camera would have taken them.

The change is fixed, so that it can be learnt; only the noise differs from image to image. It stands for what cameras
differ by: exposure and tone, stray light, the balance of colours, the lens, the sensor, compression.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter1d

from kinglet.evidence.corruptions.pixels import to_bytes, to_light
from kinglet.evidence.corruptions.shifts import compress, expose
from kinglet.evidence.corruptions.streams import normals, streams_of

# Half the light, a curve that lifts the middle tones, and stray light that leaves no black.
STOPS = -1.0
GAMMA = 0.8
STRAY_LIGHT = 0.04
# Of red, green and blue: a warm cast. Gray images have no cast.
BALANCE = (1.08, 1.0, 0.82)
# Deviation of the blur, as a share of the short edge: 0.84 pixels of 28.
BLUR = 0.03
# Deviation of the sensor's noise in light: of the part that grows with the square root of the light, at white, and of
# the part that black has too.
SHOT_NOISE, READ_NOISE = 0.08, 0.04
JPEG_QUALITY = 40
# The stream of random numbers that is this camera's; the corruptions count theirs from 0.
PURPOSE = 1000


def another_camera(images: NDArray[np.uint8], keys: NDArray[np.uint64], seed: int = 0) -> NDArray[np.uint8]:
    """Return the images as the made camera takes them, same shape and type.

    images: uint8 of shape (n, height, width, 1 or 3). keys: uint64 (n,), from `image_keys`; with `seed` they decide an
    image's noise, whatever stands beside it.
    Raises ValueError for another shape or type, or another number of keys.
    """
    if images.dtype != np.uint8 or images.ndim != 4 or images.shape[3] not in (1, 3) or 0 in images.shape[1:]:
        raise ValueError(f"images must be uint8 (n, height, width, 1 or 3), got {images.dtype} {images.shape}")
    if len(keys) != len(images):
        raise ValueError(f"{len(keys)} keys for {len(images)} images")
    if not len(images):
        return images.copy()
    light = to_light(expose(images, STOPS)) ** np.float32(GAMMA)
    light = STRAY_LIGHT + (1 - STRAY_LIGHT) * light
    if images.shape[3] == 3:
        light = light * np.array(BALANCE, np.float32)
    deviation = BLUR * min(images.shape[1:3])
    for axis in (1, 2):
        light = gaussian_filter1d(light, deviation, axis=axis, mode="nearest")
    noise = normals(streams_of(keys, PURPOSE, seed), images.shape[1:])
    spread = np.sqrt(SHOT_NOISE**2 * light + READ_NOISE**2)
    return compress(to_bytes(light + spread * noise), JPEG_QUALITY)
