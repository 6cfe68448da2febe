"""What the trainings of teachers share, whatever their problem: the parts, the recipe, and what is kept."""

from __future__ import annotations

from typing import Any

from torch import nn

from kinglet.training.checkpoints import Checkpoint
from kinglet.training.epochs import Recipe
from kinglet.training.schedules import EpochBudget
from tasks.artifacts import FINETUNE, TEACHER
from tasks.models import save_model
from tasks.settings_section import AUTO
from tasks.training_settings import Finetune

Phases = tuple[tuple[float, int], ...]


def phases_between(settings: Finetune, low: int, full: int, n_examples: int, budget: EpochBudget) -> Phases:
    """Return the parts of a training as (epochs, input size): the cheaper, low resolution first.

    low, full: the two sizes in pixels, the same where there is one part. budget: what epochs left to "auto" may cost.
    """
    low_share = settings.low_resolution_share
    pixels_per_example = low_share * low**2 + (1 - low_share) * full**2
    epochs = budget.epochs(n_examples, pixels_per_example) if settings.epochs == AUTO else settings.epochs
    if low == full:
        return ((epochs, full),)
    return ((low_share * epochs, low), ((1 - low_share) * epochs, full))


def teacher_recipe(settings: Finetune, phases: Phases, augment: tuple[str, ...], seed: int) -> Recipe:
    """Return how a teacher is trained. augment: names of augmentations."""
    return Recipe(
        phases=phases,
        batch_size=settings.batch_size,
        learning_rate=settings.learning_rate,
        weight_decay=settings.weight_decay,
        warmup=settings.warmup,
        layer_decay=settings.layer_decay,
        ema_decay=settings.ema_decay,
        patience=settings.patience,
        augment=augment,
        precision=settings.precision,
        seed=seed,
    )


def keep_teacher(network: nn.Module, checkpoint: Checkpoint, **facts: Any) -> None:
    """Write the trained teacher, and clear the checkpoint behind it. facts: of its card, as `save_model` takes them."""
    folder = FINETUNE / TEACHER
    folder.mkdir(parents=True, exist_ok=True)
    save_model(folder, network, step="finetune", parent="", **facts)
    checkpoint.clear()
