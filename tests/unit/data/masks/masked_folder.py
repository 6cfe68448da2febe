"""Small folders of images with masks, as people bring them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from kinglet.data.masks.formats import read_masked_images
from kinglet.data.masks.masked_images import MaskedSet
from kinglet.data.sources.folder import list_files


def write_image(file: Path, seed: int, size: tuple[int, int] = (40, 30), orientation: int = 1) -> None:
    """Write a JPEG of this width and height as stored; orientation: its EXIF tag."""
    file.parent.mkdir(parents=True, exist_ok=True)
    coarse = Image.fromarray(np.random.default_rng(seed).integers(0, 256, (6, 6, 3), np.uint8))
    exif = Image.Exif()
    exif[0x0112] = orientation
    coarse.resize(size, Image.Resampling.BICUBIC).save(file, quality=95, exif=exif)


def halves(size: tuple[int, int] = (40, 30), left: Any = 0, right: Any = 1) -> NDArray[np.uint8]:
    """Return a mask, (height, width) or of colours, whose left third holds one value and the rest another."""
    width, height = size
    return np.array([[left] * (width // 3) + [right] * (width - width // 3)] * height, np.uint8)


def write_mask(file: Path, mask: NDArray[Any], mode: str | None = None) -> None:
    """Write a mask, its type saying how many bits it has; mode: of Pillow, in place of its own choice."""
    file.parent.mkdir(parents=True, exist_ok=True)
    image = Image.fromarray(mask)
    if mode == "P":
        image.putpalette([(37 * value) % 256 for value in range(768)])
    image.save(file)


def write_masked(root: Path, n_images: int = 12) -> Path:
    """Write images/NN.jpg and masks/NN.png of background and foreground; return the folder."""
    for number in range(n_images):
        write_image(root / "images" / f"{number:02}.jpg", number)
        write_mask(root / "masks" / f"{number:02}.png", halves(right=255))
    return root


def read(root: Path) -> MaskedSet:
    """Return the data set in a folder."""
    found = read_masked_images(root, list_files(root), 10**6)
    assert found is not None
    return found
