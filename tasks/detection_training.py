"""Fine-tune a detector on a backbone pretrained on ImageNet: the teacher where images have boxes."""

from __future__ import annotations

from contextlib import nullcontext

import numpy as np
import pandas as pd
import torch
from torch import nn

from kinglet.data.batches import open_packed
from kinglet.data.box_augmentation import COLOR, CROP, FLIP, MOSAIC
from kinglet.data.boxed_images import BoxedImages, Objects
from kinglet.data.resolutions import low_resolution_of_detector
from kinglet.errors import KingletError
from kinglet.models.registry import normalization, pretrained_detector
from kinglet.reporting import Report, silent
from kinglet.training.checkpoints import Checkpoint
from kinglet.training.detection import fit_detector
from kinglet.training.devices import pick_device
from kinglet.training.epochs import Recipe
from kinglet.training.parallel import ALONE, Team
from kinglet.training.schedules import EpochBudget
from tasks.artifacts import BOXES, packed_images, read_input_sizes
from tasks.models import open_checkpoint, placements_of, prepare_training, read_classes, read_manifest
from tasks.parameters import Parameters
from tasks.progress import progress
from tasks.settings_section import AUTO
from tasks.teacher import keep_teacher, phases_between, teacher_recipe
from tasks.training_settings import Finetune

# A detector's pictures are larger than a classifier's, and there are fewer of them.
BUDGET = EpochBudget(pixels=1.7e9, fewest=8, most=150)
# Of a fold, or without a domain: a third of a teacher. The pyramid and the head learn from nothing, so that no
# training is shorter than a teacher's shortest.
SHORT_BUDGET = EpochBudget(pixels=570e6, fewest=8, most=150)


def train_detector(parameters: Parameters, team: Team, device: torch.device) -> None:
    """Train the teacher as one of a team; its leader keeps the model."""
    settings = parameters.finetune
    prepare_training(parameters.seed, team.size if device.type == "cpu" else 1)
    classes, size = read_classes(), read_input_sizes().teacher
    manifest = read_manifest()
    training, validation = (
        boxed_images(manifest, split, size, parameters.data.fit, classes) for split in ("train", "validation")
    )
    refuse_without_boxes({"training": training, "validation": validation})
    recipe = detector_recipe(settings, size, len(training), parameters.seed)
    channels = training.packed.shape[3]
    checkpoint = open_checkpoint(
        "finetune",
        {"finetune": settings.model_dump(), "recipe": recipe.facts, "channels": channels, "fit": parameters.data.fit},
        [packed_images(size), BOXES],
    )
    with progress("finetune") if team.leads else nullcontext(silent) as report:
        trained, history = fine_tuned_detector(
            settings, training, validation, len(classes), recipe, checkpoint, report, device, team
        )
    if not team.leads:
        return
    mean, std = normalization(channels)
    keep_teacher(
        trained,
        checkpoint,
        problem="detection",
        input_size=size,
        channels=channels,
        fit=parameters.data.fit,
        mean=mean,
        std=std,
        classes=classes,
        notes={"backbone": settings.backbone, "history": history},
    )


def fine_tuned_detector(
    settings: Finetune,
    training: BoxedImages,
    validation: BoxedImages,
    n_classes: int,
    recipe: Recipe,
    checkpoint: Checkpoint,
    report: Report,
    device: torch.device | None = None,
    team: Team = ALONE,
) -> tuple[nn.Module, list[dict[str, float]]]:
    """Return a detector on a pretrained backbone after the whole recipe, and the history by epoch.

    validation: images that say which epoch's weights are kept. checkpoint: where the training goes on if it was
    interrupted; the caller clears it. device: what trains, the best that there is for None. team: the processes that
    train side by side.
    """
    channels = training.packed.shape[3]
    mean, std = normalization(channels)
    network, _ = pretrained_detector(settings.backbone, channels, n_classes, recipe.seed)
    return fit_detector(
        network,
        training,
        validation,
        recipe,
        n_classes=n_classes,
        mean=mean,
        std=std,
        device=device or pick_device(),
        team=team,
        checkpoint=checkpoint,
        report=report,
    )


def boxed_images(manifest: pd.DataFrame, split: str, size: int, fit: str, classes: list[str]) -> BoxedImages:
    """Return the images of one split of a manifest, packed at this size, with their boxes in pixels of it."""
    rows = manifest.loc[manifest["split"] == split, "index"].to_numpy(np.int64, copy=True)
    placed, insides = placements_of(rows, size, fit)
    boxes = pd.read_parquet(BOXES)
    boxes["label_index"] = boxes["label"].map({label: index for index, label in enumerate(classes)})
    of_image = dict(list(boxes.dropna(subset="label_index").groupby("index")))
    objects = []
    for index, one in zip(rows.tolist(), placed, strict=True):
        found = of_image.get(index, boxes.iloc[:0])
        xyxy = one.to_input(found[["x1", "y1", "x2", "y2"]].to_numpy(np.float64))
        objects.append(Objects(xyxy.astype(np.float32), found["label_index"].to_numpy(np.int64)))
    return BoxedImages(open_packed(packed_images(size)), rows, insides, tuple(objects))


def refuse_without_boxes(parts: dict[str, BoxedImages]) -> None:
    """Raise KingletError if the images of a part show no object. parts: by what they are called."""
    for name, images in parts.items():
        if not any(len(objects) for objects in images.objects):
            raise KingletError(
                f"None of the {len(images)} {name} images has a box.",
                "Look at artifacts/split/counts.json and at the annotations of these images.",
            )


def detector_recipe(settings: Finetune, size: int, n_examples: int, seed: int, budget: EpochBudget = BUDGET) -> Recipe:
    """Return how the detector is trained: the cheaper, low resolution first.

    budget: what epochs left to "auto" may cost.
    """
    low = low_resolution_of_detector(size) if settings.low_resolution_share else size
    augment = (FLIP, CROP, MOSAIC, COLOR) if settings.augment == AUTO else tuple(settings.augment)
    return teacher_recipe(settings, phases_between(settings, low, size, n_examples, budget), augment, seed)
