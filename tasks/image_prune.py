"""Detectors and segmenters before a cut, and their training back from labels and the answers of the whole teacher."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor, nn

from kinglet.compression.pruning import Batch
from kinglet.data.batches import gather, standardize
from kinglet.errors import KingletError
from kinglet.training.epochs import Recipe
from tasks.artifacts import PRUNE, ModelCard
from tasks.compression_settings import Prune
from tasks.image_distillation import train_taught_network
from tasks.image_networks import IMAGE_NETWORKS, Images
from tasks.models import load_model, read_manifest
from tasks.parameters import Parameters
from tasks.whole_model import IMPORTANCE_BATCHES, Whole


def read_whole_network(folder: Path, parameters: Parameters) -> Whole[Images]:
    """Return the detector or the segmenter of a folder, with the images that it learns from."""
    network, card = load_model(folder)
    networks, manifest = IMAGE_NETWORKS[card.problem], read_manifest()
    training, validation = (
        networks.images(manifest, split, card.input_size, card) for split in ("train", "validation")
    )
    batches = batches_of(training, card, parameters.prune.batch_size, parameters.seed)
    loss = networks.loss(parameters.finetune, training, len(card.classes))
    return Whole(folder, network, card, training, validation, batches, batches[-1][0], loss)


def batches_of(images: Images, card: ModelCard, batch_size: int, seed: int) -> list[Batch]:
    """Return batches of random images as a network takes them, each with what its pictures show.

    At most `IMPORTANCE_BATCHES`; fewer where there are not enough images, and the last may be smaller.
    """
    targets = IMAGE_NETWORKS[card.problem].targets
    order = np.random.default_rng(seed).permutation(len(images))[: IMPORTANCE_BATCHES * batch_size]
    return [
        (inputs_of(images, part, card), targets(images, part))
        for part in np.split(order, range(batch_size, len(order), batch_size))
    ]


def inputs_of(images: Images, part: np.ndarray[Any, np.dtype[np.int64]], card: ModelCard) -> Tensor:
    """Return the images at these places as a network takes them."""
    return standardize(gather(images.packed, images.rows[part]), card.mean, card.std)


def refuse_rival(whole: Whole[Images], settings: Prune) -> None:
    """Raise KingletError if a rival is asked for: none is offered for detectors and segmenters."""
    if settings.baseline != "none":
        raise KingletError(
            f"params.yaml: prune.baseline is {settings.baseline}, but {whole.card.name} is a "
            f"{IMAGE_NETWORKS[whole.card.problem].word}, for which no rival is offered yet.",
            "Set prune.baseline to none.",
        )


def recovery_of(whole: Whole[Images], parameters: Parameters) -> Recipe:
    """Return how a pruned network is trained back: on pictures like the teacher's, but shorter and more gently."""
    settings, networks = parameters.prune, IMAGE_NETWORKS[whole.card.problem]
    finetune = parameters.finetune.model_copy(update={"epochs": settings.epochs})
    size, n_examples = whole.card.input_size, len(whole.training)
    return replace(
        networks.recipe(finetune, size, n_examples, parameters.seed, networks.recovery_budget),
        batch_size=settings.batch_size,
        learning_rate=settings.learning_rate,
        # A cut is made in all layers, so all of them learn as fast.
        layer_decay=1.0,
    )


def train_network_back(
    network: nn.Module, whole: Whole[Images], parameters: Parameters, facts: dict[str, Any], notes: dict[str, Any]
) -> None:
    """Train a pruned network from the labels and the teacher's answers, and save it beside the others.

    facts: what decides the training besides the recipe and its images. notes: for its card, beside the history.
    """
    name = whole.card.name
    train_taught_network(
        network,
        PRUNE / f"{name}-pruned",
        whole.card,
        (whole.training, whole.validation),
        recovery_of(whole, parameters),
        parameters.finetune,
        parameters.distill.soft_weight,
        parent=name,
        facts=facts,
        files=[whole.folder / "model.pt"],
        notes=notes,
    )
