"""Images with masks that are cut into tiles, each of which is an image of the data set then."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from kinglet.data.masks.masked_images import MaskedImage, MaskedSet, Masks, checked
from kinglet.data.masks.statistics import class_pixels
from kinglet.runtime.tiles import Tile, tiles_of


@dataclass(frozen=True)
class TileOf:
    """What the mask of a tile is drawn from: the whole image, and which part of it. is_whole: whether that is all."""

    image: MaskedImage
    tile: Tile
    is_whole: bool


class TiledMasks:
    """Draws the masks of tiles. The tiles of an image follow each other, so that its mask is drawn once."""

    def __init__(self, masks: Masks) -> None:
        self._masks = masks
        self._drawn: tuple[str, NDArray[np.uint8]] | None = None

    def draw(self, image: MaskedImage) -> NDArray[np.uint8]:
        """Return the tile's part of its image's mask, uint8 (height, width)."""
        whole: TileOf = image.drawn_from
        if self._drawn is None or self._drawn[0] != whole.image.path:
            self._drawn = whole.image.path, self._masks.draw(whole.image)
        return np.ascontiguousarray(whole.tile.cut(self._drawn[1]))

    def without(self, names: Sequence[str]) -> TiledMasks:
        """Return what draws the same with the pixels of these classes void."""
        return TiledMasks(self._masks.without(names))


def tiled(found: MaskedSet, edge: int) -> MaskedSet:
    """Return the data set with every image cut into tiles of `edge` pixels; an image's follow each other row by row.

    A tile's path is its image's with left and top behind it: images/7.png#448,0. An image that is not larger than a
    tile is one under its own path, and of one that cannot be used the first tile stands for all.
    """
    masks = TiledMasks(found.masks)
    images = [part for image in found.images for part in parts_of(image, edge, masks, len(found.classes))]
    return replace(found, images=tuple(images), masks=masks)


def parts_of(image: MaskedImage, edge: int, masks: TiledMasks, n_classes: int) -> list[MaskedImage]:
    """Return the tiles of an image."""
    if not image.width:
        return [image]
    tiles = tiles_of(image.width, image.height, edge)
    parts = [
        replace(
            image,
            path=image.path if len(tiles) == 1 else f"{image.path}#{tile.left},{tile.top}",
            width=tile.width,
            height=tile.height,
            drawn_from=TileOf(image, tile, len(tiles) == 1),
        )
        for tile in tiles
    ]
    if image.problem:
        return [replace(parts[0], path=image.path)]
    return [counted(part, masks, n_classes) for part in parts]


def counted(part: MaskedImage, masks: TiledMasks, n_classes: int) -> MaskedImage:
    """Return the tile with the pixels of its own mask."""
    pixels, void = class_pixels(masks.draw(part), n_classes)
    return checked(replace(part, pixels=tuple(pixels.tolist()), void=void))
