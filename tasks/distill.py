"""Train small students from the teacher's answers."""

from __future__ import annotations

import torch

from kinglet.models.residual_cnn import ResidualCnn, ResidualCnnSpec, ResidualStage
from kinglet.training.devices import pick_device
from kinglet.training.loop import Recipe, fit
from kinglet.training.losses import distillation_loss
from tasks.artifacts import DISTILL, FINETUNE, packed_images, read_card
from tasks.models import (
    TEACHER,
    channels_of,
    image_set,
    open_checkpoint,
    prepare_training,
    read_manifest,
    read_teacher_logits,
    save_model,
)
from tasks.parameters import Distill, Parameters, Student
from tasks.progress import progress
from tasks.stage import run_stage


def recipe_of(settings: Distill, input_size: int, seed: int) -> Recipe:
    """Return how a student is trained."""
    return Recipe(
        phases=((settings.epochs, input_size),),
        batch_size=settings.batch_size,
        learning_rate=settings.learning_rate,
        weight_decay=settings.weight_decay,
        warmup=settings.warmup,
        layer_decay=1.0,
        ema_decay=settings.ema_decay,
        patience=settings.patience,
        augment=tuple(settings.augment),
        precision="auto",
        seed=seed,
    )


def student_spec(student: Student, channels: int, n_classes: int) -> ResidualCnnSpec:
    """Return the architecture that the settings of a student describe."""
    stages = tuple(ResidualStage(stage.width, stage.stride, (stage.width,) * stage.blocks) for stage in student.stages)
    return ResidualCnnSpec(channels, stages, n_classes)


def run(parameters: Parameters) -> None:
    """Train every student of the settings."""
    settings = parameters.distill
    prepare_training(parameters.seed)
    device = pick_device()
    teacher = read_card(FINETUNE / TEACHER)
    manifest = read_manifest()
    teacher_logits = torch.from_numpy(read_teacher_logits())
    for name, student in settings.students.items():
        training = image_set(manifest, "train", [student.input_size])
        validation = image_set(manifest, "validation", [student.input_size])
        torch.manual_seed(parameters.seed)
        network = ResidualCnn(student_spec(student, channels_of(training), len(teacher.classes)))
        checkpoint = open_checkpoint(
            f"distill-{name}",
            {
                "distill": settings.model_dump(exclude={"students"}),
                "student": student.model_dump(),
                "seed": parameters.seed,
            },
            [packed_images(student.input_size), FINETUNE / TEACHER / "train_logits.npy"],
        )
        loss = distillation_loss(
            torch.from_numpy(training.labels), teacher_logits, settings.temperature, settings.soft_weight
        )
        with progress(f"distill {name}") as report:
            trained, history = fit(
                network,
                training,
                validation,
                loss,
                recipe_of(settings, student.input_size, parameters.seed),
                mean=teacher.mean,
                std=teacher.std,
                device=device,
                checkpoint=checkpoint,
                report=report,
            )
        save_model(
            DISTILL / name,
            trained,
            step="distill",
            parent=TEACHER,
            input_size=student.input_size,
            channels=teacher.channels,
            fit=teacher.fit,
            mean=teacher.mean,
            std=teacher.std,
            classes=teacher.classes,
            notes={"history": history},
        )
        checkpoint.clear()


if __name__ == "__main__":
    run_stage(run)
