"""Augmentation that moves boxes along: flips, scale and crop, mosaics of four images.

All of these only move axis-parallel rectangles. So a picture is planned first as tiles, each a rectangle of an image
and where it goes, and then drawn tile by tile, every pixel resampled once and never as a float.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional

from kinglet.data.boxed_images import BoxedImages, Objects

FLIP, FLIP_VERTICALLY, CROP, MOSAIC, COLOR = "flip", "flip_vertically", "crop", "mosaic", "color"
# "color" changes no box: `kinglet.data.augmentation.color` does it.
BOX_AUGMENTATIONS = (FLIP, FLIP_VERTICALLY, CROP, MOSAIC, COLOR)

# How much larger an image is shown, alone and as one of four, and how far its sides' ratio changes.
SCALES, MOSAIC_SCALES, RATIOS = (0.6, 1.6), (0.5, 1.2), (0.85, 1.0 / 0.85)
MOSAIC_SHARE = 0.5
# The tiles of a mosaic meet in the middle part of the picture.
MOSAIC_CENTRE = (0.3, 0.7)
# Of an object whose rest is cut off, what has to be seen for it to count, and in how many pixels of each side.
SMALLEST_SEEN_SHARE, SMALLEST_SEEN_PIXELS = 0.3, 2.0


@dataclass(frozen=True)
class Span:
    """Along one axis, `source_length` pixels of an image from `source` on, and where they go."""

    source: int
    source_length: int
    target: int
    target_length: int
    is_flipped: bool = False

    def moved(self, low: NDArray[np.float32], high: NDArray[np.float32]) -> tuple[NDArray[np.float32], ...]:
        """Return where intervals of the image come to lie in the picture, not cut off."""
        scale = self.target_length / self.source_length
        start, end = self.target, self.target + self.target_length
        if self.is_flipped:
            return end - (high - self.source) * scale, end - (low - self.source) * scale
        return start + (low - self.source) * scale, start + (high - self.source) * scale


@dataclass(frozen=True)
class Tile:
    """A rectangle of an example's image, and where in the picture it is shown. position: of the example."""

    position: int
    x: Span
    y: Span

    def objects(self, given: Objects) -> Objects:
        """Return what of an image's objects is seen in the tile, in pixels of the picture, cut at its borders."""
        left, right = self.x.moved(given.xyxy[:, 0], given.xyxy[:, 2])
        top, bottom = self.y.moved(given.xyxy[:, 1], given.xyxy[:, 3])
        whole = np.stack([left, top, right, bottom], 1)
        low = np.array([self.x.target, self.y.target] * 2, np.float32)
        high = low + np.array([self.x.target_length, self.y.target_length] * 2, np.float32)
        seen = whole.clip(low, high)
        sides, whole_sides = (boxes[:, 2:] - boxes[:, :2] for boxes in (seen, whole))
        kept = (sides >= np.minimum(whole_sides, SMALLEST_SEEN_PIXELS)).all(1) & (
            sides.prod(1) >= SMALLEST_SEEN_SHARE * whole_sides.prod(1)
        )
        return Objects(seen[kept].astype(np.float32), given.labels[kept])


def show(
    images: BoxedImages,
    positions: Sequence[int] | NDArray[np.int64],
    size: int,
    names: Collection[str],
    seeds: Sequence[int],
    *,
    mosaic_share: float = MOSAIC_SHARE,
) -> tuple[NDArray[np.uint8], list[Objects]]:
    """Return pictures of examples, uint8 (n, size, size, channels), and the objects on each.

    positions: of the examples. size: in pixels, that of `images` or another one. names: of BOX_AUGMENTATIONS.
    seeds: what decides, with an example's position, how it is shown. mosaic_share: of the pictures that are mosaics,
    if these are named.
    """
    pictures = np.zeros((len(positions), size, size, images.packed.shape[3]), np.uint8)
    objects = []
    for picture, position in zip(pictures, positions, strict=True):
        generator = np.random.default_rng([*seeds, int(position)])
        tiles = plan(images, int(position), size, names, generator, mosaic_share)
        for tile in tiles:
            draw(images, tile, picture)
        parts = [tile.objects(images.objects[tile.position]) for tile in tiles]
        objects.append(
            Objects(np.concatenate([part.xyxy for part in parts]), np.concatenate([part.labels for part in parts]))
        )
    return pictures, objects


