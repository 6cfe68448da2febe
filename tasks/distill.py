"""Train small students from the teacher's answers: those of the settings, and the search's survivors in full."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import Any

from torch import nn

from kinglet.models.registry import pretrained
from kinglet.models.residual_cnn import ResidualCnnSpec, ResidualStage, random_residual_cnn
from kinglet.training.devices import pick_device
from kinglet.training.loop import ImageSet, fit_head
from tasks.artifacts import (
    DISTILL,
    FINETUNE,
    SEARCH,
    TEACHER,
    ModelCard,
    model_folders,
    read_card,
    read_input_sizes,
    untaught,
)
from tasks.clip_distill import train_clip_students
from tasks.distillation import train_from_teacher
from tasks.image_distill import train_students
from tasks.models import (
    image_set,
    load_model,
    prepare_training,
    read_manifest,
    taught_images,
)
from tasks.parameters import Parameters
from tasks.recipes import student_recipe
from tasks.setting_values import NO_HINTS
from tasks.stage import run_stage
from tasks.training_settings import Student


class Start(Enum):
    """Which weights a student begins with."""

    RANDOM = "random"
    BACKBONE = "backbone"  # of ImageNet, behind which a classifier is still to be fitted
    TEACHER = "teacher"


@dataclass(frozen=True)
class Untrained:
    """A student before its training.

    facts: what decides its network, JSON-ready. files: what else its training is decided by. notes: for its card.
    control_for: the student that shows what the teacher is worth beside this one, which learns from labels alone.
    """

    name: str
    network: nn.Module
    input_size: int
    start: Start
    facts: dict[str, Any]
    files: list[Path]
    notes: dict[str, Any]
    control_for: str = ""


def student_spec(student: Student, channels: int, n_classes: int) -> ResidualCnnSpec:
    """Return the architecture that the settings of a student describe."""
    stages = tuple(ResidualStage(stage.width, stage.stride, (stage.width,) * stage.blocks) for stage in student.stages)
    return ResidualCnnSpec(channels, stages, n_classes)


def untrained_network(student: Student, teacher: ModelCard, seed: int) -> nn.Module:
    """Return the network of a student: on a backbone with ImageNet weights, or of stages with random ones."""
    channels, n_classes = teacher.channels, len(teacher.classes)
    if student.backbone is not None:
        return pretrained(student.backbone, channels, n_classes, 0.0)[0]
    return random_residual_cnn(student_spec(student, channels, n_classes), seed)


def untrained_students(parameters: Parameters, teacher: ModelCard) -> Iterator[Untrained]:
    """Yield the students of the settings and their controls, then the survivors of the search."""
    sizes = read_input_sizes().students
    for name, student in parameters.distill.students.items():
        start, facts, notes = Start.RANDOM, student.model_dump(), dict[str, Any]()
        if student.backbone is not None:
            start, notes = Start.BACKBONE, {"backbone": student.backbone}
            facts["head_epochs"] = parameters.finetune.head_epochs
        network = untrained_network(student, teacher, parameters.seed)
        yield Untrained(name, network, sizes[name], start, facts, [], notes)
        if name in parameters.distill.controls:
            network = untrained_network(student, teacher, parameters.seed)
            yield Untrained(untaught(name), network, sizes[name], start, facts, [], notes, control_for=name)
    for folder in model_folders(SEARCH):
        survivor, card = load_model(folder)
        yield Untrained(
            card.name,
            survivor.requires_grad_(True),
            card.input_size,
            Start.TEACHER if card.notes["from_teacher"] else Start.RANDOM,
            {},
            [folder / "model.pt", folder / "model.json"],
            {"search": card.notes},
        )


def run(parameters: Parameters) -> None:
    """Train every student."""
    prepare_training(parameters.seed)
    DISTILL.mkdir(parents=True, exist_ok=True)
    TRAININGS[parameters.network](parameters)


def train_classifiers(parameters: Parameters) -> None:
    """Train every classifier among the students."""
    settings = parameters.distill
    manifest = read_manifest()
    teacher = read_card(FINETUNE / TEACHER)
    for student in untrained_students(parameters, teacher):
        size = student.input_size
        labelled = image_set(manifest, "train", [size])
        if student.start is Start.BACKBONE:
            fit_classifier(student.network, labelled, size, teacher, parameters)
        # Labels alone teach nothing about images without one.
        training = labelled if student.control_for else taught_images([size])
        pretrained_weights = student.start is not Start.RANDOM
        validation = image_set(manifest, "validation", [size])
        train_from_teacher(
            student.network,
            DISTILL / student.name,
            teacher,
            (training, validation),
            student_recipe(settings, pretrained_weights, size, len(training.rows), parameters.seed),
            settings.model_copy(update={"soft_weight": 0.0, "hints": NO_HINTS}) if student.control_for else settings,
            parent="" if student.control_for else TEACHER,
            facts={"student": student.facts},
            files=student.files,
            notes=student.notes,
            control_for=student.control_for,
        )


def fit_classifier(
    network: nn.Module, training: ImageSet, size: int, teacher: ModelCard, parameters: Parameters
) -> None:
    """Fit the classifier alone behind a pretrained backbone, on as many images as that of the teacher."""
    n_images = parameters.finetune.head_images(len(training.rows))
    if not n_images:
        return
    fit_head(
        network,
        training,
        size,
        n_images,
        mean=teacher.mean,
        std=teacher.std,
        device=pick_device(),
        seed=parameters.seed,
    )


TRAININGS = {
    "classification": train_classifiers,
    "detection": train_students,
    "segmentation": train_students,
    "video": train_clip_students,
}

if __name__ == "__main__":
    run_stage(run)
