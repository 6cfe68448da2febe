"""The fifteen kinds of corruption, in five severities each, by name; and the shifts that another camera brings.

Own code, after the published settings: the packages that carry the authors' functions take one image at a time, ask
for pictures of at least 32 pixels, and draw from one global state of random numbers.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kinglet.evidence.corruptions.blur import defocus_blur, glass_blur, motion_blur, zoom_blur
from kinglet.evidence.corruptions.digital import contrast, elastic_transform, jpeg_compression, pixelate
from kinglet.evidence.corruptions.noise import gaussian_noise, impulse_noise, shot_noise
from kinglet.evidence.corruptions.severities import SEVERITIES, published_for
from kinglet.evidence.corruptions.shifts import SHIFTS
from kinglet.evidence.corruptions.streams import Streams, streams_of
from kinglet.evidence.corruptions.weather import brightness, fog, frost, snow

Corruption = Callable[[NDArray[np.uint8], Any, Streams], NDArray[np.uint8]]

KINDS: dict[str, Corruption] = {
    "gaussian_noise": gaussian_noise,
    "shot_noise": shot_noise,
    "impulse_noise": impulse_noise,
    "defocus_blur": defocus_blur,
    "glass_blur": glass_blur,
    "motion_blur": motion_blur,
    "zoom_blur": zoom_blur,
    "snow": snow,
    "frost": frost,
    "fog": fog,
    "brightness": brightness,
    "contrast": contrast,
    "elastic_transform": elastic_transform,
    "pixelate": pixelate,
    "jpeg_compression": jpeg_compression,
}
FAMILIES = {
    "noise": ("gaussian_noise", "shot_noise", "impulse_noise"),
    "blur": ("defocus_blur", "glass_blur", "motion_blur", "zoom_blur"),
    "weather": ("snow", "frost", "fog", "brightness"),
    "digital": ("contrast", "elastic_transform", "pixelate", "jpeg_compression"),
}
# Every kind draws numbers of its own.
PURPOSES = {kind: purpose for purpose, kind in enumerate(KINDS)}


def corrupt(
    images: NDArray[np.uint8], kind: str, severity: int, keys: NDArray[np.uint64], seed: int = 0
) -> NDArray[np.uint8]:
    """Return the images under a corruption, or shifted as another camera would, same shape and type.

    images: uint8 of shape (n, height, width, 1 or 3). kind: a key of `KINDS` or `SHIFTS`. severity: 1 to 5. keys:
    uint64 (n,), from `image_keys`; with `seed` they decide what is drawn at random, the same at all severities, so
    that a picture grows worse instead of different.
    Raises ValueError for another kind, severity, shape or type.
    """
    if images.dtype != np.uint8 or images.ndim != 4 or images.shape[3] not in (1, 3) or 0 in images.shape[1:]:
        raise ValueError(f"images must be uint8 (n, height, width, 1 or 3), got {images.dtype} {images.shape}")
    if severity not in SEVERITIES:
        raise ValueError(f"a severity is 1 to 5, got {severity}")
    if len(keys) != len(images):
        raise ValueError(f"{len(keys)} keys for {len(images)} images")
    if kind in SHIFTS:
        shift, steps = SHIFTS[kind]
        return shift(images, steps[severity - 1]) if len(images) else images.copy()
    if kind not in KINDS:
        raise ValueError(f"there is no corruption {kind!r}; known: {', '.join([*KINDS, *SHIFTS])}")
    if not len(images):
        return images.copy()
    published = published_for(*images.shape[1:3])
    setting = published.settings[kind][severity - 1]
    if kind == "frost":
        setting = (*setting, published.frost_scale)
    return KINDS[kind](images, setting, streams_of(keys, PURPOSES[kind], seed))
