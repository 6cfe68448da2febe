"""Train small students from the teacher's answers."""

from __future__ import annotations

from dataclasses import asdict

import torch

from kinglet.models.residual_cnn import ResidualCnn, ResidualCnnSpec, ResidualStage
from kinglet.training.devices import pick_device
from kinglet.training.loop import Recipe, fit
from kinglet.training.losses import distillation_loss
from kinglet.training.schedules import EpochBudget
from tasks.artifacts import DISTILL, FINETUNE, packed_images, read_card, read_input_sizes
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
from tasks.parameters import AUTO, Distill, Parameters, Student
from tasks.progress import progress
from tasks.stage import run_stage

BUDGET = EpochBudget(pixels=760e6, fewest=4, most=120)


def recipe_of(settings: Distill, input_size: int, n_examples: int, seed: int) -> Recipe:
    """Return how a student is trained."""
    epochs = BUDGET.epochs(n_examples, input_size**2) if settings.epochs == AUTO else settings.epochs
    return Recipe(
        phases=((epochs, input_size),),
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
    input_sizes = read_input_sizes().students
    for name, student in settings.students.items():
        size = input_sizes[name]
        training, validation = (image_set(manifest, split, [size]) for split in ("train", "validation"))
        torch.manual_seed(parameters.seed)
        network = ResidualCnn(student_spec(student, channels_of(training), len(teacher.classes)))
        recipe = recipe_of(settings, size, len(training.rows), parameters.seed)
        checkpoint = open_checkpoint(
            f"distill-{name}",
            {
                "distill": settings.model_dump(exclude={"students"}),
                "student": student.model_dump(),
                "recipe": asdict(recipe),
            },
            [packed_images(size), FINETUNE / TEACHER / "train_logits.npy"],
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
                recipe,
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
            input_size=size,
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
