"""How segmenters are trained, and how their answers are asked for."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from kinglet.data.augmentation import color, random_colors
from kinglet.data.batches import gather, standardize
from kinglet.data.mask_augmentation import COLOR, show
from kinglet.data.packed_masks import MaskedImages
from kinglet.evidence.mask_scores import mask_confusion, mean_iou
from kinglet.reporting import Report, silent
from kinglet.training.checkpoints import Checkpoint
from kinglet.training.epochs import Epoch, Objective, Recipe, train
from kinglet.training.loop import evaluation_batch
from kinglet.training.parallel import ALONE, Team
from kinglet.training.segmentation_distillation import taught_loss
from kinglet.training.segmentation_losses import balancing_weights, segmentation_loss
from kinglet.training.teaching import Teaching, answered

# Pictures of an epoch, at the least: few images are shown several times, each time another way. Otherwise an epoch of
# twenty images would be three steps, and be over before the average of the weights has followed.
SHOWN_IN_AN_EPOCH = 128


def times_shown(n_images: int) -> int:
    """Return how many pictures of each image an epoch shows."""
    return max(1, math.ceil(SHOWN_IN_AN_EPOCH / n_images))


@dataclass(frozen=True)
class Shown:
    """What a loss knows of a batch: the masks of its pictures, uint8 (n, size, size), and the teacher's answer."""

    masks: Tensor
    answer: Tensor | None


def fit_segmenter(
    network: nn.Module,
    training: MaskedImages,
    validation: MaskedImages,
    recipe: Recipe,
    *,
    n_classes: int,
    mean: list[float],
    std: list[float],
    device: torch.device,
    label_smoothing: float = 0.0,
    team: Team = ALONE,
    teaching: Teaching | None = None,
    checkpoint: Checkpoint | None = None,
    report: Report = silent,
) -> tuple[nn.Module, list[dict[str, float]]]:
    """Train the segmenter `network`; return its weights of the epoch with the best validation mIoU, and the history.

    validation: packed at the size that the network is used at. The sizes of the recipe's phases are multiples of 32,
    of pictures made from the training images as they are packed. teaching: another segmenter, which answers every
    picture that it is shown as it is. The rest is as `train` says.
    """
    by_labels = segmentation_loss(balancing_weights(training.counts(n_classes)), label_smoothing)
    teacher = None if teaching is None else teaching.teacher_on(device)

    def pictures(epoch: Epoch, positions: NDArray[np.int64]) -> tuple[Tensor, Shown]:
        seeds = (recipe.seed, epoch.index)
        pixels, masks = pictures_of(training, positions, epoch.input_size, recipe.augment, seeds, device)
        inputs = standardize(pixels, mean, std)
        return inputs, Shown(masks, answered(teacher, inputs, recipe.precision))

    def loss(logits: Tensor, shown: Shown) -> Tensor:
        if teaching is None or shown.answer is None:
            return by_labels(logits, shown.masks)
        return taught_loss(by_labels, teaching.share)(logits, shown.masks, shown.answer)

    objective = Objective(
        n_examples=len(training) * times_shown(len(training)),
        show=pictures,
        loss=loss,
        score=lambda average: miou(average, validation, n_classes, mean, std, device),
        score_name="miou",
        slack=lambda _: 0.0,
    )
    return train(network, objective, recipe, device=device, team=team, checkpoint=checkpoint, report=report)


def pictures_of(
    images: MaskedImages,
    positions: NDArray[np.int64],
    size: int,
    augment: Collection[str],
    seeds: tuple[int, int],
    device: torch.device,
) -> tuple[Tensor, Tensor]:
    """Return pictures of examples, float32 (n, channels, size, size) in [0, 255], and masks, uint8 (n, size, size).

    positions: of the examples, which are as many as one likes: the images one after the other, again and again. seeds:
    that of the training, and the number of its epoch. The rest is as `show` says.
    """
    shown, masks = show(images, positions, positions % len(images), size, augment, seeds)
    shown = shown.to(device)
    if COLOR in augment:
        shown = color(shown, random_colors(*seeds, positions).to(device))
    return shown, masks.to(device)


def miou(
    network: nn.Module, images: MaskedImages, n_classes: int, mean: list[float], std: list[float], device: torch.device
) -> float:
    """Return a segmenter's intersection over union on packed images, mean over the classes; 0 if all is void."""
    return float(np.nan_to_num(mean_iou(confusions(network, images, n_classes, mean, std, device).sum(0))))


@torch.inference_mode()
def confusions(
    network: nn.Module,
    images: MaskedImages,
    n_classes: int,
    mean: list[float],
    std: list[float],
    device: torch.device,
) -> NDArray[np.int64]:
    """Return what packed images' pixels are taken for, int64 (n_images, n_classes, n_classes), by the truth in rows."""
    found: list[NDArray[np.int64]] = []
    for rows, enlarged in enlarged_answers(network, images.packed, images.rows, mean, std, device):
        for row, predicted in zip(rows.tolist(), enlarged.argmax(1).to(torch.uint8).cpu().numpy(), strict=True):
            found.append(mask_confusion(np.asarray(images.masks[row]), predicted, n_classes))
    return np.array(found, np.int64).reshape(-1, n_classes, n_classes)


@torch.inference_mode()
def enlarged_answers(
    network: nn.Module,
    packed: NDArray[np.uint8],
    rows: NDArray[np.int64],
    mean: list[float],
    std: list[float],
    device: torch.device,
) -> Iterator[tuple[NDArray[np.int64], Tensor]]:
    """Yield rows of packed images, batch by batch, and a segmenter's logits for every pixel of theirs.

    The logits are float32 (n, n_classes, size, size), enlarged as they are where models are used.
    """
    network.eval()
    size = packed.shape[1]
    batch_size = evaluation_batch(size)
    for start in range(0, len(rows), batch_size):
        part = rows[start : start + batch_size]
        logits = network(standardize(gather(packed, part).to(device), mean, std)).float()
        yield part, functional.interpolate(logits, (size, size), mode="bilinear", align_corners=False)
