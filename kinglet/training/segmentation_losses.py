"""Losses of segmenters: every pixel's class by itself, and the overlap of whole regions."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from kinglet.data.masked_images import VOID

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
        truth = masks.to(logits.device, torch.int64)
        enlarged = functional.interpolate(logits, truth.shape[1:], mode="bilinear", align_corners=False)
        weights = None if class_weights is None else class_weights.to(logits.device)
        return pixel_loss(enlarged, truth, weights, label_smoothing) + dice_loss(enlarged, truth)

    return loss


def pixel_loss(logits: Tensor, truth: Tensor, class_weights: Tensor | None, label_smoothing: float) -> Tensor:
    """Return the mean cross-entropy of the pixels that are not void, weighted by their classes; 0 if all are.

    logits: (n, n_classes, height, width). truth: int64 (n, height, width).
    """
    summed = functional.cross_entropy(
        logits, truth, class_weights, ignore_index=VOID, reduction="sum", label_smoothing=label_smoothing
    )
    known = truth[truth != VOID]
    weight = len(known) if class_weights is None else class_weights[known].sum()
    return summed / max(float(weight), 1e-6)


def dice_loss(logits: Tensor, truth: Tensor) -> Tensor:
    """Return 1 minus the Dice coefficient of probabilities, mean over the classes in the batch's truth; 0 without any.

    All images of a batch are one region: the few pixels of a class in a window of one image say little by themselves.
    Source: Milletari et al. 2016, "V-Net", section 3, with sums of probabilities in the denominator in place of their
    squares (Drozdzal et al. 2016, "The Importance of Skip Connections in Biomedical Image Segmentation", equation 2).
    """
    n_classes = logits.shape[1]
    known = (truth != VOID)[:, None]
    probabilities = logits.softmax(1) * known
    wanted = functional.one_hot(truth.clamp(max=n_classes - 1), n_classes).permute(0, 3, 1, 2) * known
    shared = (probabilities * wanted).sum((0, 2, 3))
    areas = wanted.sum((0, 2, 3))
    dice = 2 * shared / (probabilities.sum((0, 2, 3)) + areas).clamp_min(1e-6)
    present = areas > 0
    return (1 - dice[present]).mean() if present.any() else logits.sum() * 0


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
