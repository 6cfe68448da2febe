"""Training from the teacher's answers, as the steps search, distill and prune share it."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from kinglet.training.devices import pick_device
from kinglet.training.hints import Guided, guide, hinted_loss
from kinglet.training.loop import ImageSet, Recipe, fit
from kinglet.training.losses import NO_LABEL, Loss, distillation_loss
from tasks.artifacts import ANSWERS, MAPS, UNLABELLED, ModelCard, packed_images
from tasks.models import open_checkpoint, save_model
from tasks.progress import progress
from tasks.setting_values import NO_HINTS
from tasks.training_settings import Distill


def teacher_loss(settings: Distill, labels: NDArray[Any]) -> Loss:
    """Return the loss that the settings describe. labels: int64 (n_training,)."""
    answers = torch.from_numpy(np.load(ANSWERS)).float()
    return distillation_loss(
        torch.from_numpy(labels), answers, settings.loss, settings.temperature, settings.soft_weight
    )


def teacher_maps(settings: Distill) -> dict[Path, NDArray[np.float16]]:
    """Return what the teacher saw, by file, (n_training, n_views, channels, edge, edge) each; {} without hints.

    They stay on disk: a batch reads its own.
    """
    if settings.hints == NO_HINTS:
        return {}
    return {path: np.load(path, mmap_mode="r") for path in sorted(MAPS.glob("*.npy"))}


def guided_by(
    maps: dict[Path, NDArray[np.float16]],
    network: nn.Module,
    loss: Loss,
    settings: Distill,
    input_shape: tuple[int, int, int],
    seed: int,
) -> tuple[Guided, Loss]:
    """Return a network that learns from the teacher's maps beside its answers, and the loss that it learns with."""
    seen = list(maps.values())
    guided, chosen = guide(network, settings.hints, input_shape, [one.shape[2:4] for one in seen], seed)
    return guided, hinted_loss(loss, settings.hints, [seen[place] for place in chosen], settings.hint_weight)


def train_from_teacher(
    network: nn.Module,
    output: Path,
    card: ModelCard,
    images: tuple[ImageSet, ImageSet],
    recipe: Recipe,
    settings: Distill,
    *,
    parent: str,
    facts: dict[str, Any],
    files: Iterable[Path],
    notes: dict[str, Any],
    control_for: str = "",
) -> None:
    """Train a network from the teacher's answers and save it as `output`, a folder STEP/NAME.

    card: of a model that takes images as this one will, but for their size, which is the recipe's last. images:
    training and validation. facts, files: what decides the training besides the recipe, the settings and the
    answers. parent: the model it is made from or taught by. notes, control_for: for its own card, beside the history.
    """
    step, size = output.parent.name, recipe.phases[-1][1]
    training, validation = images
    loss = teacher_loss(settings, training.labels)
    maps = teacher_maps(settings)
    subject = network
    if maps:
        subject, loss = guided_by(maps, network, loss, settings, (card.channels, size, size), recipe.seed)
    checkpoint = open_checkpoint(
        f"{step}-{output.name}",
        {"distill": settings.model_dump(exclude={"students"}), "recipe": recipe.facts, **facts},
        [packed_images(size), UNLABELLED, ANSWERS, *maps, *files],
    )
    with progress(f"{step} {output.name}") as report:
        trained, history = fit(
            subject,
            training,
            validation,
            loss,
            recipe,
            mean=card.mean,
            std=card.std,
            device=pick_device(),
            checkpoint=checkpoint,
            report=report,
        )
    notes = {"history": history, **notes}
    if n_unlabelled := int((training.labels == NO_LABEL).sum()):
        notes["images_without_a_label"] = n_unlabelled
    save_like(
        output,
        trained.student if isinstance(trained, Guided) else trained,
        card,
        parent=parent,
        input_size=size,
        notes=notes,
        control_for=control_for,
    )
    checkpoint.clear()


def save_like(
    output: Path,
    network: nn.Module,
    card: ModelCard,
    *,
    parent: str,
    input_size: int,
    notes: dict[str, Any],
    control_for: str = "",
) -> None:
    """Save a network that takes images as the model of `card` does, but for their size, as `output`, STEP/NAME."""
    save_model(
        output,
        network,
        step=output.parent.name,
        parent=parent,
        input_size=input_size,
        channels=card.channels,
        fit=card.fit,
        mean=card.mean,
        std=card.std,
        classes=card.classes,
        notes=notes,
        control_for=control_for,
        problem=card.problem,
    )
