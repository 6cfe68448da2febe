"""Fine-tune a segmenter on a backbone pretrained on ImageNet: the teacher where images have masks."""

from __future__ import annotations

from contextlib import nullcontext

import numpy as np
import pandas as pd
import torch
from torch import nn

from kinglet.data.batches import open_packed
from kinglet.data.mask_augmentation import COLOR, CROP, FLIP, FLIP_VERTICALLY, SCALE, TURN
from kinglet.data.packed_masks import MaskedImages
from kinglet.data.resolutions import window_of_segmenter
from kinglet.errors import KingletError
from kinglet.models.registry import normalization, pretrained_segmenter
from kinglet.reporting import Report, silent
from kinglet.training.checkpoints import Checkpoint
from kinglet.training.devices import pick_device
from kinglet.training.epochs import Recipe
from kinglet.training.parallel import ALONE, Team
from kinglet.training.schedules import EpochBudget
from kinglet.training.segmentation import fit_segmenter, times_shown
from tasks.artifacts import packed_images, packed_masks, read_input_sizes
from tasks.models import open_checkpoint, prepare_training, read_classes, read_manifest
from tasks.parameters import Parameters
from tasks.progress import progress
from tasks.settings_section import AUTO
from tasks.teacher import keep_teacher, phases_between, teacher_recipe
from tasks.training_settings import Finetune

# About ten minutes on two cores, each of which learns from 0.3 million pixels a second. Ten held-out images of the
# membrane set: 90.9 % of the pixels right after a sixth of that, 92.0 % after nearly all of it.
BUDGET = EpochBudget(pixels=400e6, fewest=3, most=60)
# Up to so many images are taken for those of one instrument: they are shown from all sides, and at their own scale.
# Ten held-out images of the membrane set: 90.8 % of the pixels right without other scales and deformations, 90.4 with.
FEW_IMAGES = 100


def train_segmenter(parameters: Parameters, team: Team, device: torch.device) -> None:
    """Train the teacher as one of a team; its leader keeps the model."""
    settings = parameters.finetune
    prepare_training(parameters.seed, team.size if device.type == "cpu" else 1)
    classes, size = read_classes(), read_input_sizes().teacher
    manifest = read_manifest()
    training, validation = (masked_images(manifest, split, size) for split in ("train", "validation"))
    refuse_without_classes({"training": training, "validation": validation}, len(classes))
    recipe = segmenter_recipe(settings, size, len(training), parameters.seed, BUDGET)
    channels = training.packed.shape[3]
    checkpoint = open_checkpoint(
        "finetune",
        {"finetune": settings.model_dump(), "recipe": recipe.facts, "channels": channels, "fit": parameters.data.fit},
        [packed_images(size), packed_masks(size)],
    )
    with progress("finetune") if team.leads else nullcontext(silent) as report:
        trained, history = fine_tuned_segmenter(
            settings, training, validation, len(classes), recipe, checkpoint, report, device, team
        )
    if not team.leads:
        return
    mean, std = normalization(channels)
    keep_teacher(
        trained,
        checkpoint,
        problem="segmentation",
        input_size=size,
        channels=channels,
        fit=parameters.data.fit,
        mean=mean,
        std=std,
        classes=classes,
        notes={"backbone": settings.backbone, "history": history},
    )


def fine_tuned_segmenter(
    settings: Finetune,
    training: MaskedImages,
    validation: MaskedImages,
    n_classes: int,
    recipe: Recipe,
    checkpoint: Checkpoint,
    report: Report,
    device: torch.device | None = None,
    team: Team = ALONE,
) -> tuple[nn.Module, list[dict[str, float]]]:
    """Return a segmenter on a pretrained backbone after the whole recipe, and the history by epoch.

    validation: images that say which epoch's weights are kept. checkpoint: where the training goes on if it was
    interrupted; the caller clears it. device: what trains, the best that there is for None. team: the processes that
    train side by side.
    """
    channels = training.packed.shape[3]
    mean, std = normalization(channels)
    network, _ = pretrained_segmenter(settings.backbone, channels, n_classes, recipe.seed)
    return fit_segmenter(
        network,
        training,
        validation,
        recipe,
        n_classes=n_classes,
        mean=mean,
        std=std,
        device=device or pick_device(),
        label_smoothing=settings.label_smoothing,
        team=team,
        checkpoint=checkpoint,
        report=report,
    )


def masked_images(manifest: pd.DataFrame, split: str, size: int) -> MaskedImages:
    """Return the images of one split of a manifest, packed at this size, with their masks, memory-mapped."""
    rows = manifest.loc[manifest["split"] == split, "index"].to_numpy(np.int64, copy=True)
    return MaskedImages(open_packed(packed_images(size)), np.load(packed_masks(size), mmap_mode="r"), rows)


def refuse_without_classes(parts: dict[str, MaskedImages], n_classes: int) -> None:
    """Raise KingletError if the images of a part say nothing of any class. parts: by what they are called."""
    for name, images in parts.items():
        if not images.counts(n_classes).any():
            raise KingletError(
                f"None of the {len(images)} {name} images has a pixel with a class.",
                "Look at artifacts/split/counts.json and at the masks of these images.",
            )


def segmenter_recipe(settings: Finetune, size: int, n_images: int, seed: int, budget: EpochBudget) -> Recipe:
    """Return how a segmenter is trained: windows of the images first, whole images then.

    budget: what epochs left to "auto" may cost.
    """
    window = window_of_segmenter(size) if settings.low_resolution_share else size
    shown = n_images * times_shown(n_images)
    return teacher_recipe(
        settings, phases_between(settings, window, size, shown, budget), augmentations_of(settings, n_images), seed
    )


def augmentations_of(settings: Finetune, n_images: int) -> tuple[str, ...]:
    """Return the names of the augmentations for a training of so many images."""
    if settings.augment != AUTO:
        return tuple(settings.augment)
    if n_images <= FEW_IMAGES:
        return (FLIP, FLIP_VERTICALLY, TURN, CROP, COLOR)
    return (FLIP, CROP, SCALE, COLOR)