def plan(
    images: BoxedImages,
    position: int,
    size: int,
    names: Collection[str],
    generator: np.random.Generator,
    mosaic_share: float,
) -> list[Tile]:
    """Return the tiles of one picture: the whole image where nothing is named, else drawn from the generator."""
    unscaled = size / images.size
    if MOSAIC in names and generator.random() < mosaic_share:
        others = generator.integers(len(images), size=3)
        x, y = (int(share * size) for share in generator.uniform(*MOSAIC_CENTRE, size=2))
        rooms = [((0, x), (0, y)), ((x, size), (0, y)), ((0, x), (y, size)), ((x, size), (y, size))]
        scales = MOSAIC_SCALES if CROP in names else (1.0, 1.0)
        shown = zip([position, *others.tolist()], rooms, strict=True)
        return [tile(images, one, room, unscaled, scales, names, generator) for one, room in shown]
    room = ((0, size), (0, size))
    if CROP not in names:
        return [whole(images, position, size, names, generator)]
    return [tile(images, position, room, unscaled, SCALES, names, generator)]


Room = tuple[tuple[int, int], tuple[int, int]]


def tile(
    images: BoxedImages,
    position: int,
    room: Room,
    unscaled: float,
    scales: tuple[float, float],
    names: Collection[str],
    generator: np.random.Generator,
) -> Tile:
    """Return as much of an example's image as the room takes at a random scale, of a random place in the image.

    room: from where to where along x and y, in pixels of the picture. unscaled: pixels of the picture per pixel of
    the packed image at scale 1. scales: the lowest and the highest.
    """
    scale = unscaled * math.exp(generator.uniform(*np.log(scales)))
    ratio = math.exp(generator.uniform(*np.log(RATIOS)) / 2) if CROP in names else 1.0
    left, top, right, bottom = images.insides[position].tolist()
    flips = is_flipped(names, generator)
    return Tile(
        position,
        span((left, right), room[0], scale * ratio, generator, flips[0]),
        span((top, bottom), room[1], scale / ratio, generator, flips[1]),
    )


def whole(
    images: BoxedImages, position: int, size: int, names: Collection[str], generator: np.random.Generator
) -> Tile:
    """Return an example's square as it is, borders included, perhaps mirrored."""
    flips = is_flipped(names, generator)
    x, y = (Span(0, images.size, 0, size, flipped) for flipped in flips)
    return Tile(position, x, y)


def is_flipped(names: Collection[str], generator: np.random.Generator) -> tuple[bool, bool]:
    """Return whether a tile is mirrored along x and along y."""
    along_x, along_y = (generator.random(2) < 0.5).tolist()
    return FLIP in names and along_x, FLIP_VERTICALLY in names and along_y


def span(
    content: tuple[int, int], room: tuple[int, int], scale: float, generator: np.random.Generator, flipped: bool
) -> Span:
    """Return a random part of the content, as long as the room takes at this scale; all of it where that is less."""
    content_length, room_length = content[1] - content[0], room[1] - room[0]
    source_length = min(content_length, max(1, round(room_length / scale)))
    target_length = min(room_length, max(1, round(source_length * scale)))
    source = content[0] + int(generator.integers(content_length - source_length + 1))
    target = room[0] + int(generator.integers(room_length - target_length + 1))
    return Span(source, source_length, target, target_length, flipped)


def draw(images: BoxedImages, tile: Tile, picture: NDArray[np.uint8]) -> None:
    """Draw a tile into a picture, uint8 (size, size, channels), antialiased."""
    x, y = tile.x, tile.y
    source = images.packed[
        images.rows[tile.position], y.source : y.source + y.source_length, x.source : x.source + x.source_length
    ]
    if (x.source_length, y.source_length) != (x.target_length, y.target_length):
        pixels = torch.from_numpy(np.array(source)).permute(2, 0, 1)[None]
        shape = (y.target_length, x.target_length)
        resized = functional.interpolate(pixels, shape, mode="bilinear", antialias=True)
        source = resized[0].permute(1, 2, 0).numpy()
    source = source[:: -1 if y.is_flipped else 1, :: -1 if x.is_flipped else 1]
    picture[y.target : y.target + y.target_length, x.target : x.target + x.target_length] = source
