"""Fine-tune a clip classifier on a backbone pretrained on ImageNet: the teacher where videos have classes."""

from __future__ import annotations

import copy
import hashlib
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from kinglet.data.batches import images_in_a_row
from kinglet.data.views import Views
from kinglet.models.clip_classifier import ClipClassifier
from kinglet.models.registry import normalization, pretrained_clip_classifier
from kinglet.reporting import Report, silent
from kinglet.training.checkpoints import Checkpoint
from kinglet.training.clips import fit_behind, write_places
from kinglet.training.devices import pick_device
from kinglet.training.epochs import Recipe
from kinglet.training.loop import ImageSet, accuracy_of, fit
from kinglet.training.losses import Loss, label_loss
from kinglet.training.parallel import ALONE, Team
from kinglet.training.schedules import EpochBudget
from tasks.artifacts import packed_clips, read_input_sizes
from tasks.clip_settings import Recurrent
from tasks.models import channels_of, image_set, open_checkpoint, prepare_training, read_classes, read_manifest
from tasks.parameters import Parameters
from tasks.progress import progress
from tasks.settings_section import AUTO
from tasks.teacher import keep_teacher, phases_between, teacher_recipe
from tasks.training_settings import Finetune

# About ten minutes on two cores.
BUDGET = EpochBudget(pixels=250e6, fewest=1, most=30)
# How clips are shown where nobody says it. Nothing mirrors them: left and right may be classes.
AUGMENT = ("shift", "color")
# Of the part behind the backbone: clips that it is shown, and the fewest and most epochs.
SHOWN_CLIPS, FEWEST_EPOCHS, MOST_EPOCHS = 40_000, 5, 60


@dataclass(frozen=True)
class ClipRecipe:
    """How a clip classifier is trained: what stands behind the backbone alone, then all of it.

    behind: of the part behind. views: in how many ways the backbone sees each clip for that. whole: of all together;
    None leaves the backbone as it is.
    """

    recurrent: Recurrent
    behind: Recipe
    views: int
    whole: Recipe | None

    @property
    def phases(self) -> tuple[tuple[float, int], ...]:
        """Of all together, as in `Recipe`; where that is not trained, of the part behind."""
        return (self.whole or self.behind).phases

    @property
    def seed(self) -> int:
        """Of both parts."""
        return self.behind.seed

    @property
    def facts(self) -> dict[str, Any]:
        """What decides a training, JSON-ready."""
        whole = self.whole.facts if self.whole else None
        return {"behind": self.behind.facts, "whole": whole, "recurrent": self.recurrent.model_dump()}


Checkpoints = Callable[[str, dict[str, Any]], Checkpoint]


@dataclass(frozen=True)
class ClipLosses:
    """By what a clip classifier learns. behind: of the part behind the backbone, whose examples are all clips in the
    first view, then all in the second, and so on. whole: of all together, whose examples are the clips.
    """

    behind: Loss
    whole: Loss


def losses_by_labels(labels: Tensor, n_views: int, label_smoothing: float) -> ClipLosses:
    """Return the losses of a training from the clips' labels, int64 (n_clips,). n_views: that the backbone sees."""
    return ClipLosses(label_loss(labels.repeat(n_views), label_smoothing), label_loss(labels, label_smoothing))


def train_clip_classifier(parameters: Parameters, team: Team, device: torch.device) -> None:
    """Train the teacher as one of a team; its leader keeps the model."""
    settings = parameters.finetune
    prepare_training(parameters.seed, team.size if device.type == "cpu" else 1)
    classes, size, manifest = read_classes(), read_input_sizes().teacher, read_manifest()
    training, validation = (image_set(manifest, split, [size], packed_clips) for split in ("train", "validation"))
    n_frames = images_in_a_row(training.packed[size])
    recipe = clip_recipe(settings, parameters.recurrent, len(training.rows), n_frames, size, parameters.seed)
    facts = {"finetune": settings.model_dump(), "recipe": recipe.facts, "channels": channels_of(training)}

    def checkpoint(part: str, further: dict[str, Any]) -> Checkpoint:
        return open_checkpoint(f"finetune-{part}", {**facts, **further}, [packed_clips(size)])

    with progress("finetune") if team.leads else nullcontext(silent) as report:
        network, history, checkpoints = fine_tuned_clips(
            settings, training, validation, len(classes), size, recipe, checkpoint, report, device, team
        )
    if not team.leads:
        return
    mean, std = normalization(channels_of(training))
    for done in checkpoints[1:]:
        done.clear()
    keep_teacher(
        network,
        checkpoints[0],
        problem="video",
        input_size=size,
        channels=channels_of(training),
        fit=parameters.data.fit,
        mean=mean,
        std=std,
        classes=classes,
        notes=notes_on(network, settings.backbone, history),
    )


