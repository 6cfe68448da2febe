"""Images that are larger than a model's input, cut into tiles that overlap, and their answers put together again.

Every tile sees some pixels beyond those that it answers for, so that what lies at its edge has surroundings too. Where
two tiles overlap, each answers for the half that is nearer to its middle, so every pixel has one answer.

Source: Ronneberger et al. 2015, "U-Net", section 2, the overlap-tile strategy.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from kinglet.runtime.preprocessing import TILE, Preprocessing

# What a tile sees beyond the pixels that it answers for, as a share of its edge, except at the image's own edges.
MARGIN_SHARE = 8


@dataclass(frozen=True)
class Tile:
    """A part of an image, in pixels of the image.

    left, top, width, height: what the model sees. core_left, core_top, core_right, core_bottom: the part of it that
    the tile answers for; together the cores of all tiles cover each pixel of the image once.
    """

    left: int
    top: int
    width: int
    height: int
    core_left: int
    core_top: int
    core_right: int
    core_bottom: int

    def cut(self, image: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Return the tile's pixels of an image or mask, (height, width) or (height, width, channels), as a view."""
        return image[self.top : self.top + self.height, self.left : self.left + self.width]

    @property
    def core(self) -> tuple[slice, slice]:
        """Rows and columns of the tile that it answers for, in its own pixels."""
        rows = slice(self.core_top - self.top, self.core_bottom - self.top)
        return rows, slice(self.core_left - self.left, self.core_right - self.left)


def tiles_of(width: int, height: int, edge: int) -> list[Tile]:
    """Return the tiles of an image, row by row; one if the image is not larger than a tile.

    width, height: of the image in pixels, at least 1. edge: of a tile, at least 8; tiles are smaller only where the
    image is. They lie evenly, and overlap by a quarter of the edge or more.
    """
    across, down = (spans(length, edge) for length in (width, height))
    return [
        Tile(left, top, min(width, edge), min(height, edge), core_left, core_top, core_right, core_bottom)
        for top, core_top, core_bottom in down
        for left, core_left, core_right in across
    ]


def seen_tiles(width: int, height: int, preprocessing: Preprocessing) -> list[Tile]:
    """Return the parts of an image of this size that a model sees one by one: all of it at once, unless it is cut."""
    edge = preprocessing.input_size if preprocessing.fit == TILE else max(width, height)
    return tiles_of(width, height, edge)


def spans(length: int, edge: int) -> list[tuple[int, int, int]]:
    """Return start, and start and end of the core, of each tile along one axis."""
    if length <= edge:
        return [(0, 0, length)]
    margin = edge // MARGIN_SHARE
    count = math.ceil((length - 2 * margin) / (edge - 2 * margin))
    starts = [round(place * (length - edge) / (count - 1)) for place in range(count)]
    # Half-way through what two neighbours share.
    borders = [(left + edge + right) // 2 for left, right in pairwise(starts)]
    return list(zip(starts, [0, *borders], [*borders, length], strict=True))


def put_together(tiles: Sequence[Tile], parts: Sequence[NDArray[np.uint8]]) -> NDArray[np.uint8]:
    """Return the mask of a whole image, uint8 (height, width), from those of all its tiles.

    tiles: as `tiles_of` gives them. parts: of each tile, uint8 (height, width) of the tile.
    """
    whole = np.empty((max(tile.core_bottom for tile in tiles), max(tile.core_right for tile in tiles)), np.uint8)
    for tile, part in zip(tiles, parts, strict=True):
        whole[tile.core_top : tile.core_bottom, tile.core_left : tile.core_right] = part[tile.core]
    return whole
