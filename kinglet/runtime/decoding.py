"""From the bytes of an image file to uint8 pixels, the same in training and in serving."""

from __future__ import annotations

import io
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray
from PIL import (
    BmpImagePlugin,
    ExifTags,
    GifImagePlugin,
    Image,
    ImageOps,
    PngImagePlugin,
    TiffImagePlugin,
    WebPImagePlugin,
)
from PIL.ImageFile import ImageFile
from PIL.JpegImagePlugin import JpegImageFile

# The readers are called directly and not through Image.open, for three reasons: only these formats
# are ever touched, a phone's multi-picture JPEG is read as the JPEG it is, and Pillow's own global
# limit on pixels does not stand in the way of the caller's `max_pixels`.
READERS: dict[str, type[ImageFile]] = {
    "JPEG": JpegImageFile,
    "PNG": PngImagePlugin.PngImageFile,
    "WEBP": WebPImagePlugin.WebPImageFile,
    "BMP": BmpImagePlugin.BmpImageFile,
    "TIFF": TiffImagePlugin.TiffImageFile,
    "GIF": GifImagePlugin.GifImageFile,
}

MAGIC: tuple[tuple[bytes, str], ...] = (
    (b"\xff\xd8\xff", "JPEG"),
    (b"\x89PNG\r\n\x1a\n", "PNG"),
    (b"GIF87a", "GIF"),
    (b"GIF89a", "GIF"),
    (b"II*\x00", "TIFF"),
    (b"MM\x00*", "TIFF"),
    (b"II+\x00", "TIFF"),
    (b"MM\x00+", "TIFF"),
    (b"BM", "BMP"),
)

Found = TypeVar("Found")

# What an image's orientation may stand in, as Pillow calls it.
ORIENTED_BY = ("exif", "Raw profile type exif", "xmp", "XML:com.adobe.xmp")


@dataclass(frozen=True)
class ImageFacts:
    """What a file said about its image: Pillow's names of format and mode, size as shown, number of frames."""

    format: str
    mode: str
    width: int
    height: int
    frames: int


class UndecodableImageError(ValueError):
    """The bytes are no image that can be used; the text says why, in words fit for a user."""


def sniff(content: bytes) -> str:
    """Return the format ("JPEG", "PNG", ...) that the first 12 bytes announce, or "" for anything else."""
    if content[:4] == b"RIFF" and content[8:12] == b"WEBP":
        return "WEBP"
    for magic, name in MAGIC:
        if content.startswith(magic):
            return name
    return ""


class TooManyPixelsError(UndecodableImageError):
    """The image has more pixels than the caller allows."""


def read_with(content: bytes, max_pixels: int, take: Callable[[str, ImageFile], Found]) -> Found:
    """Return what `take` finds in an encoded image, given its format and the image, its pixels not yet decoded.

    Raises UndecodableImageError if it is none, has more than `max_pixels` pixels, or its reader fails meanwhile.
    """
    name = sniff(content)
    if not name:
        raise UndecodableImageError("not an image")
    # A reader raises anything on damaged bytes: SyntaxError, OSError, ValueError, struct.error, zlib.error...
    try:
        with READERS[name](io.BytesIO(content)) as image:
            check_size(image.size, max_pixels)
            return take(name, image)
    except (UndecodableImageError, MemoryError):
        raise
    except Exception as error:
        raise UndecodableImageError(describe_damage(name, error)) from error


def read_size(content: bytes, max_pixels: int) -> tuple[int, int]:
    """Return (width, height) from the header of an encoded image, as stored (EXIF may turn it).

    Raises UndecodableImageError if it has none, or more than `max_pixels` pixels.
    """
    return read_with(content, max_pixels, lambda _, image: image.size)


def read_orientation(content: bytes, max_pixels: int) -> tuple[tuple[int, int], int]:
    """Return (width, height) of an encoded image as stored, and its EXIF orientation: 1 as shown, 2 to 8 turned.

    Raises UndecodableImageError if it has no size, or more than `max_pixels` pixels.
    """
    return read_with(content, max_pixels, size_and_orientation)


def size_and_orientation(_: str, image: ImageFile) -> tuple[tuple[int, int], int]:
    """Return (width, height) as stored and the EXIF orientation of an image whose pixels need not be decoded."""
    try:
        orientation = int(image.getexif().get(ExifTags.Base.Orientation, 1))
    except Exception:  # noqa: BLE001
        orientation = 1  # a damaged EXIF block turns nothing, as in `upright`
    return image.size, orientation if 1 <= orientation <= 8 else 1


