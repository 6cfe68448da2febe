"""Masks as files: each in its image's own pixels, and all of them placed in squares as packed images are."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from kinglet.data.masks.faults import VOID
from kinglet.data.masks.masked_images import MaskedImage, Masks
from kinglet.runtime.preprocessing import placement


@dataclass(frozen=True)
class MaskJob:
    """A run of neighbouring images whose masks are to be written.

    images: (row, image) of those that have a mask. folder: of the masks in their images' own pixels. files: {edge
    length in pixels: .npy file}, made by `create_packed_masks`. fit: pad or stretch, as the images are packed.
    """

    images: Sequence[tuple[int, MaskedImage]]
    masks: Masks
    folder: Path
    files: dict[int, Path]
    fit: str


def create_packed_masks(path: Path, n_images: int, size: int) -> None:
    """Make a .npy file for uint8 masks of shape (n_images, size, size), all of it void."""
    packed = np.lib.format.open_memmap(path, "w+", np.uint8, (n_images, size, size))
    packed[:] = VOID
    packed.flush()


def pack_masks(job: MaskJob) -> int:
    """Draw the job's masks, write each as folder/ROW.png and into the packed files; return how many there were.

    A PNG file has 8 bits of gray: the index of the class, 255 where there is none.
    """
    arrays = {size: np.lib.format.open_memmap(path, "r+") for size, path in job.files.items()}
    for row, image in job.images:
        mask = job.masks.draw(image)
        (job.folder / f"{row}.png").write_bytes(png_of(mask))
        for size, packed in arrays.items():
            packed[row] = place_mask(mask, size, job.fit)
    return len(job.images)


def png_of(mask: NDArray[np.uint8]) -> bytes:
    """Return a mask, uint8 (height, width), as a PNG file of 8 bits of gray."""
    file = io.BytesIO()
    Image.fromarray(mask).save(file, "PNG")
    return file.getvalue()


def place_mask(mask: NDArray[np.uint8], size: int, fit: str) -> NDArray[np.uint8]:
    """Return a mask as a square of `size` pixels, placed as `kinglet.runtime.preprocessing.resize` places its image.

    mask: uint8 (height, width). Each pixel of the square takes the class of the pixel that its centre falls into; what
    lies outside of the image is void.
    """
    height, width = mask.shape
    if (height, width) == (size, size):
        return mask
    placed = placement(width, height, size, fit)
    centers = np.arange(size) + 0.5
    columns = np.floor((centers - placed.left) / placed.scale_x).astype(np.int64)
    rows = np.floor((centers - placed.top) / placed.scale_y).astype(np.int64)
    square = mask[rows.clip(0, height - 1)[:, None], columns.clip(0, width - 1)[None, :]]
    square[(rows < 0) | (rows >= height), :] = VOID
    square[:, (columns < 0) | (columns >= width)] = VOID
    return square
