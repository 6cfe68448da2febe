"""What the step `adapt` does with a model that answers with a class: every method, and the scores before and after."""

from __future__ import annotations

import copy
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor, nn

from kinglet.adaptation.batch_norm import adapt_batch_norms
from kinglet.adaptation.self_training import self_train
from kinglet.adaptation.training import AdaptationRecipe, TargetImages, fine_tune
from kinglet.data.batches import gather, images_in_a_row, standardize
from kinglet.evidence.corruptions.pixels import resize_batch
from kinglet.reporting import Report
from kinglet.training.devices import pick_device
from kinglet.training.loop import rows_at_once
from kinglet.training.schedules import EpochBudget
from tasks.adaptation_scores import Judge
from tasks.artifacts import (
    ADAPTED_MODELS,
    DISTILL,
    FINETUNE,
    PRUNE,
    ModelCard,
    model_folders,
    read_card,
    refuse_unknown_models,
)
from tasks.clip_training import AUGMENT
from tasks.models import load_model, prepare_training, save_model
from tasks.parameters import Parameters
from tasks.progress import progress
from tasks.settings_section import AUTO
from tasks.target_domain import Domains, labelled_places, read_domains, too_few

# What a training may cost where nobody says its epochs: 200 clips of 16 frames of 64 pixels are shown five times.
BUDGETS = {
    "classification": EpochBudget(pixels=8e6, fewest=2, most=20),
    "video": EpochBudget(pixels=60e6, fewest=2, most=20),
}
# How the images are shown where nobody says it.
AUGMENTATIONS = {"video": AUGMENT}
ONLY_MIRRORED = ("flip",)
# Of adapt.learning_rate: a model's own answers may be wrong, and the faster it learns them, the surer it grows of it.
SELF_TRAINING_RATE = 0.1
EMA_DECAY = 0.99
PICTURES, PICTURE_SIZE = 8, 64


@dataclass(frozen=True)
class Work:
    """A model that is to be adapted, and what with.

    images: of the target domain, as the model takes them. labels: int64 (n,), seen by no method but `finetune`.
    labelled: places of the images whose labels that sees.
    """

    network: nn.Module
    card: ModelCard
    images: TargetImages
    labels: NDArray[np.int64]
    labelled: NDArray[np.int64]
    parameters: Parameters

    def recipe(self, n_images: int) -> AdaptationRecipe:
        """Return how the network goes on with this many images."""
        # All frames of a clip pass through the network: a clip costs as much as so many images.
        n_frames = n_images * images_in_a_row(self.images.packed)
        return adaptation_recipe(self.parameters, BUDGETS[self.card.problem], n_frames, self.card.input_size)


def adaptation_recipe(parameters: Parameters, budget: EpochBudget, n_images: int, input_size: int) -> AdaptationRecipe:
    """Return how a network goes on with this many images. budget: what epochs left to "auto" may cost."""
    settings, augment = parameters.adapt, parameters.adapt.augment
    epochs = budget.epochs(n_images, input_size**2) if settings.epochs == AUTO else settings.epochs
    unsaid = AUGMENTATIONS.get(parameters.network, ONLY_MIRRORED)
    return AdaptationRecipe(
        epochs=max(1, round(epochs)),
        batch_size=settings.batch_size,
        learning_rate=settings.learning_rate,
        ema_decay=EMA_DECAY,
        augment=unsaid if augment == AUTO else tuple(augment),
        seed=parameters.seed,
    )


def adapt_models(parameters: Parameters) -> tuple[dict[str, Any], NDArray[np.uint8] | None]:
    """Adapt every model that the settings name and keep the adapted ones; return the scores and some pictures.

    The scores are JSON-ready; pictures as of `pictures_of`, of the first model, None where too few images are there.
    """
    settings, pictures = parameters.adapt, None
    prepare_training(parameters.seed)
    folders = {folder.name: folder for folder in model_folders(FINETUNE, DISTILL, PRUNE)}
    refuse_unknown_models("adapt.models", settings.models, folders)
    scores: dict[str, Any] = {"target": settings.target, "is_made": settings.domain is None, "models": {}}
    for name in dict.fromkeys(settings.models):
        size = read_card(folders[name]).input_size
        domains = read_domains(parameters, size)
        missing = too_few(domains, parameters.several)
        if missing:
            print(f"warning: {missing}", file=sys.stderr)
            return {**scores, "reason": missing}, None
        scores["models"][name] = adapt_model(folders[name], domains, parameters)
        pictures = pictures_of(domains, size) if pictures is None else pictures
    return scores, pictures


