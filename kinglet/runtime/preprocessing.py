"""From a decoded image to the tensor that a model takes, the same in training, scoring and serving."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

# A batch as a model takes it: normalized float32, channels first, or uint8 pixels, channels last.
InputTensor = NDArray[np.float32] | NDArray[np.uint8]
Boxes = NDArray[np.floating[Any]]

# How an image that is no square becomes one.
FITS = ("stretch", "crop", "pad")
# Of segmenters alone: an image is cut into squares at its own scale (`kinglet.runtime.tiles`), none of it is shrunk.
TILE = "tile"
# The key of `Preprocessing.to_dict` for models whose input is uint8.
TAKES_PIXELS = "takes_pixels"


@dataclass(frozen=True)
class Preprocessing:
    """How an image becomes a model's input.

    input_size: edge length in pixels of the square input. channels: 1 (gray) or 3 (RGB).
    fit: "stretch" ignores the aspect ratio, "crop" keeps the centre square, "pad" adds black borders, "tile" cuts
    larger images into tiles and adds black borders around smaller ones, all at their own scale.
    mean, std: one value per channel, of pixels in [0, 1]. takes_pixels: the model takes pixels as they are and
    normalizes them itself.
    """

    input_size: int
    channels: int
    fit: str
    mean: tuple[float, ...]
    std: tuple[float, ...]
    takes_pixels: bool = False

    def to_dict(self) -> dict[str, Any]:
        """Return the facts as JSON-ready values; of models that take normalized floats nothing is said of it."""
        facts = {**asdict(self), "mean": list(self.mean), "std": list(self.std)}
        return facts if self.takes_pixels else {key: facts[key] for key in facts if key != TAKES_PIXELS}

    @classmethod
    def from_dict(cls, fields: dict[str, Any]) -> Preprocessing:
        """Rebuild from `to_dict`'s values."""
        return cls(
            int(fields["input_size"]),
            int(fields["channels"]),
            str(fields["fit"]),
            tuple(fields["mean"]),
            tuple(fields["std"]),
            fields.get(TAKES_PIXELS) is True,
        )


@dataclass(frozen=True)
class Placement:
    """Where the pixels of an image lie in a model's square input, as `resize` puts them there.

    width, height: of the image in pixels. scale_x, scale_y: input pixels per image pixel. left, top: where the
    image's upper left corner comes to lie, in input pixels; negative where "crop" cuts it off. input_size: the edge
    of the input in pixels.
    """

    width: int
    height: int
    scale_x: float
    scale_y: float
    left: float
    top: float
    input_size: int

    def to_input(self, xyxy: Boxes) -> Boxes:
        """Return boxes of the image in pixels of the input; float (n, 4), of the type given. Nothing is clipped."""
        return (xyxy * self.scales + self.offsets).astype(xyxy.dtype)

    def to_image(self, xyxy: Boxes) -> Boxes:
        """Return boxes of the input in pixels of the image, clipped to it; float (n, 4), of the type given."""
        ends = np.array([self.width, self.height] * 2, np.float64)
        return ((xyxy - self.offsets) / self.scales).clip(0, ends).astype(xyxy.dtype)

    @property
    def scales(self) -> NDArray[np.float64]:
        """What the four numbers of a box are multiplied by."""
        return np.array([self.scale_x, self.scale_y] * 2, np.float64)

    @property
    def offsets(self) -> NDArray[np.float64]:
        """What is added to the four numbers of a box then."""
        return np.array([self.left, self.top] * 2, np.float64)


