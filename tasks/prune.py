"""Remove channels from trained models and train them back from the teacher."""

from __future__ import annotations

from dataclasses import asdict

import torch

from kinglet.compression.pruning import prune_channels, reestimate_batch_norms
from kinglet.data.batches import gather, standardize
from kinglet.errors import KingletError
from kinglet.training.devices import pick_device
from kinglet.training.loop import Recipe, fit
from kinglet.training.losses import distillation_loss
from kinglet.training.schedules import EpochBudget
from tasks.artifacts import DISTILL, FINETUNE, PRUNE, model_folders, packed_images
from tasks.models import (
    TEACHER,
    image_set,
    load_model,
    open_checkpoint,
    prepare_training,
    read_manifest,
    read_teacher_logits,
    save_model,
)
from tasks.parameters import AUTO, Distill, Parameters, Prune
from tasks.progress import progress
from tasks.stage import run_stage

IMPORTANCE_BATCHES = 8
BUDGET = EpochBudget(pixels=130e6, fewest=2, most=30)


def recipe_of(settings: Prune, distill: Distill, input_size: int, n_examples: int, seed: int) -> Recipe:
    """Return how a pruned model is trained back: as it was distilled, but shorter and more gently."""
    epochs = BUDGET.epochs(n_examples, input_size**2) if settings.epochs == AUTO else settings.epochs
    return Recipe(
        phases=((epochs, input_size),),
        batch_size=settings.batch_size,
        learning_rate=settings.learning_rate,
        weight_decay=distill.weight_decay,
        warmup=distill.warmup,
        layer_decay=1.0,
        ema_decay=distill.ema_decay,
        patience=distill.patience,
        augment=tuple(distill.augment),
        precision="auto",
        seed=seed,
    )


def run(parameters: Parameters) -> None:
    """Prune every model that the settings name."""
    settings = parameters.prune
    prepare_training(parameters.seed)
    device = pick_device()
    folders = {folder.name: folder for folder in model_folders(FINETUNE, DISTILL)}
    unknown = [name for name in settings.models if name not in folders]
    if unknown:
        raise KingletError(f"params.yaml: prune.models names {', '.join(unknown)}; known: {', '.join(folders)}.")
    PRUNE.mkdir(parents=True, exist_ok=True)
    manifest = read_manifest()
    teacher_logits = torch.from_numpy(read_teacher_logits())
    for name in settings.models:
        network, card = load_model(folders[name])
        size = card.input_size
        training, validation = image_set(manifest, "train", [size]), image_set(manifest, "validation", [size])
        generator = torch.Generator().manual_seed(parameters.seed)
        order = torch.randperm(len(training.rows), generator=generator).numpy()
        parts = [
            order[start : start + settings.batch_size]
            for start in range(0, min(len(order), IMPORTANCE_BATCHES * settings.batch_size), settings.batch_size)
        ]
        inputs = [
            standardize(gather(training.packed[size], training.rows[part]), card.mean, card.std) for part in parts
        ]
        labels = [torch.from_numpy(training.labels[part]) for part in parts]
        pruned = prune_channels(
            network,
            inputs[0][:2],
            settings.channel_share,
            settings.importance,
            settings.round_to,
            zip(inputs, labels, strict=True),
        )
        reestimate_batch_norms(pruned, inputs)
        recipe = recipe_of(settings, parameters.distill, size, len(training.rows), parameters.seed)
        checkpoint = open_checkpoint(
            f"prune-{name}",
            {
                "prune": settings.model_dump(exclude={"models"}),
                "distill": parameters.distill.model_dump(exclude={"students"}),
                "recipe": asdict(recipe),
            },
            [packed_images(size), folders[name] / "model.pt", FINETUNE / TEACHER / "train_logits.npy"],
        )
        loss = distillation_loss(
            torch.from_numpy(training.labels),
            teacher_logits,
            parameters.distill.temperature,
            parameters.distill.soft_weight,
        )
        with progress(f"prune {name}") as report:
            trained, history = fit(
                pruned,
                training,
                validation,
                loss,
                recipe,
                mean=card.mean,
                std=card.std,
                device=device,
                checkpoint=checkpoint,
                report=report,
            )
        save_model(
            PRUNE / f"{name}-pruned",
            trained,
            step="prune",
            parent=name,
            input_size=size,
            channels=card.channels,
            fit=card.fit,
            mean=card.mean,
            std=card.std,
            classes=card.classes,
            notes={"history": history, "channel_share": settings.channel_share, "importance": settings.importance},
        )
        checkpoint.clear()


if __name__ == "__main__":
    run_stage(run)
