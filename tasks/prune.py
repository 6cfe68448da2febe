"""Remove channels from trained models and train them back from the teacher."""

from __future__ import annotations

from kinglet.compression.pruning import prune_channels, reestimate_batch_norms
from kinglet.errors import KingletError
from tasks.artifacts import DISTILL, FINETUNE, PRUNE, model_folders
from tasks.distillation import train_from_teacher
from tasks.models import (
    image_set,
    load_model,
    prepare_training,
    read_manifest,
    sample_batches,
)
from tasks.parameters import Parameters
from tasks.recipes import pruned_recipe
from tasks.stage import run_stage

IMPORTANCE_BATCHES = 8


def run(parameters: Parameters) -> None:
    """Prune every model that the settings name."""
    settings = parameters.prune
    prepare_training(parameters.seed)
    folders = {folder.name: folder for folder in model_folders(FINETUNE, DISTILL)}
    unknown = [name for name in settings.models if name not in folders]
    if unknown:
        raise KingletError(f"params.yaml: prune.models names {', '.join(unknown)}; known: {', '.join(folders)}.")
    PRUNE.mkdir(parents=True, exist_ok=True)
    manifest = read_manifest()
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
        train_from_teacher(
            pruned,
            PRUNE / f"{name}-pruned",
            card,
            (training, validation),
            pruned_recipe(settings, parameters.distill, size, len(training.rows), parameters.seed),
            parameters.distill,
            parent=name,
            facts={"prune": settings.model_dump(exclude={"models"})},
            files=[folders[name] / "model.pt"],
            notes={"channel_share": settings.channel_share, "importance": settings.importance},
        )


if __name__ == "__main__":
    run_stage(run)