def placement(width: int, height: int, size: int, fit: str) -> Placement:
    """Return where `resize` puts the pixels of an image in a square of `size` pixels.

    width, height: of the image in pixels, at least 1. fit: one of FITS, or TILE.
    Raises ValueError for an image without pixels, for any other fit, and for an image that is to be cut first.
    """
    if min(width, height, size) < 1 or fit not in (*FITS, TILE) or (fit == TILE and max(width, height) > size):
        raise ValueError(f"no placement of {width} x {height} pixels in a square of {size} by {fit!r}")
    if fit == "crop":
        left, top, edge = centre_square(width, height)
        scale = size / edge
        return Placement(width, height, scale, scale, -left * scale, -top * scale, size)
    if fit == TILE:
        return Placement(width, height, 1.0, 1.0, (size - width) // 2, (size - height) // 2, size)
    if fit == "pad":
        left, top, inner_width, inner_height = inside_borders(width, height, size)
        return Placement(width, height, inner_width / width, inner_height / height, left, top, size)
    return Placement(width, height, size / width, size / height, 0.0, 0.0, size)


def centre_square(width: int, height: int) -> tuple[int, int, int]:
    """Return left, top and edge length in pixels of the centre square that "crop" keeps."""
    edge = min(width, height)
    return (width - edge) // 2, (height - edge) // 2, edge


def inside_borders(width: int, height: int, size: int) -> tuple[int, int, int, int]:
    """Return left, top, width and height, in input pixels, of the image inside the borders that "pad" adds."""
    scale = size / max(width, height)
    inner_width, inner_height = max(1, round(width * scale)), max(1, round(height * scale))
    return (size - inner_width) // 2, (size - inner_height) // 2, inner_width, inner_height


def resize(image: NDArray[np.uint8], input_size: int, fit: str) -> NDArray[np.uint8]:
    """Return the image as a square of `input_size` pixels, antialiased bilinear.

    image: uint8 of shape (height, width, channels) with 1 or 3 channels; so is the result. An image
    that has the size already is returned as it is.
    """
    height, width, channels = image.shape
    if (height, width) == (input_size, input_size):
        return image
    picture = Image.fromarray(image[:, :, 0] if channels == 1 else image)
    if fit == "crop":
        left, top, edge = centre_square(width, height)
        box = (left, top, left + edge, top + edge)
        picture = picture.resize((input_size, input_size), Image.Resampling.BILINEAR, box)
    elif fit == TILE:
        placed = placement(width, height, input_size, fit)
        canvas = Image.new(picture.mode, (input_size, input_size))
        canvas.paste(picture, (round(placed.left), round(placed.top)))
        picture = canvas
    elif fit == "pad":
        left, top, *inner = inside_borders(width, height, input_size)
        canvas = Image.new(picture.mode, (input_size, input_size))
        canvas.paste(picture.resize((inner[0], inner[1]), Image.Resampling.BILINEAR), (left, top))
        picture = canvas
    else:
        picture = picture.resize((input_size, input_size), Image.Resampling.BILINEAR)
    return np.asarray(picture, dtype=np.uint8).reshape(input_size, input_size, channels)


def match_channels(image: NDArray[np.uint8], channels: int) -> NDArray[np.uint8]:
    """Return the image with 1 (luma) or 3 (repeated gray) channels.

    image: uint8 of shape (height, width) or (height, width, 1 or 3).
    Raises ValueError for any other shape or type.
    """
    if image.dtype != np.uint8:
        raise ValueError(f"an image must be uint8, got {image.dtype}")
    if image.ndim == 2:
        image = image[:, :, None]
    if image.ndim != 3 or image.shape[2] not in (1, 3) or 0 in image.shape:
        raise ValueError(f"an image must have shape (height, width, 1 or 3), got {image.shape}")
    if image.shape[2] == channels:
        return image
    if channels == 3:
        return np.repeat(image, 3, axis=2)
    return np.asarray(Image.fromarray(image).convert("L"), dtype=np.uint8)[:, :, None]


def square_of(image: NDArray[np.uint8], preprocessing: Preprocessing) -> NDArray[np.uint8]:
    """Return an image of any size as the pixels that the model sees, uint8 (input_size, input_size, channels).

    image: uint8 of shape (height, width) or (height, width, 1 or 3).
    Raises ValueError for an image of another shape or type.
    """
    return resize(match_channels(image, preprocessing.channels), preprocessing.input_size, preprocessing.fit)


def model_input(images: NDArray[np.uint8], preprocessing: Preprocessing) -> InputTensor:
    """Return packed images as the model's input tensor.

    images: uint8 of shape (n, input_size, input_size, channels). They are returned as they are for a model that takes
    pixels, and else as `normalize` does.
    """
    return np.ascontiguousarray(images) if preprocessing.takes_pixels else normalize(images, preprocessing)


def normalize(images: NDArray[np.uint8], preprocessing: Preprocessing) -> NDArray[np.float32]:
    """Return packed images normalized, channels first.

    images: uint8 of shape (n, input_size, input_size, channels). Returns contiguous float32 of shape
    (n, channels, input_size, input_size).
    """
    scale, shift = scale_and_shift(tuple(preprocessing.mean), tuple(preprocessing.std))
    return np.ascontiguousarray((images.astype(np.float32) * scale + shift).transpose(0, 3, 1, 2))


def denormalize(tensors: NDArray[np.float32], preprocessing: Preprocessing) -> NDArray[np.uint8]:
    """Return the pixels of prepared inputs, what `normalize` was given; numbers that no pixel gives are clipped.

    tensors: float32 (n, channels, input_size, input_size), finite. Returns uint8 (n, input_size, input_size, channels).
    """
    scale, shift = scale_and_shift(tuple(preprocessing.mean), tuple(preprocessing.std))
    with np.errstate(over="ignore"):
        pixels = (tensors.transpose(0, 2, 3, 1) - shift) / scale
    return np.rint(pixels).clip(0, 255).astype(np.uint8)


@lru_cache(maxsize=64)
def scale_and_shift(
    means: tuple[float, ...], deviations: tuple[float, ...]
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Return what a pixel in [0, 255] is multiplied by and what is added then, one float32 per channel."""
    std = np.asarray(deviations, np.float32)
    scale = (1 / (255 * std)).astype(np.float32)
    shift = (-np.asarray(means, np.float32) / std).astype(np.float32)
    return scale, shift


def prepare(images: Iterable[NDArray[np.uint8]], preprocessing: Preprocessing) -> InputTensor:
    """Return images of any size as the model's input tensor.

    images: uint8 arrays of shape (height, width) or (height, width, 1 or 3). Returns float32 of shape
    (n, channels, input_size, input_size), or uint8 of shape (n, input_size, input_size, channels) for a model that
    takes pixels.
    Raises ValueError for an image of another shape or type.
    """
    squares = [square_of(image, preprocessing) for image in images]
    edge = preprocessing.input_size
    packed = np.stack(squares) if squares else np.empty((0, edge, edge, preprocessing.channels), np.uint8)
    return model_input(packed, preprocessing)
