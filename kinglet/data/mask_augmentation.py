"""Augmentation that moves masks along: flips, turns, windows, other scales, elastic deformation.

Every picture is one sampling of its image: for each of its pixels it is reckoned where in the image it comes from, so
that pixels are resampled once, whatever is combined. Masks take the nearest pixel, as between two classes is none.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from kinglet.data.batches import gather
from kinglet.data.packed_masks import MaskedImages
from kinglet.runtime.segmentation import VOID

FLIP, FLIP_VERTICALLY, TURN, CROP, SCALE = "flip", "flip_vertically", "turn", "crop", "scale"
ELASTIC, COLOR = "elastic", "color"
# "color" moves nothing: `kinglet.data.augmentation.color` does it.
MASK_AUGMENTATIONS = (FLIP, FLIP_VERTICALLY, TURN, CROP, SCALE, ELASTIC, COLOR)

# How much larger an image is shown than it is packed, and how far its sides' ratio changes.
SCALES, RATIOS = (0.7, 1.4), (0.85, 1.0 / 0.85)
# Displacements are drawn on a grid so coarse, along either axis, with so large a standard deviation, in picture edges.
ELASTIC_GRID, ELASTIC_DEVIATION = 4, 0.02


@dataclass(frozen=True)
class View:
    """How one picture shows its image. x and y run from -1 to 1 over the image and over the picture.

    centre, reach: of the part that is shown, x and y: its middle, and half of its sides. axes: (2, 2), where the
    picture's axes point in the image, a turn by quarters with or without a flip. displacements: (2, grid, grid), in
    halves of the picture's edge.
    """

    centre: NDArray[np.float64]
    reach: NDArray[np.float64]
    axes: NDArray[np.float64]
    displacements: NDArray[np.float64]


def show(
    images: MaskedImages,
    positions: Sequence[int] | NDArray[np.int64],
    places: Sequence[int] | NDArray[np.int64],
    size: int,
    names: Collection[str],
    seeds: Sequence[int],
) -> tuple[Tensor, Tensor]:
    """Return pictures of images, float32 (n, channels, size, size) in [0, 255], and their masks, uint8 (n, size, size).

    positions: of the examples; each is shown differently. places: in `images`, what each of them shows. size: in
    pixels; with "crop" a window of as many pixels of the packed image is shown, without it the whole image.
    names: of MASK_AUGMENTATIONS. seeds: what decides, with an example's position, how it is shown. What lies outside
    of the image is black and void.
    """
    views = [view(images.size, size, names, np.random.default_rng([*seeds, int(position)])) for position in positions]
    grid = sampling_grid(views, size)
    rows = images.rows[np.asarray(places)]
    pixels = functional.grid_sample(gather(images.packed, rows), grid, mode="bilinear", align_corners=False)
    # What is sampled outside is 0, and has to become void.
    masks = torch.from_numpy(np.asarray(images.masks[rows])).to(torch.float32)[:, None] - VOID
    sampled = functional.grid_sample(masks, grid, mode="nearest", align_corners=False)[:, 0] + VOID
    return pixels.contiguous(memory_format=torch.channels_last), sampled.round().to(torch.uint8)


def view(packed_size: int, size: int, names: Collection[str], generator: np.random.Generator) -> View:
    """Return how a picture of `size` pixels shows an image packed at `packed_size`, drawn from the generator."""
    # All are drawn in any case, so that one augmentation more does not change the others.
    flips, quarters = generator.random(2) < 0.5, int(generator.integers(4))
    scale, ratio = (math.exp(generator.uniform(*np.log(bounds))) for bounds in (SCALES, RATIOS))
    place, strength = generator.uniform(-1, 1, 2), generator.random()
    displacements = generator.normal(0, 1, (2, ELASTIC_GRID, ELASTIC_GRID))
    reach = np.full(2, size / packed_size if CROP in names else 1.0)
    if SCALE in names:
        reach *= np.array([math.sqrt(ratio), 1 / math.sqrt(ratio)]) / scale
    signs = np.where(flips & [FLIP in names, FLIP_VERTICALLY in names], -1.0, 1.0)
    turn = 0.5 * math.pi * quarters if TURN in names else 0.0
    turned = np.rint([[math.cos(turn), -math.sin(turn)], [math.sin(turn), math.cos(turn)]])
    if not {SCALE, ELASTIC} & set(names):
        place = on_whole_pixels(place, packed_size - size * (CROP in names))
    return View(
        place * np.abs(1 - reach),
        reach,
        turned * signs,
        2 * ELASTIC_DEVIATION * strength * displacements * (ELASTIC in names),
    )


def on_whole_pixels(place: NDArray[np.float64], room: int) -> NDArray[np.float64]:
    """Return the nearest place of a window, x and y in [-1, 1], at which its pixels are pixels of the image.

    room: how many pixels the window can be moved by. In between, what is interpolated is smoother than the images that
    a network is used on, and its mask up to half a pixel beside it.
    """
    return np.rint((place + 1) / 2 * room) / room * 2 - 1 if room else place


def sampling_grid(views: Sequence[View], size: int) -> Tensor:
    """Return where in its image each pixel of each picture comes from, float32 (n, size, size, 2), x before y.

    The elastic deformation is that of the paper: displacements on a coarse grid, smooth in between.
    Source: Ronneberger et al. 2015, "U-Net", section 3.1.
    """
    matrices = torch.from_numpy(
        np.stack([np.column_stack([one.reach[:, None] * one.axes, one.centre]) for one in views])
    ).to(torch.float32)
    grid = functional.affine_grid(matrices, [len(views), 1, size, size], align_corners=False)
    # A displacement is reckoned in the picture, and is as far in the image as the picture shows of it.
    coarse = torch.from_numpy(np.stack([one.displacements for one in views])).to(torch.float32)
    if not coarse.any():
        return grid
    fine = functional.interpolate(coarse, (size, size), mode="bicubic", align_corners=True).permute(0, 2, 3, 1)
    return grid + fine @ matrices[:, None, :, :2].transpose(2, 3)
