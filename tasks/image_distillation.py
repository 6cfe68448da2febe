"""Training of detectors and segmenters from labels and from the teacher's answers, as distill and prune share it."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from torch import nn

from kinglet.models.export import fold_batch_norms
from kinglet.training.devices import pick_device
from kinglet.training.epochs import Recipe
from kinglet.training.teaching import Teaching
from tasks.artifacts import FINETUNE, TEACHER, ModelCard, packed_images
from tasks.distillation import save_like
from tasks.image_networks import IMAGE_NETWORKS, Images
from tasks.models import load_model, open_checkpoint
from tasks.progress import progress
from tasks.training_settings import Finetune


def train_taught_network(
    network: nn.Module,
    output: Path,
    card: ModelCard,
    images: tuple[Images, Images],
    recipe: Recipe,
    finetune: Finetune,
    share: float,
    *,
    parent: str,
    facts: dict[str, Any],
    files: Iterable[Path] = (),
    notes: dict[str, Any],
    control_for: str = "",
) -> None:
    """Train a detector or a segmenter and save it as `output`, a folder STEP/NAME.

    card: of a model that takes images as this one will, but for their size. images: training and validation, packed
    at that size. finetune: by which the teacher learned from the labels. share: of the teacher's answers in the loss,
    [0, 1], the rest is the labels'; 0 asks no teacher. facts, files: what decides the training besides the recipe, the
    images and the teacher. parent: the model it is made from or taught by. notes, control_for: for its own card,
    beside the history.
    """
    step, (training, validation), networks = output.parent.name, images, IMAGE_NETWORKS[card.problem]
    teaching = Teaching(fold_batch_norms(load_model(FINETUNE / TEACHER)[0]), share) if share else None
    size = training.size
    checkpoint = open_checkpoint(
        f"{step}-{output.name}",
        {
            "recipe": recipe.facts,
            "soft_weight": share,
            "label_smoothing": finetune.label_smoothing,
            **facts,
        },
        [
            packed_images(size),
            networks.annotations(size),
            *([FINETUNE / TEACHER / "model.pt"] if share else []),
            *files,
        ],
    )
    with progress(f"{step} {output.name}") as report:
        trained, history = networks.fit(finetune)(
            network,
            training,
            validation,
            recipe,
            n_classes=len(card.classes),
            mean=card.mean,
            std=card.std,
            device=pick_device(),
            teaching=teaching,
            checkpoint=checkpoint,
            report=report,
        )
    save_like(
        output,
        trained,
        card,
        parent=parent,
        input_size=size,
        notes={"history": history, **notes},
        control_for=control_for,
    )
    checkpoint.clear()
