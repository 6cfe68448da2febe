"""How detectors are trained, and how their answers are asked for."""

from __future__ import annotations

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
from kinglet.training.detection_losses import detection_loss
from kinglet.training.epochs import Epoch, Objective, Recipe, plan_epochs, train
from kinglet.training.loop import evaluation_batch
from kinglet.training.parallel import ALONE, Team
from kinglet.training.validation_precision import mean_average_precision

# Of the epochs, those at the end whose pictures are no mosaics: what is judged is none either.
# Source: Ge et al. 2021, "YOLOX", section 2.1.
LAST_WITHOUT_MOSAIC = 0.2


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
    checkpoint: Checkpoint | None = None,
    report: Report = silent,
) -> tuple[nn.Module, list[dict[str, float]]]:
    """Train the detector `network`; return its weights of the epoch with the best validation mAP50, and the history.

    validation: packed at the size of the recipe's last phase. The sizes of all phases are multiples of 32; pictures of
    any are made from the training images as they are packed. The rest is as `train` says.
    """
    n_epochs = len(plan_epochs(recipe, len(training)))
    centres = {size: places(size)[0] for _, size in recipe.phases}

    def pictures(epoch: Epoch, positions: NDArray[np.int64]) -> tuple[Tensor, tuple[Tensor, list[Objects]]]:
        share = MOSAIC_SHARE if epoch.index < (1 - LAST_WITHOUT_MOSAIC) * n_epochs else 0.0
        seeds = (recipe.seed, epoch.index)
        pixels, objects = show(training, positions, epoch.input_size, recipe.augment, seeds, mosaic_share=share)
        shown = torch.from_numpy(pixels).permute(0, 3, 1, 2).to(device, torch.float32)
        if COLOR in recipe.augment:
            shown = color(shown, random_colors(recipe.seed, epoch.index, positions).to(device))
        return standardize(shown, mean, std), (centres[epoch.input_size], objects)

    def loss(outputs: tuple[Tensor, Tensor], shown: tuple[Tensor, list[Objects]]) -> Tensor:
        return detection_loss(shown[0])(outputs, shown[1])

    objective = Objective(
        n_examples=len(training),
        show=pictures,
        loss=loss,
        score=lambda average: mean_average_precision(
            detections(average, validation, mean, std, device), validation.objects, n_classes
        ),
        score_name="map_50",
        slack=lambda _: 0.0,
    )
    return train(network, objective, recipe, device=device, team=team, checkpoint=checkpoint, report=report)


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
