"""Packed images as pictures of a page: without the borders of their square, as data URIs."""

from __future__ import annotations

import base64
import io

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from kinglet.runtime.preprocessing import Placement

JPEG_QUALITY = 88


def inside_of(placed: Placement) -> NDArray[np.int64]:
    """Return where an image lies in its square, in whole pixels: left, top, right and bottom."""
    corners = np.array([[0.0, 0, placed.width, placed.height]])
    return np.asarray(np.rint(placed.to_input(corners)[0]).astype(np.int64))


def jpeg_uri(image: NDArray[np.uint8]) -> str:
    """Return pixels as a data URI; a photo is a tenth of the size that it has as PNG."""
    written = io.BytesIO()
    Image.fromarray(image[:, :, 0] if image.shape[2] == 1 else image).save(written, "JPEG", quality=JPEG_QUALITY)
    return "data:image/jpeg;base64," + base64.b64encode(written.getvalue()).decode()


def palette_uri(numbers: NDArray[np.uint8], colours: list[tuple[int, int, int, int]]) -> str:
    """Return a picture of palette numbers, uint8 (height, width), as a PNG's data URI; colours: RGBA of each number."""
    picture = Image.fromarray(numbers, "P")
    picture.putpalette([channel for colour in colours for channel in colour[:3]])
    written = io.BytesIO()
    picture.save(written, "PNG", optimize=True, transparency=bytes(colour[3] for colour in colours))
    return "data:image/png;base64," + base64.b64encode(written.getvalue()).decode()
