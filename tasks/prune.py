"""Remove channels from trained models and train them back from the teacher."""

from __future__ import annotations

from dataclasses import asdict

import torch

from kinglet.compression.pruning import prune_channels, reestimate_batch_norms
from kinglet.errors import KingletError
from kinglet.training.devices import pick_device
from kinglet.training.loop import fit
from kinglet.training.losses import distillation_loss
from tasks.artifacts import DISTILL, FINETUNE, PRUNE, model_folders, packed_images
from tasks.models import (
    TEACHER,
    image_set,
    load_model,
    open_checkpoint,
    prepare_training,
    read_manifest,
    read_teacher_logits,
    sample_batches,
    save_model,
)
from tasks.parameters import Parameters
from tasks.progress import progress
from tasks.recipes import pruned_recipe
from tasks.stage import run_stage

IMPORTANCE_BATCHES = 8


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
        batches = sample_batches(training, card, size, IMPORTANCE_BATCHES, settings.batch_size, parameters.seed)
        pruned = prune_channels(
            network,
            batches[0][0][:2],
            settings.channel_share,
            settings.importance,
            settings.round_to,
            batches,
        )
        reestimate_batch_norms(pruned, [inputs for inputs, _ in batches])
        recipe = pruned_recipe(settings, parameters.distill, size, len(training.rows), parameters.seed)
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
            parameters.distill.loss,
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
