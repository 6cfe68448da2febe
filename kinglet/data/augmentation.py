"""Augmentation of whole batches of pixels: one call per batch, not one per image.

Every function takes float32 pixels in [0, 255] of shape (n, channels, height, width) and a random
generator, and returns pixels of the same shape. A new augmentation is a function and a line in the table.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Generator, Tensor
from torch.nn import functional


def flip_vertically(pixels: Tensor, generator: Generator) -> Tensor:
    """Mirror every second image or so upside down."""
    mirrored = torch.rand(len(pixels), generator=generator) < 0.5
    return torch.where(mirrored.view(-1, 1, 1, 1).to(pixels.device), pixels.flip(2), pixels)


def shift(pixels: Tensor, generator: Generator, share: float = 0.07) -> Tensor:
    """Move every image by up to `share` of its edge, black where nothing was."""
    n, _, height, width = pixels.shape
    reach = max(1, round(share * max(height, width)))
    padded = functional.pad(pixels, (reach, reach, reach, reach))
    offsets = torch.randint(0, 2 * reach + 1, (n, 2), generator=generator).to(pixels.device)
    rows = offsets[:, :1] + torch.arange(height, device=pixels.device)
    columns = offsets[:, 1:] + torch.arange(width, device=pixels.device)
    # Indexing the channels-last view keeps the memory format that convolutions want.
    moved = padded.permute(0, 2, 3, 1)[torch.arange(n)[:, None, None], rows[:, :, None], columns[:, None, :]]
    return moved.permute(0, 3, 1, 2)


def crop(pixels: Tensor, generator: Generator, smallest_share: float = 0.4) -> Tensor:
    """Cut a random part of each image, of `smallest_share` to all of its area, and stretch it to full size.

    Source: Szegedy et al. 2015, "Going Deeper with Convolutions", section 6 (random resized crop).
    """
    n = len(pixels)
    random = torch.rand(n, 4, generator=generator)
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


def rotate(pixels: Tensor, generator: Generator, degrees: float = 15.0) -> Tensor:
    """Turn every image by up to `degrees` either way, mirrored at the borders."""
    n = len(pixels)
    angle = (torch.rand(n, generator=generator) * 2 - 1) * math.radians(degrees)
    transform = torch.zeros(n, 2, 3)
    transform[:, 0, 0], transform[:, 0, 1] = angle.cos(), -angle.sin()
    transform[:, 1, 0], transform[:, 1, 1] = angle.sin(), angle.cos()
    grid = functional.affine_grid(transform, list(pixels.shape), align_corners=False).to(pixels.device)
    turned = functional.grid_sample(pixels, grid, mode="bilinear", padding_mode="reflection", align_corners=False)
    return turned.contiguous(memory_format=torch.channels_last)


def color(pixels: Tensor, generator: Generator, strength: float = 0.25) -> Tensor:
    """Change brightness and contrast of every image, and saturation where it has colours."""
    n, channels = pixels.shape[:2]
    factors = 1 + (torch.rand(3, n, 1, 1, 1, generator=generator) * 2 - 1).to(pixels.device) * strength
    mean = pixels.mean((1, 2, 3), keepdim=True)
    changed = (pixels - mean) * factors[0] + mean * factors[1]
    if channels == 3:
        gray = changed.mean(1, keepdim=True)
        changed = gray + (changed - gray) * factors[2]
    return changed.clamp(0, 255)


def erase(pixels: Tensor, generator: Generator, probability: float = 0.5, largest_share: float = 0.2) -> Tensor:
    """Blank a random rectangle in some of the images.

    Source: Zhong et al. 2017, "Random Erasing Data Augmentation".
    """
    n, _, height, width = pixels.shape
    random = torch.rand(n, 5, generator=generator).to(pixels.device)
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


# In the order in which they are applied. "flip" stands apart: the teacher's cached answers know its view.
FLIP = "flip"
AUGMENTATIONS: dict[str, Callable[[Tensor, Generator], Tensor]] = {
    "flip_vertically": flip_vertically,
    "crop": crop,
    "rotate": rotate,
    "shift": shift,
    "color": color,
    "erase": erase,
}


def augment(pixels: Tensor, names: list[str], generator: Generator) -> tuple[Tensor, Tensor]:
    """Return pixels after the named augmentations, in the table's order, and which images were mirrored.

    Returns float32 pixels of the given shape, and bool of shape (n,).
    """
    mirrored = torch.zeros(len(pixels), dtype=torch.bool)
    if FLIP in names:
        mirrored = torch.rand(len(pixels), generator=generator) < 0.5
        pixels = torch.where(mirrored.view(-1, 1, 1, 1).to(pixels.device), pixels.flip(3), pixels)
    for name, function in AUGMENTATIONS.items():
        if name in names:
            pixels = function(pixels, generator)
    return pixels, mirrored
