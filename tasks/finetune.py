"""Fine-tune a network pretrained on ImageNet: the teacher."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from kinglet.atomic import atomic_path
from kinglet.models.registry import normalization, pretrained
from kinglet.training.devices import pick_device
from kinglet.training.loop import Recipe, fit, fit_head, predict
from kinglet.training.losses import label_loss
from tasks.artifacts import FINETUNE, packed_images
from tasks.models import (
    TEACHER,
    channels_of,
    image_set,
    open_checkpoint,
    prepare_training,
    read_classes,
    read_manifest,
    save_model,
)
from tasks.parameters import Finetune, Parameters
from tasks.progress import progress
from tasks.stage import run_stage


def recipe_of(settings: Finetune, seed: int) -> Recipe:
    """Return how the teacher is trained."""
    phases = tuple((phase.epochs, phase.input_size or settings.input_size) for phase in settings.phases)
    return Recipe(
        phases=(*phases[:-1], (phases[-1][0], settings.input_size)),
        batch_size=settings.batch_size,
        learning_rate=settings.learning_rate,
        weight_decay=settings.weight_decay,
        warmup=settings.warmup,
        layer_decay=settings.layer_decay,
        ema_decay=settings.ema_decay,
        patience=settings.patience,
        augment=tuple(settings.augment),
        precision=settings.precision,
        seed=seed,
    )


def run(parameters: Parameters) -> None:
    """Train the teacher, and keep its answers to the training images for its students."""
    settings = parameters.finetune
    prepare_training(parameters.seed)
    device = pick_device()
    recipe = recipe_of(settings, parameters.seed)
    sizes = [size for _, size in recipe.phases]
    manifest, classes = read_manifest(), read_classes()
    training, validation = image_set(manifest, "train", sizes), image_set(manifest, "validation", sizes)
    channels = channels_of(training)
    mean, std = normalization(channels)
    checkpoint = open_checkpoint(
        "finetune",
        {"finetune": settings.model_dump(), "seed": parameters.seed, "channels": channels},
        [packed_images(settings.input_size)],
    )
    network, _ = pretrained(settings.backbone, channels, len(classes), settings.dropout)
    preparation: dict[str, Any] = {"mean": mean, "std": std, "device": device}
    with progress("finetune") as report:
        head_images = min(len(training.rows), round(settings.head_epochs * len(training.rows)))
        if head_images and checkpoint.load() is None:
            fit_head(network, training, sizes[0], head_images, seed=parameters.seed, report=report, **preparation)
        loss = label_loss(torch.from_numpy(training.labels), settings.label_smoothing)
        network, history = fit(
            network, training, validation, loss, recipe, checkpoint=checkpoint, report=report, **preparation
        )
    views = [False, True] if "flip" in parameters.distill.augment else [False]
    packed = training.packed[settings.input_size]
    with progress("finetune: teacher's answers") as report:
        answers = []
        for number, mirrored in enumerate(views):
            report(number, len(views), "views")
            answers.append(predict(network.to(device), packed, training.rows, mean, std, device, mirrored=mirrored))
        report(len(views), len(views), "views")
    folder = FINETUNE / TEACHER
    folder.mkdir(parents=True, exist_ok=True)
    save_model(
        folder,
        network,
        step="finetune",
        parent="",
        input_size=settings.input_size,
        channels=channels,
        fit=parameters.data.fit,
        mean=mean,
        std=std,
        classes=classes,
        notes={"backbone": settings.backbone, "history": history},
    )
    with atomic_path(folder / "train_logits.npy") as temporary, temporary.open("wb") as file:
        np.save(file, torch.stack(answers, dim=1).numpy().astype(np.float32))
    checkpoint.clear()


if __name__ == "__main__":
    run_stage(run)
