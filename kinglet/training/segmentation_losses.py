"""Losses of segmenters: every pixel's class by itself, and the overlap of whole regions."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

# From how many times as many pixels of one class as of another the rare one counts more.
UNBALANCED = 10.0


def segmentation_loss(
    class_weights: Tensor | None = None, label_smoothing: float = 0.0
) -> Callable[[Tensor, Tensor], Tensor]:
    """Return the loss of a segmenter's answers to a batch: cross-entropy plus soft Dice.

    class_weights: float32 (n_classes,), of a pixel's cross-entropy; None for 1 each. label_smoothing: of the
    cross-entropy, [0, 1). The loss takes logits (n, n_classes, height, width), which may be coarser than the masks and
    are enlarged as they are where models are used, and masks uint8 (n, mask height, mask width); void pixels count
    nowhere.
    """

    def loss(logits: Tensor, masks: Tensor) -> Tensor:
        wanted = in_classes(masks.to(logits.device), logits.shape[1])
        enlarged = functional.interpolate(logits, masks.shape[1:], mode="bilinear", align_corners=False)
        weights = None if class_weights is None else class_weights.to(logits.device)
        return pixel_loss(enlarged, wanted, weights, label_smoothing) + dice_loss(enlarged, wanted)

    return loss


def in_classes(masks: Tensor, n_classes: int) -> Tensor:
    """Return which class each pixel shows as 0 and 1, float32 (n, n_classes, height, width), all 0 where it is void.

    masks: uint8 (n, height, width).
    """
    # By comparison, as a look-up by index has no deterministic gradient on a GPU.
    classes = torch.arange(n_classes, device=masks.device).view(1, -1, 1, 1)
    return (masks[:, None] == classes).to(torch.float32)


def pixel_loss(logits: Tensor, wanted: Tensor, class_weights: Tensor | None, label_smoothing: float) -> Tensor:
    """Return the mean cross-entropy of the pixels that are not void, weighted by their classes; 0 if all are.

    logits, wanted: (n, n_classes, height, width), the latter as `in_classes` gives it.
    """
    logarithms = logits.log_softmax(1)
    weights = wanted if class_weights is None else wanted * class_weights.view(1, -1, 1, 1)
    of_pixels = weights.sum(1)
    own = (logarithms * weights).sum(1)
    smoothed = (1 - label_smoothing) * own + label_smoothing * logarithms.mean(1) * of_pixels
    return -smoothed.sum() / of_pixels.sum().clamp_min(1e-6)


def dice_loss(logits: Tensor, wanted: Tensor) -> Tensor:
    """Return 1 minus the Dice coefficient of probabilities, mean over the classes in the batch's truth; 0 without any.

    logits, wanted: as in `pixel_loss`. All images of a batch are one region: the few pixels of a class in a window of
    one image say little by themselves.
    Source: Milletari et al. 2016, "V-Net", section 3, with sums of probabilities in the denominator in place of their
    squares (Drozdzal et al. 2016, "The Importance of Skip Connections in Biomedical Image Segmentation", equation 2).
    """
    probabilities = logits.softmax(1) * wanted.sum(1, keepdim=True)
    shared, areas = (probabilities * wanted).sum((0, 2, 3)), wanted.sum((0, 2, 3))
    dice = 2 * shared / (probabilities.sum((0, 2, 3)) + areas).clamp_min(1e-6)
    present = (areas > 0).to(torch.float32)
    return ((1 - dice) * present).sum() / present.sum().clamp_min(1.0)


def balancing_weights(counts: NDArray[np.int64]) -> Tensor | None:
    """Return weights of classes by the square root of how rare they are, float32 (n_classes,); None for alike ones.

    counts: of the training pixels, int64 (n_classes,). Classes are alike where the most frequent has less than
    `UNBALANCED` times the pixels of the rarest. The weights' mean over all pixels is 1. A class without a pixel has
    weight 0. The square root, as whole inverse frequencies make a network see rare classes everywhere.
    Source: Mahajan et al. 2018, "Exploring the Limits of Weakly Supervised Pretraining", section 2.2 (square root).
    """
    there = counts > 0
    if not there.any() or counts.max() < UNBALANCED * counts[there].min():
        return None
    shares = counts / counts.sum()
    rarity = np.zeros(len(counts))
    rarity[there] = 1 / np.sqrt(shares[there])
    return torch.from_numpy(rarity / (rarity * shares).sum()).to(torch.float32)
