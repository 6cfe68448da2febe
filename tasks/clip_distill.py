"""Students of networks over clips: the like on smaller backbones or for smaller frames, and their controls.

The teacher answers every clip in a few views once; all students see the very same views.
"""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from kinglet.data.batches import images_in_a_row
from kinglet.data.views import Views
from kinglet.training.checkpoints import Checkpoint
from kinglet.training.losses import distillation_loss
from tasks.answer import KeptMaps, answers_of
from tasks.artifacts import (
    DISTILL,
    FINETUNE,
    TEACHER,
    ModelCard,
    packed_clips,
    read_card,
    read_input_sizes,
    untaught,
)
from tasks.clip_training import (
    ClipLosses,
    ClipRecipe,
    augmentations_of,
    clip_recipe,
    fine_tuned_clips,
    losses_by_labels,
    notes_on,
)
from tasks.distillation import save_like
from tasks.models import image_set, load_model, open_checkpoint, read_manifest
from tasks.parameters import Parameters
from tasks.progress import progress
from tasks.recipes import as_student
from tasks.setting_values import NO_HINTS
from tasks.settings_section import AUTO
from tasks.training_settings import Distill, Student

# Of a clip, that the teacher answers where nobody says how many: each costs one pass over all clips.
VIEWS = 8


def number_of_clip_views(parameters: Parameters) -> int:
    """Return how many views of a training clip the teacher answers: one where clips are shown as they are."""
    settings = parameters.distill
    if not augmentations_of(parameters.finetune):
        return 1
    return max(VIEWS if settings.views == AUTO else settings.views, parameters.recurrent.views)


def train_clip_students(parameters: Parameters) -> None:
    """Train every student of the settings, and of those that are to have one a control from the labels alone."""
    settings = parameters.distill
    if not settings.students:
        return
    teacher, sizes = read_card(FINETUNE / TEACHER), read_input_sizes().students
    answers = answers_of_teacher(parameters)
    for name, student in settings.students.items():
        train_student(name, student, sizes[name], teacher, parameters, answers)
        if name in settings.controls:
            train_student(untaught(name), student, sizes[name], teacher, parameters, control_for=name)


def answers_of_teacher(parameters: Parameters) -> Tensor:
    """Return the teacher's logits for all training clips in all views, float32 (n_clips, n_views, n_classes)."""
    network, card = load_model(FINETUNE / TEACHER)
    training = image_set(read_manifest(), "train", [card.input_size], packed_clips)
    shown = augmentations_of(parameters.finetune)
    views = Views(shown, len(training.rows), number_of_clip_views(parameters), parameters.seed)
    with ExitStack() as nothing, progress("distill, answers") as report:
        maps = KeptMaps(NO_HINTS, len(training.rows), views.n_views, nothing)
        return answers_of(network, card, training, views, maps, report)


def train_student(
    name: str,
    student: Student,
    size: int,
    teacher: ModelCard,
    parameters: Parameters,
    answers: Tensor | None = None,
    control_for: str = "",
) -> None:
    """Train a network over clips on a student's backbone, and save it.

    size: edge of its frames in pixels. answers: the teacher's, which it learns from beside the labels; None: from the
    labels alone. control_for: the student that it shows the worth of the teacher beside; it has no parent then.
    """
    assert student.backbone is not None, "the parameters are refused without one"
    settings, manifest = parameters.distill, read_manifest()
    training, validation = (image_set(manifest, split, [size], packed_clips) for split in ("train", "validation"))
    recipe = recipe_of_student(parameters, size, len(training.rows), images_in_a_row(training.packed[size]))
    labels = torch.from_numpy(training.labels)
    losses = (
        losses_by_labels(labels, recipe.views, 0.0)
        if answers is None
        else losses_by_teacher(labels, answers, recipe.views, settings)
    )
    facts = {
        "backbone": student.backbone,
        "recipe": recipe.facts,
        "distill": settings.model_dump(exclude={"students", "controls"}),
    }
    files = [packed_clips(size), *([] if answers is None else [FINETUNE / TEACHER / "model.pt"])]

    def checkpoint(part: str, further: dict[str, Any]) -> Checkpoint:
        return open_checkpoint(f"distill-{name}-{part}", {**facts, **further}, files)

    with progress(f"distill {name}") as report:
        network, history, checkpoints = fine_tuned_clips(
            parameters.finetune.model_copy(update={"backbone": student.backbone}),
            training,
            validation,
            len(teacher.classes),
            size,
            recipe,
            checkpoint,
            report,
            losses=losses,
        )
    save_like(
        DISTILL / name,
        network,
        teacher,
        parent="" if control_for else TEACHER,
        input_size=size,
        notes=notes_on(network, student.backbone, history),
        control_for=control_for,
    )
    for done in checkpoints:
        done.clear()


def recipe_of_student(parameters: Parameters, size: int, n_clips: int, n_frames: int) -> ClipRecipe:
    """Return how a student is trained: like the teacher, with the settings of `distill` where all of it learns.

    Its examples are the views that the teacher answers; the part behind the backbone sees the first of them.
    """
    settings, n_views = parameters.distill, number_of_clip_views(parameters)
    finetune = parameters.finetune.model_copy(update={"epochs": settings.epochs})
    recipe = clip_recipe(finetune, parameters.recurrent, n_clips, n_frames, size, parameters.seed)
    assert recipe.whole is not None, "the parameters are refused without epochs"
    whole = replace(as_student(recipe.whole, settings), views=n_views)
    return replace(recipe, whole=whole)


def losses_by_teacher(labels: Tensor, answers: Tensor, n_seen: int, settings: Distill) -> ClipLosses:
    """Return the losses of a training from labels, int64 (n_clips,), and the teacher's answers to the clips.

    answers: float32 (n_clips, n_views, n_classes). n_seen: views that the part behind the backbone sees.
    """
    of_views = answers[:, :n_seen].transpose(0, 1).reshape(-1, 1, answers.shape[2])
    common = settings.loss, settings.temperature, settings.soft_weight
    return ClipLosses(
        distillation_loss(labels.repeat(n_seen), of_views, *common), distillation_loss(labels, answers, *common)
    )
