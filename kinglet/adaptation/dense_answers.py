"""Adaptation with a few labelled images where a network draws into them: detectors and segmenters."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from kinglet.adaptation.training import AdaptationRecipe, Lesson, train_normalizations
from kinglet.data.batches import standardize
from kinglet.data.boxed_images import BoxedImages
from kinglet.data.packed_masks import MaskedImages
from kinglet.models.detector import places
from kinglet.reporting import Report, silent
from kinglet.training import detection, segmentation
from kinglet.training.detection_losses import detection_loss
from kinglet.training.segmentation_losses import balancing_weights, segmentation_loss


def fine_tune_detector(
    network: nn.Module,
    images: BoxedImages,
    mean: list[float],
    std: list[float],
    recipe: AdaptationRecipe,
    device: torch.device,
    report: Report = silent,
) -> nn.Module:
    """Return a detector after learning from a few images with boxes, packed as it takes them, by a detector's loss.

    mean, std: one value per channel, of pixels in [0, 1]. The rest is as `train_normalizations` says.
    """
    pictures = partial(detection.pictures_of, images)
    loss = detection_loss(places(images.size)[0])
    return _fine_tune(network, images, pictures, loss, mean, std, recipe, device, report)


def fine_tune_segmenter(
    network: nn.Module,
    images: MaskedImages,
    n_classes: int,
    mean: list[float],
    std: list[float],
    recipe: AdaptationRecipe,
    device: torch.device,
    report: Report = silent,
) -> nn.Module:
    """Return a segmenter after learning from a few images with masks, packed as it takes them, by a segmenter's loss.

    mean, std: one value per channel, of pixels in [0, 1]. The rest is as `train_normalizations` says.
    """
    pictures = partial(segmentation.pictures_of, images)
    loss = segmentation_loss(balancing_weights(images.counts(n_classes)))
    return _fine_tune(network, images, pictures, loss, mean, std, recipe, device, report)


def _fine_tune(
    network: nn.Module,
    images: BoxedImages | MaskedImages,
    pictures: Callable[..., tuple[Tensor, Any]],
    loss: Callable[[Any, Any], Tensor],
    mean: list[float],
    std: list[float],
    recipe: AdaptationRecipe,
    device: torch.device,
    report: Report,
) -> nn.Module:
    def lessons(epoch: int, _: nn.Module) -> Lesson:
        return lesson_on(images, pictures, loss, mean, std, recipe, epoch, device)

    return train_normalizations(network, len(images), lessons, recipe, device, report)


def lesson_on(
    images: BoxedImages | MaskedImages,
    pictures: Callable[..., tuple[Tensor, Any]],
    loss: Callable[[Any, Any], Tensor],
    mean: list[float],
    std: list[float],
    recipe: AdaptationRecipe,
    epoch: int,
    device: torch.device,
) -> Lesson:
    """Return what an epoch teaches: every image once, augmented as the recipe says.

    pictures: pixels and answers of the images at some positions, as a training of the problem makes them. loss: of
    what the network returns and those answers. mean, std: one value per channel, of pixels in [0, 1].
    """

    def show(positions: NDArray[np.int64]) -> tuple[Tensor, Any]:
        pixels, answers = pictures(positions, images.size, recipe.augment, (recipe.seed, epoch), device)
        return standardize(pixels, mean, std), answers

    return Lesson(np.arange(len(images)), show, loss)