def adapt_model(folder: Path, domains: Domains, parameters: Parameters) -> dict[str, Any]:
    """Adapt one model by every method; return its scores before and after, JSON-ready."""
    network, card = load_model(folder)
    size, settings = card.input_size, parameters.adapt
    with progress(f"adapt {card.name}") as report:
        report(0, 1, "images")
        images = TargetImages(domains.target_images(domains.adaptation, size), card.mean, card.std)
        labelled = labelled_places(domains.adaptation, settings)
        work = Work(network, card, images, domains.adaptation.labels, labelled, parameters)
        judge = Judge(domains, size, parameters)
        before = judge.answers(folder, card)
        methods = {}
        for method in settings.methods:
            adapted = METHODS[method](work, report)
            output = ADAPTED_MODELS / f"{card.name}-{method.replace('_', '-')}"
            save_adapted(output, adapted, card, settings.target, method)
            methods[method] = judge.scores(before, judge.answers(output, read_card(output)))
    return {
        "images": {
            "adaptation": len(images.packed),
            "labelled": len(labelled),
            "held_out": len(domains.held_out.rows),
            "source": len(domains.source.rows),
        },
        **judge.scores_before(before),
        "methods": methods,
    }


def target_batches(images: TargetImages, places: NDArray[np.int64]) -> Iterator[Tensor]:
    """Yield the images at these places as the network takes them, in batches of nearly equal size."""
    n_batches = -(-len(places) // rows_at_once(images.packed))
    for part in np.array_split(places, n_batches):
        yield standardize(gather(images.packed, part), images.mean, images.std)


def with_statistics_of(
    network: nn.Module, images: TargetImages, places: NDArray[np.int64], source_share: float
) -> nn.Module:
    """Return a copy of the network with batch statistics that are mixed with those of the images at these places."""
    adapted = copy.deepcopy(network)
    adapt_batch_norms(adapted, target_batches(images, places), source_share)
    return adapted


def by_batch_norm(work: Work, report: Report) -> nn.Module:
    """Return the network with the statistics of all images."""
    report(0, 1, "batch_norm")
    places, source_share = np.arange(len(work.images.packed)), work.parameters.adapt.source_share
    return with_statistics_of(work.network, work.images, places, source_share)


def by_self_training(work: Work, report: Report) -> nn.Module:
    """Return the network after learning from its sure answers to all images."""
    network, recipe = by_batch_norm(work, report), work.recipe(len(work.images.packed))
    recipe = replace(recipe, learning_rate=SELF_TRAINING_RATE * recipe.learning_rate)
    return self_train(network, work.images, work.parameters.adapt.confidence, recipe, pick_device(), report)


def by_finetune(work: Work, report: Report) -> nn.Module:
    """Return the network after learning from the labelled images, which are all that it sees of the target."""
    images = TargetImages(work.images.packed[work.labelled], work.images.mean, work.images.std)
    labels = torch.from_numpy(work.labels[work.labelled])
    source_share = work.parameters.adapt.source_share
    network = with_statistics_of(work.network, work.images, work.labelled, source_share)
    return fine_tune(network, images, labels, work.recipe(len(labels)), pick_device(), report)


# A new method is a function and a line here; `adapt.methods` in params.yaml takes its names from the keys.
METHODS: dict[str, Callable[[Work, Report], nn.Module]] = {
    "batch_norm": by_batch_norm,
    "self_training": by_self_training,
    "finetune": by_finetune,
}


def save_adapted(output: Path, network: nn.Module, card: ModelCard, target: str, method: str) -> None:
    """Save an adapted network as `output`, a folder NAME-METHOD."""
    save_model(
        output,
        network,
        step="adapt",
        parent=card.name,
        input_size=card.input_size,
        channels=card.channels,
        fit=card.fit,
        mean=card.mean,
        std=card.std,
        classes=card.classes,
        notes={"target": target, "method": method},
        problem=card.problem,
    )


def pictures_of(domains: Domains, input_size: int) -> NDArray[np.uint8]:
    """Return images of the source, and below of the target, uint8 (2, n, size, size, channels).

    Of clips they are the middle frames. Where the target is made, they are the same images without and with the change.
    """
    n_images = min(PICTURES, len(domains.source.rows), len(domains.held_out.rows))
    size, first = min(PICTURE_SIZE, input_size), np.arange(n_images)
    pair = [
        domains.source_images(domains.source.only(first), input_size),
        domains.target_images(domains.held_out.only(first), input_size),
    ]
    shown = [images[:, images.shape[1] // 2] if images.ndim == 5 else images for images in pair]
    return np.stack([resize_batch(images, size, size, Image.Resampling.BILINEAR) for images in shown])
