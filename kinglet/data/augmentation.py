"""Augmentation of whole batches of pixels: one call per batch, not one per image.

Every function takes float32 pixels in [0, 255] of shape (n, channels, height, width) and random numbers in
[0, 1) of shape (n, k), and returns pixels of the same shape. The same numbers show an image in the same way at
any resolution, so that a teacher and its student may look at one view. A new augmentation is a function and
a line in the table.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional


def flip(pixels: Tensor, random: Tensor) -> Tensor:
    """Mirror half of the images."""
    return torch.where((random[:, 0] < 0.5).view(-1, 1, 1, 1), pixels.flip(3), pixels)


def flip_vertically(pixels: Tensor, random: Tensor) -> Tensor:
    """Mirror half of the images upside down."""
    return torch.where((random[:, 0] < 0.5).view(-1, 1, 1, 1), pixels.flip(2), pixels)


def shift(pixels: Tensor, random: Tensor, share: float = 0.07) -> Tensor:
    """Move every image by whole pixels, up to `share` of its edge, black where nothing was."""
    n, _, height, width = pixels.shape
    reach = max(1, round(share * max(height, width)))
    padded = functional.pad(pixels, (reach, reach, reach, reach))
    offsets = (random * (2 * reach + 1)).long()
    rows = offsets[:, :1] + torch.arange(height, device=pixels.device)
    columns = offsets[:, 1:] + torch.arange(width, device=pixels.device)
    # Indexing the channels-last view keeps the memory format that convolutions want.
    moved = padded.permute(0, 2, 3, 1)[torch.arange(n)[:, None, None], rows[:, :, None], columns[:, None, :]]
    return moved.permute(0, 3, 1, 2)


def crop(pixels: Tensor, random: Tensor, smallest_share: float = 0.4) -> Tensor:
    """Cut a random part of each image, of `smallest_share` to all of its area, and stretch it to full size.

    Source: Szegedy et al. 2015, "Going Deeper with Convolutions", section 6 (random resized crop).
    """
    n = len(pixels)
    random = random.cpu()
    area = smallest_share + (1 - smallest_share) * random[:, 0]
    ratio = torch.exp((random[:, 1] * 2 - 1) * math.log(4 / 3) / 2)
    width, height = (area.sqrt() * ratio).clamp(max=1), (area.sqrt() / ratio).clamp(max=1)
    transform = torch.zeros(n, 2, 3)
    transform[:, 0, 0], transform[:, 1, 1] = width, height
    transform[:, 0, 2] = (random[:, 2] * 2 - 1) * (1 - width)
    transform[:, 1, 2] = (random[:, 3] * 2 - 1) * (1 - height)
    grid = functional.affine_grid(transform, list(pixels.shape), align_corners=False).to(pixels.device)
    cut = functional.grid_sample(pixels, grid, mode="bilinear", padding_mode="reflection", align_corners=False)
    return cut.contiguous(memory_format=torch.channels_last)


def rotate(pixels: Tensor, random: Tensor, degrees: float = 15.0) -> Tensor:
    """Turn every image by up to `degrees` either way, mirrored at the borders."""
    n = len(pixels)
    angle = (random[:, 0].cpu() * 2 - 1) * math.radians(degrees)
    transform = torch.zeros(n, 2, 3)
    transform[:, 0, 0], transform[:, 0, 1] = angle.cos(), -angle.sin()
    transform[:, 1, 0], transform[:, 1, 1] = angle.sin(), angle.cos()
    grid = functional.affine_grid(transform, list(pixels.shape), align_corners=False).to(pixels.device)
    turned = functional.grid_sample(pixels, grid, mode="bilinear", padding_mode="reflection", align_corners=False)
    return turned.contiguous(memory_format=torch.channels_last)


def color(pixels: Tensor, random: Tensor, strength: float = 0.25) -> Tensor:
    """Change brightness and contrast of every image, and saturation where it has colours."""
    factors = 1 + (random.t()[:, :, None, None, None] * 2 - 1) * strength
    mean = pixels.mean((1, 2, 3), keepdim=True)
    changed = (pixels - mean) * factors[0] + mean * factors[1]
    if pixels.shape[1] == 3:
        gray = changed.mean(1, keepdim=True)
        changed = gray + (changed - gray) * factors[2]
    return changed.clamp(0, 255)


def erase(pixels: Tensor, random: Tensor, probability: float = 0.5, largest_share: float = 0.2) -> Tensor:
    """Blank a random rectangle in some of the images.

    Source: Zhong et al. 2017, "Random Erasing Data Augmentation".
    """
    height, width = pixels.shape[2:]
    area = 0.02 + (largest_share - 0.02) * random[:, 0]
    ratio = torch.exp((random[:, 1] * 2 - 1) * math.log(10 / 3) / 2)
    tall, wide = (area.sqrt() * ratio).clamp(max=1) * height, (area.sqrt() / ratio).clamp(max=1) * width
    top, left = random[:, 2] * (height - tall), random[:, 3] * (width - wide)
    rows = torch.arange(height, device=pixels.device)
    columns = torch.arange(width, device=pixels.device)
    in_rows = (rows >= top[:, None]) & (rows < (top + tall)[:, None])
    in_columns = (columns >= left[:, None]) & (columns < (left + wide)[:, None])
    chosen = (random[:, 4] < probability)[:, None, None]
    blank = (in_rows[:, :, None] & in_columns[:, None, :] & chosen)[:, None]
    return pixels.masked_fill(blank, 0.0)


@dataclass(frozen=True)
class Augmentation:
    """A way to show an image differently. n_random: how many random numbers it takes for one image."""

    apply: Callable[[Tensor, Tensor], Tensor]
    n_random: int


# In the order in which they are applied.
AUGMENTATIONS: dict[str, Augmentation] = {
    "flip": Augmentation(flip, 1),
    "flip_vertically": Augmentation(flip_vertically, 1),
    "crop": Augmentation(crop, 4),
    "rotate": Augmentation(rotate, 1),
    "shift": Augmentation(shift, 2),
    "color": Augmentation(color, 3),
    "erase": Augmentation(erase, 5),
}


def n_random(names: Iterable[str]) -> int:
    """Return how many random numbers the named augmentations take for one image."""
    return sum(AUGMENTATIONS[name].n_random for name in names)


def augment(pixels: Tensor, names: Collection[str], random: Tensor) -> Tensor:
    """Return pixels after the named augmentations, in the table's order.

    pixels: float32 (n, channels, height, width) in [0, 255]; so is the result. random: float32 in [0, 1) of
    shape (n, `n_random(names)`).
    """
    first = 0
    for name, augmentation in AUGMENTATIONS.items():
        if name in names:
            numbers = random[:, first : first + augmentation.n_random]
            pixels = augmentation.apply(pixels, numbers.to(pixels.device))
            first += augmentation.n_random
    return pixels


def random_colors(seed: int, epoch: int, positions: NDArray[np.int64]) -> Tensor:
    """Return what `color` takes for examples in an epoch, the same whichever batch they are in."""
    wanted = AUGMENTATIONS["color"].n_random
    drawn = [np.random.default_rng([seed, epoch, int(position), 1]).random(wanted) for position in positions]
    return torch.from_numpy(np.stack(drawn)).to(torch.float32)
