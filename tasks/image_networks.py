"""What detectors and segmenters are made from and trained by, where students and pruned networks are made alike."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from torch import nn

from kinglet.data.boxed_images import BoxedImages
from kinglet.data.packed_masks import MaskedImages
from kinglet.models.detector import places
from kinglet.models.registry import pretrained_detector, pretrained_segmenter
from kinglet.training.detection import fit_detector, map_50
from kinglet.training.detection_losses import detection_loss
from kinglet.training.epochs import Recipe
from kinglet.training.schedules import EpochBudget
from kinglet.training.segmentation import fit_segmenter, miou
from kinglet.training.segmentation_losses import balancing_weights, segmentation_loss
from tasks import detection_training, segmentation_training
from tasks.artifacts import BOXES, ModelCard, packed_masks
from tasks.detection_training import boxed_images, detector_recipe
from tasks.segmentation_training import masked_images, segmenter_recipe
from tasks.training_settings import Finetune

if TYPE_CHECKING:
    from kinglet.compression.pruning import BatchLoss

# Images as networks of a problem learn from them: `BoxedImages` or `MaskedImages`.
Images = Any


@dataclass(frozen=True)
class ImageNetworks:
    """How the networks of a problem are made, trained and scored beside a teacher.

    word: what one is called. pretrained: as `pretrained_detector`. images: of a split, packed at a size, that a model
    of this card learns from. annotations: the file of what those images show. recipe: of a training, from the settings
    of `finetune`, a size, a number of images, a seed, and what epochs left to "auto" may cost. fit: by the settings of
    `finetune`, what `fit_detector` is. score, score_name: of a network on validation images. budget: what the teacher's
    training costs; recovery_budget: that of a pruned network. targets: of the images at some places, as the loss knows
    them. loss: of a batch of training images for a number of classes, by the labels alone.
    """

    word: str
    pretrained: Callable[[str, int, int, int], tuple[nn.Module, dict[str, Any]]]
    images: Callable[[pd.DataFrame, str, int, ModelCard], Images]
    annotations: Callable[[int], Path]
    recipe: Callable[[Finetune, int, int, int, EpochBudget], Recipe]
    fit: Callable[[Finetune], Callable[..., tuple[nn.Module, list[dict[str, float]]]]]
    score: Callable[[nn.Module, Images, int, list[float], list[float], torch.device], float]
    score_name: str
    budget: EpochBudget
    recovery_budget: EpochBudget
    targets: Callable[[Images, NDArray[np.int64]], Any]
    loss: Callable[[Finetune, Images, int], BatchLoss]


def on_whole_pictures(settings: Finetune, size: int, n_examples: int, seed: int, budget: EpochBudget) -> Recipe:
    """Return how a detector is trained beside a teacher: on pictures like the teacher's own, all of them at one size.

    The teacher knows less of smaller pictures, so no part of the training shows such.
    """
    return detector_recipe(settings.model_copy(update={"low_resolution_share": 0.0}), size, n_examples, seed, budget)


def objects_at(images: BoxedImages, part: NDArray[np.int64]) -> list[Any]:
    """Return the objects of the images at these places."""
    return [images.objects[place] for place in part.tolist()]


def masks_at(images: MaskedImages, part: NDArray[np.int64]) -> torch.Tensor:
    """Return the masks of the images at these places, uint8 (n, size, size)."""
    return torch.from_numpy(np.asarray(images.masks[images.rows[part]]))


def loss_of_boxes(_: Finetune, images: BoxedImages, __: int) -> BatchLoss:
    """Return the loss of a detector's answers to these images as they are packed."""
    return detection_loss(places(images.size)[0])


def loss_of_masks(settings: Finetune, images: MaskedImages, n_classes: int) -> BatchLoss:
    """Return the loss that a segmenter has of these images in its training."""
    return segmentation_loss(balancing_weights(images.counts(n_classes)), settings.label_smoothing)


# By the problem that networks are made for.
IMAGE_NETWORKS = {
    "detection": ImageNetworks(
        word="detector",
        pretrained=pretrained_detector,
        images=lambda manifest, split, size, card: boxed_images(manifest, split, size, card.fit, card.classes),
        annotations=lambda _: BOXES,
        recipe=on_whole_pictures,
        fit=lambda _: fit_detector,
        score=map_50,
        score_name="map_50",
        budget=detection_training.BUDGET,
        # A quarter of what a teacher is trained for: twelve epochs of 205 images of 416 pixels. After five of them a
        # detector without three tenths of its channels was still three points of mAP50 behind (docs/detection.md).
        recovery_budget=EpochBudget(pixels=0.426e9, fewest=3, most=45),
        targets=objects_at,
        loss=loss_of_boxes,
    ),
    "segmentation": ImageNetworks(
        word="segmenter",
        pretrained=pretrained_segmenter,
        images=lambda manifest, split, size, _: masked_images(manifest, split, size),
        annotations=packed_masks,
        # Windows first, as in the teacher's own training: it answers them as it does whole images.
        recipe=segmenter_recipe,
        fit=lambda settings: partial(fit_segmenter, label_smoothing=settings.label_smoothing),
        score=miou,
        score_name="miou",
        budget=segmentation_training.BUDGET,
        # A quarter of a teacher's, as of a detector's: enough to lose nothing on cell membranes (docs/segmentation.md).
        recovery_budget=EpochBudget(pixels=100e6, fewest=3, most=15),
        targets=masks_at,
        loss=loss_of_masks,
    ),
}
