"""Views of a training set: every image shown in several ways that can be shown again.

How an image looks in view 0, 1, ... depends on the seed, its position and the view alone. A teacher may answer
all views once, and its students then learn from answers to exactly what they see, however long they are trained.
Source: Beyer et al. 2022, "Knowledge distillation: A good teacher is patient and consistent".
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from kinglet.data.augmentation import augment, n_random
from kinglet.data.batches import gather, images_in_a_row

# Another image shines through: the answer is a mixture as well, so that it is no augmentation of pixels alone.
MIXUP = "mixup"
MIXED_SHARE = 0.5
# Whether, with which image, and how much of it.
N_RANDOM_FOR_MIXUP = 3


@dataclass(frozen=True)
class Shown:
    """What a batch showed of a training set.

    positions: int64 (n,), of its examples. views: int64 (n,). partners: int64 (n,), positions of the images that
    were mixed in. shares: float32 (n,), how much of each picture is the example itself, [0.5, 1].
    """

    positions: Tensor
    views: Tensor
    partners: Tensor
    shares: Tensor


class Views:
    """The views of a training set.

    names: augmentations, and "mixup". n_views: how many views there are. An image's random numbers over its views
    are a Sobol sequence, which fills the unit cube evenly, moved by a random vector of its own (Cranley and
    Patterson 1976): two views of an image that may be mirrored are the image and its mirror image.
    """

    def __init__(self, names: Collection[str], n_examples: int, n_views: int, seed: int) -> None:
        self.names = frozenset(names) - {MIXUP}
        self.n_examples, self.n_views = n_examples, n_views
        self.is_mixed = MIXUP in names
        width = n_random(self.names) + N_RANDOM_FOR_MIXUP * self.is_mixed
        self._moves = torch.rand(n_examples, width, generator=torch.Generator().manual_seed(seed))
        self._points = torch.quasirandom.SobolEngine(width).draw(n_views) if width else torch.empty(n_views, 0)

    def of_epoch(self, epoch: int) -> Tensor:
        """Return the view of every example in an epoch, int64 (n_examples,): another one in each, all in turn."""
        return (torch.arange(self.n_examples) + epoch) % self.n_views

    def show(
        self,
        packed: NDArray[np.uint8],
        rows: NDArray[np.int64],
        positions: NDArray[np.int64],
        views: Tensor,
        device: torch.device,
    ) -> tuple[Tensor, Shown]:
        """Return the pixels of examples in these views, and what they show.

        packed: uint8 (n, size, size, channels). rows: int64 (n_examples,) into `packed`. positions: int64 (batch,)
        into `rows`. views: int64 (batch,). Returns float32 (batch, channels, size, size) in [0, 255] on `device`.
        Of clips, uint8 (n, frames, size, size, channels), all frames are shown alike, and returned as images one after
        the other.
        """
        n_frames = images_in_a_row(packed)
        places = torch.from_numpy(positions)
        random = (self._moves[places] + self._points[views]) % 1
        pixels = gather(packed, rows[positions]).to(device)
        partners, shares = places, torch.ones(len(places))
        if self.is_mixed:
            mixing, random = random[:, :N_RANDOM_FOR_MIXUP], random[:, N_RANDOM_FOR_MIXUP:]
            partners = (mixing[:, 1] * self.n_examples).long().clamp(max=self.n_examples - 1)
            shares = torch.where(mixing[:, 0] < MIXED_SHARE, 0.5 + 0.5 * mixing[:, 2], shares)
            others = gather(packed, rows[partners.numpy()]).to(device)
            of_images = shares.repeat_interleave(n_frames).view(-1, 1, 1, 1)
            pixels = torch.lerp(others, pixels, of_images.to(device))
        random = random.repeat_interleave(n_frames, 0)
        return augment(pixels, self.names, random), Shown(places, views, partners, shares)
