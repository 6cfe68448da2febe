"""Adaptation without labels where a network draws masks: it learns from the pixels that it is sure of."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from kinglet.adaptation.self_training import LEAST_SHARE
from kinglet.adaptation.training import AdaptationRecipe, Lesson, train_normalizations
from kinglet.data.batches import gather, standardize
from kinglet.data.packed_masks import MaskedImages
from kinglet.reporting import Report, silent
from kinglet.runtime.segmentation import VOID
from kinglet.training.loop import evaluation_batch
from kinglet.training.segmentation import pictures_of
from kinglet.training.segmentation_losses import balancing_weights, segmentation_loss

# Probabilities are compared in so many steps: of millions of pixels none need be sorted.
STEPS = 65_535


def self_train_segmenter(
    network: nn.Module,
    packed: NDArray[np.uint8],
    insides: NDArray[np.int64],
    n_classes: int,
    confidence: float,
    mean: list[float],
    std: list[float],
    recipe: AdaptationRecipe,
    device: torch.device,
    report: Report = silent,
) -> nn.Module:
    """Return a segmenter after learning from its own sure pixels, on the CPU in evaluation mode.

    network: one whose batch statistics are those of the target already, or its first answers are poor. packed: uint8
    (n, size, size, channels). insides: int64 (n, 4), where in its square each image lies, left, top, right, bottom.
    Before every epoch the average of its weights so far answers all images anew. mean, std: one value per channel, of
    pixels in [0, 1]. The rest is as `sure_masks` and `train_normalizations` say.
    """

    def lessons(epoch: int, teacher: nn.Module) -> Lesson:
        masks = sure_masks(teacher, packed, insides, n_classes, confidence, mean, std, device)
        images = MaskedImages(packed, masks, np.arange(len(packed)))
        loss = segmentation_loss(balancing_weights(images.counts(n_classes)))

        def show(positions: NDArray[np.int64]) -> tuple[Tensor, Tensor]:
            seeds = (recipe.seed, epoch)
            pixels, shown = pictures_of(images, positions, images.size, recipe.augment, seeds, device)
            return standardize(pixels, mean, std), shown

        return Lesson(np.arange(len(images)), show, loss)

    return train_normalizations(network, len(packed), lessons, recipe, device, report)


@torch.inference_mode()
def sure_masks(
    network: nn.Module,
    packed: NDArray[np.uint8],
    insides: NDArray[np.int64],
    n_classes: int,
    confidence: float,
    mean: list[float],
    std: list[float],
    device: torch.device,
) -> NDArray[np.uint8]:
    """Return the predicted class of the sure pixels, uint8 (n, size, size), and `VOID` for the others and the borders.

    confidence: probability in (0, 1) from which a pixel counts as sure. The share of sure pixels among all, at least
    `LEAST_SHARE`, is taken from every predicted class, its surest: a bar of one height for all would leave out the hard
    classes, and the network would forget them.
    Source: Zou et al. 2018, "Unsupervised Domain Adaptation for Semantic Segmentation via Class-Balanced
    Self-Training", equation 5 and algorithm 1; the share follows from the confidence here.
    """
    network.eval()
    size = packed.shape[1]
    classes = np.full((len(packed), size, size), VOID, np.uint8)
    sureness = np.zeros(classes.shape, np.uint16)
    batch_size = evaluation_batch(size)
    for start in range(0, len(packed), batch_size):
        rows = np.arange(start, min(start + batch_size, len(packed)))
        logits = network(standardize(gather(packed, rows).to(device), mean, std)).float()
        enlarged = functional.interpolate(logits, (size, size), mode="bilinear", align_corners=False)
        sure, predicted = enlarged.softmax(1).max(1)
        for row, of_row, likely in zip(rows.tolist(), sure.cpu(), predicted.cpu(), strict=True):
            left, top, right, bottom = insides[row].tolist()
            inside = np.s_[top:bottom, left:right]
            classes[row][inside] = likely.to(torch.uint8).numpy()[inside]
            sureness[row][inside] = np.rint(STEPS * of_row.double().numpy()[inside]).astype(np.uint16)
    is_pixel = classes != VOID
    share = max(LEAST_SHARE, float((sureness[is_pixel] >= confidence * STEPS).mean()))
    lowest = np.zeros(VOID + 1, np.int64)
    for label in range(n_classes):
        lowest[label] = least_of_surest(sureness[classes == label], share)
    classes[sureness < lowest[classes]] = VOID
    return classes


def least_of_surest(sureness: NDArray[np.uint16], share: float) -> int:
    """Return how sure the surest pixels are at the least, `share` of all, those that are as sure included."""
    from_surest = np.cumsum(np.bincount(sureness.ravel(), minlength=STEPS + 1)[::-1])
    return STEPS - int(np.searchsorted(from_surest, share * from_surest[-1]))
