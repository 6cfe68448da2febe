"""How networks learn from the teacher's answers: the recipes that the steps search, distill and prune share."""

from __future__ import annotations

from dataclasses import replace

from kinglet.training.loop import Recipe
from kinglet.training.schedules import EpochBudget
from tasks.compression_settings import Prune
from tasks.settings_section import AUTO
from tasks.training_settings import Distill

# Twelve epochs of Fashion-MNIST: residual-16 has 92.9 % then, and 93.0 % after sixteen (10,000 test images).
STUDENT_BUDGET = EpochBudget(pixels=510e6, fewest=4, most=120)
# A network with trained weights has little to learn anew, and costs several times as much per pixel.
PRETRAINED_BUDGET = EpochBudget(pixels=155e6, fewest=2, most=30)
PRUNED_BUDGET = EpochBudget(pixels=100e6, fewest=2, most=30)


# More views cost the teacher's time, once; an image is seen about as often in a long training.
MANY_VIEWS = 16


def number_of_views(settings: Distill) -> int:
    """Return how many views of a training image the teacher answers: all where there are only one or two."""
    if settings.views != AUTO:
        return settings.views
    return {(): 1, ("flip",): 2, ("flip_vertically",): 2}.get(tuple(settings.augment), MANY_VIEWS)


def student_recipe(settings: Distill, pretrained: bool, input_size: int, n_examples: int, seed: int) -> Recipe:
    """Return how a student is trained: anew, or on from weights, the teacher's or a backbone's."""
    own = settings.from_teacher if pretrained else settings
    budget = PRETRAINED_BUDGET if pretrained else STUDENT_BUDGET
    epochs = budget.epochs(n_examples, input_size**2) if own.epochs == AUTO else own.epochs
    return Recipe(
        phases=((epochs, input_size),),
        batch_size=own.batch_size,
        learning_rate=own.learning_rate,
        weight_decay=settings.weight_decay,
        warmup=settings.warmup,
        layer_decay=1.0,
        ema_decay=settings.ema_decay,
        patience=settings.patience,
        augment=tuple(settings.augment),
        views=number_of_views(settings),
        precision="auto",
        seed=seed,
    )


def as_student(recipe: Recipe, settings: Distill) -> Recipe:
    """Return the recipe of a teacher as its students are trained by it, with its phases and augmentations."""
    return replace(
        recipe,
        batch_size=settings.batch_size,
        learning_rate=settings.learning_rate,
        weight_decay=settings.weight_decay,
        warmup=settings.warmup,
        ema_decay=settings.ema_decay,
        patience=settings.patience,
    )


def pruned_recipe(settings: Prune, distill: Distill, input_size: int, n_examples: int, seed: int) -> Recipe:
    """Return how a pruned model is trained back: as it was distilled, but shorter and more gently."""
    epochs = PRUNED_BUDGET.epochs(n_examples, input_size**2) if settings.epochs == AUTO else settings.epochs
    return replace(
        student_recipe(distill, False, input_size, n_examples, seed),
        phases=((epochs, input_size),),
        batch_size=settings.batch_size,
        learning_rate=settings.learning_rate,
    )
