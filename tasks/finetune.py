"""Fine-tune a network pretrained on ImageNet: the teacher."""

from __future__ import annotations

from contextlib import nullcontext

import torch
from torch import nn

from kinglet.errors import KingletError
from kinglet.models.registry import normalization, pretrained
from kinglet.reporting import Report, silent
from kinglet.training.checkpoints import Checkpoint
from kinglet.training.devices import pick_device
from kinglet.training.loop import ImageSet, Recipe, fit, fit_head
from kinglet.training.losses import label_loss
from kinglet.training.parallel import ALONE, Team, is_member, joined
from kinglet.training.schedules import EpochBudget
from tasks.artifacts import InputSizes, packed_images, read_input_sizes
from tasks.clip_training import train_clip_classifier
from tasks.detection_training import train_detector
from tasks.models import (
    channels_of,
    image_set,
    open_checkpoint,
    prepare_training,
    read_classes,
    read_manifest,
)
from tasks.parameters import Parameters
from tasks.progress import progress
from tasks.segmentation_training import train_segmenter
from tasks.settings_section import AUTO
from tasks.side_by_side import leave_it_to_the_leader, run_side_by_side
from tasks.stage import run_stage
from tasks.teacher import keep_teacher, phases_between, teacher_recipe
from tasks.training_settings import Finetune

BUDGET = EpochBudget(pixels=310e6, fewest=2, most=30)


# Shifted images teach a network that sees each of them a few times less than they hold it up: 86.0 instead of
# 88.8 % on Fashion-MNIST after a third of an epoch. Photographs seen ten times need them: 91.2 instead of 92.4 %
# without on trashnet.
SHIFT_FROM_EPOCHS = 6


def augmentations_of(settings: Finetune, epochs: float) -> tuple[str, ...]:
    """Return the names of the augmentations for a training of this many epochs."""
    if settings.augment == AUTO:
        return ("flip", "shift") if epochs >= SHIFT_FROM_EPOCHS else ("flip",)
    return tuple(settings.augment)


def phases_of(
    settings: Finetune, sizes: InputSizes, n_examples: int, budget: EpochBudget = BUDGET
) -> tuple[tuple[float, int], ...]:
    """Return the parts of the training as (epochs, input size): the cheaper, low resolution first.

    budget: what epochs left to "auto" may cost.
    """
    return phases_between(settings, sizes.low_resolution, sizes.teacher, n_examples, budget)


def recipe_of(settings: Finetune, phases: tuple[tuple[float, int], ...], seed: int) -> Recipe:
    """Return how the teacher is trained."""
    augment = augmentations_of(settings, sum(epochs for epochs, _ in phases))
    return teacher_recipe(settings, phases, augment, seed)


def fine_tuned(
    settings: Finetune,
    training: ImageSet,
    validation: ImageSet,
    n_classes: int,
    recipe: Recipe,
    low_resolution: int,
    checkpoint: Checkpoint,
    report: Report,
    device: torch.device | None = None,
    team: Team = ALONE,
) -> tuple[nn.Module, list[dict[str, float]]]:
    """Return a pretrained network after the whole recipe, the classifier alone first, and the history by epoch.

    validation: images that say which epoch's weights are kept. low_resolution: in pixels, what the classifier is
    fitted at. checkpoint: where the training goes on if it was interrupted; the caller clears it. device: what trains,
    the best that there is for None. team: the processes that train side by side.
    """
    channels = channels_of(training)
    mean, std = normalization(channels)
    device = device or pick_device()
    network, _ = pretrained(settings.backbone, channels, n_classes, settings.dropout)
    head_images = settings.head_images(len(training.rows))
    if head_images and checkpoint.load() is None:
        fit_head(
            network,
            training,
            low_resolution,
            head_images,
            seed=recipe.seed,
            report=report,
            mean=mean,
            std=std,
            device=device,
        )
    loss = label_loss(torch.from_numpy(training.labels), settings.label_smoothing)
    return fit(
        network,
        training,
        validation,
        loss,
        recipe,
        mean=mean,
        std=std,
        device=device,
        team=team,
        checkpoint=checkpoint,
        report=report,
    )


def run(parameters: Parameters) -> None:
    """Train the teacher, on several devices side by side where the settings name them."""
    devices = parameters.finetune.devices
    if len(devices) > 1 and not is_member():
        run_side_by_side("tasks.finetune", len(devices))
        return
    with joined(devices) as (team, device):
        try:
            TRAININGS[parameters.network](parameters, team, device)
        except KingletError as error:
            leave_it_to_the_leader(team, error)


def train_teacher(parameters: Parameters, team: Team, device: torch.device) -> None:
    """Train a classifier, the teacher, as one of a team; its leader keeps the model."""
    settings = parameters.finetune
    prepare_training(parameters.seed, team.size if device.type == "cpu" else 1)
    manifest, classes = read_manifest(), read_classes()
    sizes = read_input_sizes()
    training, validation = (image_set(manifest, split, sizes.all) for split in ("train", "validation"))
    recipe = recipe_of(settings, phases_of(settings, sizes, len(training.rows)), parameters.seed)
    channels = channels_of(training)
    mean, std = normalization(channels)
    checkpoint = open_checkpoint(
        "finetune",
        {"finetune": settings.model_dump(), "recipe": recipe.facts, "channels": channels},
        [packed_images(sizes.teacher)],
    )
    with progress("finetune") if team.leads else nullcontext(silent) as report:
        network, history = fine_tuned(
            settings, training, validation, len(classes), recipe, sizes.low_resolution, checkpoint, report, device, team
        )
    if not team.leads:
        return
    keep_teacher(
        network,
        checkpoint,
        input_size=sizes.teacher,
        channels=channels,
        fit=parameters.data.fit,
        mean=mean,
        std=std,
        classes=classes,
        notes={"backbone": settings.backbone, "history": history},
    )


TRAININGS = {
    "classification": train_teacher,
    "detection": train_detector,
    "segmentation": train_segmenter,
    "video": train_clip_classifier,
}


if __name__ == "__main__":
    run_stage(run)