def fine_tuned_clips(
    settings: Finetune,
    training: ImageSet,
    validation: ImageSet,
    n_classes: int,
    size: int,
    recipe: ClipRecipe,
    checkpoint: Checkpoints,
    report: Report,
    device: torch.device | None = None,
    team: Team = ALONE,
    losses: ClipLosses | None = None,
) -> tuple[ClipClassifier, list[dict[str, Any]], list[Checkpoint]]:
    """Return a clip classifier after both parts of the training, the history by epoch, and what the caller clears.

    What stands behind the backbone comes first: from random weights it would send noise through pretrained layers.
    Source: Kumar et al. 2022, "Fine-Tuning can Distort Pretrained Features" (linear probing first).
    validation: clips that say which epoch's weights are kept. size: edge of a frame in pixels. checkpoint: from a
    part's name and what else decides it to where it goes on if it was interrupted. device, team: as for `train`.
    losses: by which it learns, those of the labels for None.
    """
    channels, device = channels_of(training), device or pick_device()
    mean, std = normalization(channels)
    network, _ = pretrained_clip_classifier(
        settings.backbone,
        channels,
        n_classes,
        recipe.behind.seed,
        input_size=size,
        frames=training.packed[size].shape[1],
        cell=recipe.recurrent.kind,
        units=recipe.recurrent.units,
        dropout=recipe.recurrent.dropout,
    )
    common: dict[str, Any] = {"device": device, "team": team, "report": report}
    if losses is None:
        losses = losses_by_labels(torch.from_numpy(training.labels), recipe.views, settings.label_smoothing)
    places = checkpoint("recurrent", {"backbone": weights_digest(network.backbone)})
    views = Views(recipe.behind.augment, len(training.rows), recipe.views, recipe.behind.seed)
    pooled = [
        write_places(
            places.folder / f"{name}.npy",
            network,
            clips,
            size,
            mean=mean,
            std=std,
            device=device,
            views=shown,
            report=report,
        )
        for name, clips, shown in (("training", training, views), ("validation", validation, None))
    ]
    behind, history = fit_behind(
        network.behind,
        (pooled[0], np.tile(training.labels, recipe.views)),
        (pooled[1], validation.labels),
        losses.behind,
        recipe.behind,
        checkpoint=places,
        **common,
    )
    network.behind.load_state_dict(behind.state_dict())
    parts = [{**epoch, "part": "recurrent"} for epoch in history]
    if recipe.whole is None:
        return network.cpu().eval(), parts, [places]
    whole = checkpoint("whole", {})
    score = accuracy_of(network, validation, size, mean, std, device) if team.leads else 0.0
    trained, history = fit(
        copy.deepcopy(network),
        training,
        validation,
        losses.whole,
        recipe.whole,
        mean=mean,
        std=std,
        checkpoint=whole,
        **common,
    )
    parts += [{**epoch, "part": "whole"} for epoch in history]
    assert isinstance(trained, ClipClassifier)
    is_better = max(epoch["accuracy"] for epoch in history) >= team.told(score, device)
    return (trained if is_better else network).cpu().eval(), parts, [places, whole]


def notes_on(network: ClipClassifier, backbone: str, history: list[dict[str, Any]]) -> dict[str, Any]:
    """Return what the card of a clip classifier says of it."""
    spec = network.spec
    sizes = {"frames": spec.frames, "feature_size": spec.feature_size, "state_size": spec.state_size}
    return {"backbone": backbone, "history": history, **sizes}


def forget_places(checkpoint: Checkpoint) -> None:
    """Delete the maps of clips beside the state of a training that is done: where several are kept, they fill a disk.

    checkpoint: of the part behind the backbone. The training goes on from it as before; the maps are written anew.
    """
    for file in checkpoint.folder.glob("*.npy"):
        file.unlink()


def clip_recipe(
    settings: Finetune,
    recurrent: Recurrent,
    n_clips: int,
    n_frames: int,
    size: int,
    seed: int,
    budget: EpochBudget = BUDGET,
) -> ClipRecipe:
    """Return how a clip classifier is trained with this many clips.

    n_frames: of a clip. size: edge of a frame in pixels. budget: what epochs of the whole network may cost where they
    are left to "auto".
    """
    augment = augmentations_of(settings)
    views = recurrent.views if augment else 1
    behind = Recipe(
        phases=((recurrent_epochs(recurrent, n_clips * views), size),),
        batch_size=recurrent.batch_size,
        learning_rate=recurrent.learning_rate,
        weight_decay=recurrent.weight_decay,
        warmup=settings.warmup,
        layer_decay=1.0,
        ema_decay=settings.ema_decay,
        patience=1000,
        augment=augment,
        precision=settings.precision,
        seed=seed,
    )
    # All frames of a clip pass through the network: a clip costs as much as so many images.
    phases = phases_between(settings, size, size, n_clips * n_frames, budget)
    whole = teacher_recipe(settings, phases, augment, seed) if settings.epochs else None
    return ClipRecipe(recurrent, behind, views, whole)


def recurrent_epochs(recurrent: Recurrent, n_shown: int) -> float:
    """Return the epochs of the part behind the backbone, of so many clips in all their views."""
    if recurrent.epochs != AUTO:
        return recurrent.epochs
    return round(min(max(SHOWN_CLIPS / n_shown, FEWEST_EPOCHS), MOST_EPOCHS), 1)


def augmentations_of(settings: Finetune) -> tuple[str, ...]:
    """Return the names of the augmentations."""
    return AUGMENT if settings.augment == AUTO else tuple(settings.augment)


def weights_digest(network: nn.Module) -> str:
    """Return the SHA-256 of a network's weights, by name."""
    digest = hashlib.sha256()
    for name, value in network.state_dict().items():
        digest.update(name.encode() + value.cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()
