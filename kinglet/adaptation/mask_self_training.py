"""Adaptation without labels where a network draws masks: it learns from the pixels that it is sure of."""

from __future__ import annotations

from functools import partial

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from kinglet.adaptation.dense_answers import lesson_on
from kinglet.adaptation.self_training import LEAST_SHARE
from kinglet.adaptation.training import AdaptationRecipe, Lesson, train_normalizations
from kinglet.data.packed_masks import MaskedImages
from kinglet.reporting import Report, silent
from kinglet.runtime.segmentation import VOID
from kinglet.training.segmentation import enlarged_answers, pictures_of
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
        return lesson_on(images, partial(pictures_of, images), loss, mean, std, recipe, epoch, device)

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
    classes = np.full(packed.shape[:3], VOID, np.uint8)
    sureness = np.zeros(classes.shape, np.uint16)
    for rows, enlarged in enlarged_answers(network, packed, np.arange(len(packed)), mean, std, device):
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
