"""Detectors before a cut, and their training back from the labels and the answers of the whole teacher."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor, nn

from kinglet.compression.pruning import Batch
from kinglet.data.batches import gather, standardize
from kinglet.data.boxed_images import BoxedImages
from kinglet.errors import KingletError
from kinglet.models.detector import places
from kinglet.training.detection_losses import detection_loss
from kinglet.training.epochs import Recipe
from kinglet.training.schedules import EpochBudget
from tasks.artifacts import PRUNE, ModelCard
from tasks.compression_settings import Prune
from tasks.detection_distillation import train_detector_from_teacher
from tasks.detection_training import boxed_images, detector_recipe
from tasks.models import load_model, read_manifest
from tasks.parameters import Parameters
from tasks.settings_section import AUTO
from tasks.whole_model import IMPORTANCE_BATCHES, Whole

# A quarter of what a teacher is trained for: twelve epochs of 205 images of 416 pixels. After five of them a detector
# without three tenths of its channels was still three points of mAP50 behind (docs/detection.md).
RECOVERY_BUDGET = EpochBudget(pixels=0.426e9, fewest=3, most=45)


def read_whole_detector(folder: Path, parameters: Parameters) -> Whole[BoxedImages]:
    """Return the detector of a folder, with the images that it learns from."""
    network, card = load_model(folder)
    manifest = read_manifest()
    training, validation = (
        boxed_images(manifest, split, card.input_size, card.fit, card.classes) for split in ("train", "validation")
    )
    centres, _ = places(card.input_size)
    batches = boxed_batches(training, card, parameters.prune.batch_size, parameters.seed)
    loss = detection_loss(centres)
    return Whole(folder, network, card, training, validation, batches, batches[-1][0], loss)


def boxed_batches(images: BoxedImages, card: ModelCard, batch_size: int, seed: int) -> list[Batch]:
    """Return batches of random images as a detector takes them, each with the objects of its pictures.

    At most `IMPORTANCE_BATCHES`; fewer where there are not enough images, and the last may be smaller.
    """
    order = np.random.default_rng(seed).permutation(len(images))[: IMPORTANCE_BATCHES * batch_size]
    return [
        (inputs_of(images, part, card), [images.objects[place] for place in part.tolist()])
        for part in np.split(order, range(batch_size, len(order), batch_size))
    ]


def inputs_of(images: BoxedImages, part: np.ndarray[Any, np.dtype[np.int64]], card: ModelCard) -> Tensor:
    """Return the images at these places as a detector takes them."""
    return standardize(gather(images.packed, images.rows[part]), card.mean, card.std)


def refuse_rival_of_detector(whole: Whole[BoxedImages], settings: Prune) -> None:
    """Raise KingletError if a rival is asked for: none is offered for detectors."""
    if settings.baseline != "none":
        raise KingletError(
            f"params.yaml: prune.baseline is {settings.baseline}, but {whole.card.name} is a detector, "
            "for which no rival is offered yet.",
            "Set prune.baseline to none.",
        )


def recovery_of_detector(whole: Whole[BoxedImages], parameters: Parameters) -> Recipe:
    """Return how a pruned detector is trained back: on pictures like the teacher's, but shorter and more gently."""
    settings, size, n_examples = parameters.prune, whole.card.input_size, len(whole.training)
    epochs = RECOVERY_BUDGET.epochs(n_examples, size**2) if settings.epochs == AUTO else settings.epochs
    return replace(
        detector_recipe(parameters.finetune, size, n_examples, parameters.seed),
        phases=((epochs, size),),
        batch_size=settings.batch_size,
        learning_rate=settings.learning_rate,
        # A cut is made in all layers, so all of them learn as fast.
        layer_decay=1.0,
    )


def train_detector_back(
    network: nn.Module, whole: Whole[BoxedImages], parameters: Parameters, facts: dict[str, Any], notes: dict[str, Any]
) -> None:
    """Train a pruned detector from the labels and the teacher's answers, and save it beside the others.

    facts: what decides the training besides the recipe and its images. notes: for its card, beside the history.
    """
    name = whole.card.name
    train_detector_from_teacher(
        network,
        PRUNE / f"{name}-pruned",
        whole.card,
        (whole.training, whole.validation),
        recovery_of_detector(whole, parameters),
        parameters.distill.soft_weight,
        parent=name,
        facts=facts,
        files=[whole.folder / "model.pt"],
        notes=notes,
    )
