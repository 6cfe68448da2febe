"""How detectors are trained, and how their answers are asked for."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from kinglet.data.augmentation import color, random_colors
from kinglet.data.batches import gather, standardize
from kinglet.data.box_augmentation import COLOR, MOSAIC_SHARE, show
from kinglet.data.boxed_images import BoxedImages, Objects
from kinglet.models.detector import places
from kinglet.reporting import Report, silent
from kinglet.runtime.detection import SCORED_FROM, Detections, decode_detections
from kinglet.runtime.preprocessing import placement
from kinglet.training.checkpoints import Checkpoint
from kinglet.training.detection_distillation import Answer, taught_loss
from kinglet.training.detection_losses import detection_loss
from kinglet.training.epochs import Epoch, Objective, Recipe, plan_epochs, train
from kinglet.training.loop import evaluation_batch
from kinglet.training.parallel import ALONE, Team
from kinglet.training.teaching import Teaching, answered
from kinglet.training.validation_precision import mean_average_precision

# Of the epochs, those at the end whose pictures are no mosaics: what is judged is none either.
# Source: Ge et al. 2021, "YOLOX", section 2.1.
LAST_WITHOUT_MOSAIC = 0.2


@dataclass(frozen=True)
class Shown:
    """What a loss knows of a batch: the centres of the places, the objects of its pictures, the teacher's answer."""

    centres: Tensor
    objects: list[Objects]
    answer: Answer | None


def fit_detector(
    network: nn.Module,
    training: BoxedImages,
    validation: BoxedImages,
    recipe: Recipe,
    *,
    n_classes: int,
    mean: list[float],
    std: list[float],
    device: torch.device,
    team: Team = ALONE,
    teaching: Teaching | None = None,
    checkpoint: Checkpoint | None = None,
    report: Report = silent,
) -> tuple[nn.Module, list[dict[str, float]]]:
    """Train the detector `network`; return its weights of the epoch with the best validation mAP50, and the history.

    validation: packed at the size of the recipe's last phase. The sizes of all phases are multiples of 32; pictures of
    any are made from the training images as they are packed. teaching: another detector, which answers every picture
    that it is shown as it is. The rest is as `train` says.
    """
    n_epochs = len(plan_epochs(recipe, len(training)))
    centres = {size: places(size)[0] for _, size in recipe.phases}
    teacher = None if teaching is None else teaching.teacher_on(device)

    def pictures(epoch: Epoch, positions: NDArray[np.int64]) -> tuple[Tensor, Shown]:
        share = MOSAIC_SHARE if epoch.index < (1 - LAST_WITHOUT_MOSAIC) * n_epochs else 0.0
        seeds = (recipe.seed, epoch.index)
        pixels, objects = pictures_of(
            training, positions, epoch.input_size, recipe.augment, seeds, device, mosaic_share=share
        )
        inputs = standardize(pixels, mean, std)
        return inputs, Shown(centres[epoch.input_size], objects, answered(teacher, inputs, recipe.precision))

    def loss(outputs: Answer, shown: Shown) -> Tensor:
        if teaching is None or shown.answer is None:
            return detection_loss(shown.centres)(outputs, shown.objects)
        return taught_loss(shown.centres, teaching.share)(outputs, shown.objects, shown.answer)

    objective = Objective(
        n_examples=len(training),
        show=pictures,
        loss=loss,
        score=lambda average: map_50(average, validation, n_classes, mean, std, device),
        score_name="map_50",
        slack=lambda _: 0.0,
    )
    return train(network, objective, recipe, device=device, team=team, checkpoint=checkpoint, report=report)


def pictures_of(
    images: BoxedImages,
    positions: NDArray[np.int64],
    size: int,
    augment: Collection[str],
    seeds: tuple[int, int],
    device: torch.device,
    *,
    mosaic_share: float = MOSAIC_SHARE,
) -> tuple[Tensor, list[Objects]]:
    """Return pictures of examples, float32 (n, channels, size, size) in [0, 255], and the objects on each.

    seeds: that of the training, and the number of its epoch. The rest is as `show` says.
    """
    pixels, objects = show(images, positions, size, augment, seeds, mosaic_share=mosaic_share)
    shown = torch.from_numpy(pixels).permute(0, 3, 1, 2).to(device, torch.float32)
    if COLOR in augment:
        shown = color(shown, random_colors(*seeds, positions).to(device))
    return shown, objects


def map_50(
    network: nn.Module, images: BoxedImages, n_classes: int, mean: list[float], std: list[float], device: torch.device
) -> float:
    """Return the average precision at an IoU of 0.5 of a detector on packed images, mean over the classes."""
    return mean_average_precision(detections(network, images, mean, std, device), images.objects, n_classes)


@torch.inference_mode()
def detections(
    network: nn.Module, images: BoxedImages, mean: list[float], std: list[float], device: torch.device
) -> list[Detections]:
    """Return what a detector finds on packed images, in pixels of their squares."""
    network.eval()
    found = []
    batch_size = evaluation_batch(images.size)
    square = placement(images.size, images.size, images.size, "stretch")
    for start in range(0, len(images), batch_size):
        pixels = gather(images.packed, images.rows[start : start + batch_size]).to(device)
        logits, boxes = (output.float().cpu().numpy() for output in network(standardize(pixels, mean, std)))
        found += decode_detections(logits, boxes, [square] * len(logits), score_threshold=SCORED_FROM)
    return found
