"""The pixels of mask files as they are stored: numbers or colours, before anything is known of classes."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL.Image import Image
from PIL.ImageFile import ImageFile

from kinglet.data.masks.faults import UnusableMaskError
from kinglet.runtime.decoding import UndecodableImageError, read_with, upright

# Formats that keep the look of an image and not its numbers.
LOSSY = ("JPEG", "WEBP")
# Of PNG files with two or four bits per pixel, by how much Pillow stretches the numbers.
STRETCHED = {"L;2": 85, "L;4": 17}


@dataclass(frozen=True)
class StoredMask:
    """A mask as stored, upright.

    codes: int32 (height, width), numbers from 0 to 65535, or colours as 65536 red + 256 green + blue.
    is_colored: whether they are colours.
    """

    codes: NDArray[np.int32]
    is_colored: bool

    def counts(self) -> dict[int, int]:
        """Return {code: pixels}, ascending by code."""
        if self.is_colored:
            codes, pixels = np.unique(self.codes, return_counts=True)
            return dict(zip(codes.tolist(), pixels.tolist(), strict=True))
        pixels = np.bincount(self.codes.ravel())
        return {int(code): int(pixels[code]) for code in np.flatnonzero(pixels)}


def read_stored_mask(content: bytes, max_pixels: int, *, by_color: bool) -> StoredMask:
    """Return the pixels of a mask file as stored.

    content: a PNG, BMP, TIFF or GIF file. by_color: whether colours mean classes: then RGB and palette files are read
    as colours. Otherwise a palette file is read as its numbers, and equal red, green and blue as gray. Gray and 16-bit
    files are read as their numbers.
    Raises UnusableMaskError for a file that is damaged, or in which numbers or colours are not kept exactly.
    """

    def take(name: str, image: ImageFile) -> StoredMask:
        if name in LOSSY:
            raise UnusableMaskError(f"is a {name} file, which does not keep classes exactly; save masks as PNG")
        stretched = STRETCHED.get(str(image.tile[0][3]), 1) if image.tile else 1
        image.load()
        return _stored(upright(image), stretched, by_color)

    try:
        return read_with(content, max_pixels, take)
    except UndecodableImageError as error:
        # Whatever `take` raises comes out as one of these, with what it was as its cause.
        if isinstance(error.__cause__, UnusableMaskError):
            raise error.__cause__ from None
        raise UnusableMaskError(f"cannot be read: {error}") from None


def _stored(image: Image, stretched: int, by_color: bool) -> StoredMask:
    if image.mode == "P" and not by_color:
        return StoredMask(np.asarray(image).astype(np.int32), False)
    if image.mode in ("1", "L"):
        return StoredMask(np.asarray(image).astype(np.int32) // stretched, False)
    if image.mode.startswith("I"):
        return StoredMask(_sixteen_bits(np.asarray(image)), False)
    if image.mode in ("LA", "RGBA"):
        image = _without_alpha(image)
    if image.mode == "L":
        return StoredMask(np.asarray(image).astype(np.int32), False)
    if image.mode not in ("RGB", "P"):
        raise UnusableMaskError(f"is of the mode {image.mode}; masks are gray, of a palette or RGB")
    pixels = np.asarray(image.convert("RGB")).astype(np.int32)
    if not by_color and (pixels == pixels[:, :, :1]).all():
        return StoredMask(pixels[:, :, 0], False)
    return StoredMask(pixels[:, :, 0] << 16 | pixels[:, :, 1] << 8 | pixels[:, :, 2], True)


def _sixteen_bits(values: NDArray[np.generic]) -> NDArray[np.int32]:
    low, high = int(values.min()), int(values.max())
    if low < 0 or high > 65535:
        raise UnusableMaskError(f"holds numbers from {low} to {high}; at most 16 bits per pixel are read")
    return values.astype(np.int32)


def _without_alpha(image: Image) -> Image:
    if image.getchannel("A").getextrema() != (255, 255):
        raise UnusableMaskError("has transparent pixels, which have no class")
    return image.convert(image.mode[:-1])
