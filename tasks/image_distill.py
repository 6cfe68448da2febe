"""Students of detectors and segmenters: the like on smaller backbones or for smaller images, and their controls."""

from __future__ import annotations

import sys
from typing import Any

from kinglet.models.export import fold_batch_norms
from kinglet.training.devices import pick_device
from kinglet.training.epochs import Recipe
from tasks.artifacts import DISTILL, FINETUNE, TEACHER, ModelCard, read_card, read_input_sizes, untaught
from tasks.image_distillation import train_taught_network
from tasks.image_networks import IMAGE_NETWORKS, Images
from tasks.models import load_model, read_manifest
from tasks.parameters import Parameters
from tasks.recipes import as_student
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
    """Train a network on a student's backbone from the labels and the teacher's answers, and save it.

    size: of its input in pixels. control_for: the student that it shows the worth of the teacher beside; then it
    learns from the labels alone, and has no parent.
    """
    assert student.backbone is not None, "the parameters are refused without one"
    networks, manifest = IMAGE_NETWORKS[teacher.problem], read_manifest()
    training, validation = (networks.images(manifest, split, size, teacher) for split in ("train", "validation"))
    notes: dict[str, Any] = {"backbone": student.backbone}
    if size != teacher.input_size and not control_for:
        notes[f"teacher_{networks.score_name}"] = told_of_teacher(name, validation, teacher)
    network, _ = networks.pretrained(student.backbone, teacher.channels, len(teacher.classes), parameters.seed)
    train_taught_network(
        network,
        DISTILL / name,
        teacher,
        (training, validation),
        recipe_of_student(parameters, size, len(training)),
        parameters.finetune,
        0.0 if control_for else parameters.distill.soft_weight,
        parent="" if control_for else TEACHER,
        facts={"backbone": student.backbone},
        notes=notes,
        control_for=control_for,
    )


def told_of_teacher(student: str, validation: Images, card: ModelCard) -> float:
    """Return the teacher's score on validation images of a student's size, and print it.

    It answers pictures of that size while the student learns, and knows less of them than of larger ones.
    """
    networks, device = IMAGE_NETWORKS[card.problem], pick_device()
    network = fold_batch_norms(load_model(FINETUNE / TEACHER)[0]).to(device)
    score = round(networks.score(network, validation, len(card.classes), card.mean, card.std, device), 6)
    print(
        f"note: at the {validation.size} pixels of {student} its teacher has a {networks.score_name} of {score:.4f} on "
        "validation images",
        file=sys.stderr,
    )
    return score


def recipe_of_student(parameters: Parameters, size: int, n_examples: int) -> Recipe:
    """Return how a student is trained: on pictures like the teacher's own, at its own size."""
    settings, networks = parameters.distill, IMAGE_NETWORKS[parameters.network]
    finetune = parameters.finetune.model_copy(update={"epochs": settings.epochs})
    # What stands behind the backbone begins with random weights, as the teacher's did: as many pixels pass as in its
    # training.
    recipe = networks.recipe(finetune, size, n_examples, parameters.seed, networks.budget)
    return as_student(recipe, settings)
