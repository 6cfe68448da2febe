"""Formats of data sets whose images have masks, all opened by one call.

A new format is a file with a function `(root, paths, max_pixels) -> MaskedSet | None` and a line in `READERS`.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from kinglet.data.masks.mask_files import read_mask_files
from kinglet.data.masks.masked_images import MaskedSet
from kinglet.data.masks.outlines import read_outlines
from kinglet.errors import KingletError

READERS: dict[str, Callable[[Path, list[str], int], MaskedSet | None]] = {
    "mask files": read_mask_files,
    "COCO JSON": lambda root, paths, _max_pixels: read_outlines(root, paths),
}


def read_masked_images(root: Path, paths: list[str], max_pixels: int) -> MaskedSet | None:
    """Return the data set for segmentation below `root`; None if it holds no masks in a format that is read.

    paths: of all its files, relative, with forward slashes. max_pixels: largest width x height of a mask.
    Raises KingletError if it cannot be read, no image of it is left, or its masks show one class only.
    """
    found = next((found for read in READERS.values() if (found := read(root, paths, max_pixels))), None)
    if found is None:
        return None
    if all(image.problem for image in found.images):
        first = found.images[0]
        raise KingletError(f"{root} holds no image whose mask can be used: {first.path}: {first.problem}.")
    if len(found.classes) < 2:
        raise KingletError(
            f"{root} has masks of one class only, {found.classes[0]!r}; two are needed.",
            "Pixels that show something else need a class too, such as background.",
        )
    return found