def decode(content: bytes, max_pixels: int) -> tuple[NDArray[np.uint8], ImageFacts]:
    """Return the pixels of an encoded image and the facts about it.

    content: a JPEG, PNG, WebP, BMP, TIFF or GIF file. max_pixels: largest width x height accepted,
    checked on the header before anything is decoded. Returns uint8 of shape (height, width, 1) for
    gray images and (height, width, 3), RGB, for all others, turned as the EXIF orientation says.
    16-bit gray is scaled by 255/65535, floating-point gray in [0, 1] by 255. Transparency is laid over
    white, the ground that cut-out pictures are usually shown on. Of an animation, the first frame.
    Raises UndecodableImageError if that is not possible; TooManyPixelsError, one kind of it, if it is too large.
    """
    if not content:
        raise UndecodableImageError("empty file (0 bytes)")
    return read_with(content, max_pixels, pixels_and_facts)


def pixels_and_facts(name: str, image: ImageFile) -> tuple[NDArray[np.uint8], ImageFacts]:
    """Return the pixels of an opened image and the facts about it, see `decode`. name: its format."""
    mode = image.mode
    image.load()
    frames = int(getattr(image, "n_frames", 1))
    pixels = to_uint8(upright(image))
    return pixels, ImageFacts(name, mode, pixels.shape[1], pixels.shape[0], frames)


def check_size(size: tuple[int, int], max_pixels: int) -> None:
    """Raise UndecodableImageError for an image without pixels, TooManyPixelsError for more than `max_pixels`."""
    width, height = size
    if width * height > max_pixels:
        raise TooManyPixelsError(f"too large: {width} x {height} pixels, at most {max_pixels} pixels are allowed")
    if width * height == 0:
        raise UndecodableImageError("no pixels")


def describe_damage(name: str, error: Exception) -> str:
    """Return the reason in words: truncated or damaged, and what the reader found."""
    text = " ".join(str(error).split()) or type(error).__name__
    cut_off = isinstance(error, EOFError) or any(
        word in text.lower() for word in ("truncat", "unexpected end", "end of file", "not enough data", "eof")
    )
    return f"{'truncated' if cut_off else 'damaged'} {name} file: {text}"


def upright(image: Image.Image) -> Image.Image:
    """Return the image turned as its EXIF orientation says."""
    if image.format in ("JPEG", "PNG", "WEBP") and not any(name in image.info for name in ORIENTED_BY):
        return image  # asking Pillow takes as long as a network of a few layers
    try:
        return ImageOps.exif_transpose(image)
    except Exception:  # noqa: BLE001
        # The pixels are good; viewers ignore a damaged EXIF block, and so do we.
        return image


def to_uint8(image: Image.Image) -> NDArray[np.uint8]:
    """Return the pixels of a loaded image as uint8 of shape (height, width, 1 or 3).

    Raises UndecodableImageError for numbers whose range is not known to be that of an image.
    """
    if image.mode.startswith("I"):
        return sixteen_to_eight_bits(np.asarray(image))[:, :, None]
    if image.mode == "F":
        return float_to_eight_bits(np.asarray(image, np.float64))[:, :, None]
    gray = image.mode in ("1", "L", "LA", "La")
    if image.mode in ("LA", "La", "PA", "RGBA", "RGBa") or "transparency" in image.info:
        image = image.convert("RGBA")
        ground = Image.new("RGBA", image.size, (255, 255, 255, 255))
        image = Image.alpha_composite(ground, image)
    mode = "L" if gray else "RGB"
    image = image if image.mode == mode else image.convert(mode)
    # What np.asarray does, without the questions that it asks first.
    return np.frombuffer(image.tobytes(), np.uint8).reshape(image.height, image.width, len(mode))


def sixteen_to_eight_bits(values: NDArray[np.generic]) -> NDArray[np.uint8]:
    """Return round(values * 255 / 65535) as uint8; Pillow's own conversion cuts everything above 255 off."""
    wide = values.astype(np.int64)
    low, high = int(wide.min()), int(wide.max())
    if low < 0 or high > 65535:
        raise UndecodableImageError(f"32-bit values from {low} to {high}; at most 16 bits per pixel are supported")
    return ((wide + 128) // 257).astype(np.uint8)


def float_to_eight_bits(values: NDArray[np.float64]) -> NDArray[np.uint8]:
    """Return values in [0, 1] times 255, or values in [0, 255], rounded to uint8."""
    low, high = float(values.min()), float(values.max())
    if not (low >= 0 and high <= 255):
        raise UndecodableImageError(f"floating-point values from {low:g} to {high:g}; 0 to 1 or 0 to 255 are supported")
    return np.rint(values * (255 if high <= 1 else 1)).astype(np.uint8)
