"""Held-out images and their true masks, in the images' own pixels."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from PIL import Image

from kinglet.errors import KingletError
from kinglet.runtime.segmentation import VOID, Mask
from tasks.artifacts import CORE, INGEST, TILES, mask_file


@dataclass(frozen=True)
class MaskedImages:
    """The images of one split; their true masks are read one by one.

    rows: of the packed files, int64 (n,). paths: (n,). sizes: width and height in pixels as shown, int64 (n, 2).
    wholes: numbers of the whole images that these are tiles of, int64 (n,), ascending from 0; of images that are not
    cut, their own. cores: the part of its pixels that each answers for, int64 (n, 4), columns as `CORE`.
    """

    rows: NDArray[np.int64]
    paths: list[str]
    sizes: NDArray[np.int64]
    wholes: NDArray[np.int64]
    cores: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def n_wholes(self) -> int:
        """The number of images before any was cut into tiles."""
        return len(np.unique(self.wholes))

    def take(self, places: NDArray[np.int64]) -> MaskedImages:
        """Return the images at these places."""
        wholes = np.unique(self.wholes[places], return_inverse=True)[1]
        paths = [self.paths[place] for place in places]
        return MaskedImages(self.rows[places], paths, self.sizes[places], wholes, self.cores[places])

    def truth(self, place: int) -> Mask:
        """Return the true mask of an image, class indices and void; raises KingletError if it is of another size.

        Where tiles overlap, one of them answers for a pixel, and in the others it is void.
        """
        file = mask_file(int(self.rows[place]))
        mask = read_mask(file)
        width, height = self.sizes[place].tolist()
        if mask.shape != (height, width):
            raise KingletError(
                f"{file} has {mask.shape[1]} x {mask.shape[0]} pixels, and its image {self.paths[place]} has "
                f"{width} x {height}.",
                "Run `dvc repro ingest`.",
            )
        left, top, right, bottom = self.cores[place].tolist()
        if (left, top, right, bottom) == (0, 0, width, height):
            return mask
        of_core = np.full_like(mask, VOID)
        of_core[top:bottom, left:right] = mask[top:bottom, left:right]
        return of_core


def scored_images(rows: NDArray[np.int64], paths: list[str]) -> MaskedImages:
    """Return the images in these rows of the packed files. paths: of each."""
    facts = pd.read_parquet(INGEST / "manifest.parquet", columns=["index", "width", "height"]).set_index("index")
    sizes = facts.loc[rows, ["width", "height"]].to_numpy(np.int64)
    if not TILES.is_file():
        return MaskedImages(rows, paths, sizes, np.arange(len(rows)), np.pad(sizes, ((0, 0), (2, 0))))
    tiles = pd.read_parquet(TILES).set_index("index").loc[rows]
    return MaskedImages(rows, paths, sizes, pd.factorize(tiles["image"])[0], tiles[list(CORE)].to_numpy(np.int64))


def read_mask(file: Path) -> Mask:
    """Return the mask in a PNG of ours; raises KingletError if it is missing or none."""
    try:
        with Image.open(file) as opened:
            mode, pixels = opened.mode, np.asarray(opened)
    except OSError as error:
        raise KingletError(f"{file} cannot be read: {error}.", "Run `dvc repro`.") from None
    if mode != "L":
        raise KingletError(f"{file} is no mask: its pixels are of the mode {mode}, not L.", "Run `dvc repro`.")
    return pixels
