"""Students of a detector: detectors on smaller backbones or for smaller images, and their controls."""

from __future__ import annotations

import sys
from dataclasses import replace
from typing import Any

from kinglet.data.boxed_images import BoxedImages
from kinglet.models.export import fold_batch_norms
from kinglet.models.registry import pretrained_detector
from kinglet.training.detection import detections
from kinglet.training.devices import pick_device
from kinglet.training.epochs import Recipe
from kinglet.training.validation_precision import mean_average_precision
from tasks.artifacts import DISTILL, FINETUNE, TEACHER, ModelCard, read_card, read_input_sizes, untaught
from tasks.detection_distillation import train_detector_from_teacher
from tasks.detection_training import BUDGET, boxed_images, detector_recipe
from tasks.models import load_model, read_manifest
from tasks.parameters import Parameters
from tasks.settings_section import AUTO
from tasks.training_settings import Student


def train_students(parameters: Parameters) -> None:
    """Train every student of the settings, and of those that are to have one a control from the labels alone."""
    settings = parameters.distill
    if not settings.students:
        return
    teacher, sizes = read_card(FINETUNE / TEACHER), read_input_sizes().students
    for name, student in settings.students.items():
        train_student(name, student, sizes[name], teacher, parameters)
        if name in settings.controls:
            train_student(untaught(name), student, sizes[name], teacher, parameters, control_for=name)


def train_student(
    name: str, student: Student, size: int, teacher: ModelCard, parameters: Parameters, control_for: str = ""
) -> None:
    """Train a detector on a student's backbone from the labels and the teacher's answers, and save it.

    size: of its input in pixels. control_for: the student that it shows the worth of the teacher beside; then it
    learns from the labels alone, and has no parent.
    """
    assert student.backbone is not None, "the parameters are refused without one"
    manifest = read_manifest()
    training, validation = (
        boxed_images(manifest, split, size, teacher.fit, teacher.classes) for split in ("train", "validation")
    )
    notes: dict[str, Any] = {"backbone": student.backbone}
    if size != teacher.input_size and not control_for:
        notes["teacher_map_50"] = told_of_teacher(name, validation, teacher)
    network, _ = pretrained_detector(student.backbone, teacher.channels, len(teacher.classes), parameters.seed)
    train_detector_from_teacher(
        network,
        DISTILL / name,
        teacher,
        (training, validation),
        recipe_of_student(parameters, size, len(training)),
        0.0 if control_for else parameters.distill.soft_weight,
        parent="" if control_for else TEACHER,
        facts={"backbone": student.backbone},
        notes=notes,
        control_for=control_for,
    )


def told_of_teacher(student: str, validation: BoxedImages, card: ModelCard) -> float:
    """Return the teacher's mAP50 on validation images of a student's size, and print it.

    It answers pictures of that size while the student learns, and knows less of them than of larger ones.
    """
    device = pick_device()
    network = fold_batch_norms(load_model(FINETUNE / TEACHER)[0]).to(device)
    found = detections(network, validation, card.mean, card.std, device)
    score = round(mean_average_precision(found, validation.objects, len(card.classes)), 6)
    print(
        f"note: at the {validation.size} pixels of {student} its teacher has a map_50 of {score:.4f} on validation "
        "images",
        file=sys.stderr,
    )
    return score


def recipe_of_student(parameters: Parameters, size: int, n_examples: int) -> Recipe:
    """Return how a student is trained: on pictures like the teacher's own, all of them at its own size.

    The teacher knows less of smaller pictures, so no part of the training shows such.
    """
    settings = parameters.distill
    # Pyramid and head begin with random weights, as the teacher's did: as many pixels pass as in its training.
    epochs = BUDGET.epochs(n_examples, size**2) if settings.epochs == AUTO else settings.epochs
    return replace(
        detector_recipe(parameters.finetune, size, n_examples, parameters.seed),
        phases=((epochs, size),),
        batch_size=settings.batch_size,
        learning_rate=settings.learning_rate,
        weight_decay=settings.weight_decay,
        warmup=settings.warmup,
        ema_decay=settings.ema_decay,
        patience=settings.patience,
    )
