"""What the step `adapt` does with a model: every method, and the scores before and after."""

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
from kinglet.data.batches import gather, standardize
from kinglet.errors import KingletError
from kinglet.evidence.bootstrap import accuracy_interval, paired_interval
from kinglet.evidence.corruptions.pixels import resize_batch
from kinglet.evidence.recovery import recovered_share
from kinglet.reporting import Report
from kinglet.runtime.processors import available_processors
from kinglet.runtime.sessions import gather_logits
from kinglet.training.devices import pick_device
from kinglet.training.loop import evaluation_batch
from kinglet.training.schedules import EpochBudget
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
from tasks.models import load_model, prepare_training, save_model
from tasks.opened_models import OpenedModel, open_model
from tasks.parameters import Parameters
from tasks.progress import progress
from tasks.settings_section import AUTO
from tasks.target_domain import Domains, labelled_places, read_domains, too_few
from tasks.training_settings import Adapt

# What a training may cost where nobody says its epochs.
BUDGET = EpochBudget(pixels=8e6, fewest=2, most=20)
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
    settings: Adapt
    seed: int

    def recipe(self, n_images: int) -> AdaptationRecipe:
        """Return how the network goes on with this many images."""
        return adaptation_recipe(self.settings, BUDGET, n_images, self.card.input_size, self.seed)


def adaptation_recipe(
    settings: Adapt, budget: EpochBudget, n_images: int, input_size: int, seed: int
) -> AdaptationRecipe:
    """Return how a network goes on with this many images. budget: what epochs left to "auto" may cost."""
    epochs = budget.epochs(n_images, input_size**2) if settings.epochs == AUTO else settings.epochs
    return AdaptationRecipe(
        epochs=max(1, round(epochs)),
        batch_size=settings.batch_size,
        learning_rate=settings.learning_rate,
        ema_decay=EMA_DECAY,
        augment=tuple(settings.augment),
        seed=seed,
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
        missing = too_few(domains)
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
        work = Work(network, card, images, domains.adaptation.labels, labelled, settings, parameters.seed)
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
    n_batches = -(-len(places) // evaluation_batch(images.packed.shape[1]))
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
    return with_statistics_of(work.network, work.images, np.arange(len(work.images.packed)), work.settings.source_share)


def by_self_training(work: Work, report: Report) -> nn.Module:
    """Return the network after learning from its sure answers to all images."""
    network, recipe = by_batch_norm(work, report), work.recipe(len(work.images.packed))
    recipe = replace(recipe, learning_rate=SELF_TRAINING_RATE * recipe.learning_rate)
    return self_train(network, work.images, work.settings.confidence, recipe, pick_device(), report)


def by_finetune(work: Work, report: Report) -> nn.Module:
    """Return the network after learning from the labelled images, which are all that it sees of the target."""
    images = TargetImages(work.images.packed[work.labelled], work.images.mean, work.images.std)
    labels = torch.from_numpy(work.labels[work.labelled])
    network = with_statistics_of(work.network, work.images, work.labelled, work.settings.source_share)
    return fine_tune(network, images, labels, work.recipe(len(labels)), pick_device(), report)


# A new method is a function and a line here; `adapt.methods` in params.yaml takes its names from the keys.
METHODS: dict[str, Callable[[Work, Report], nn.Module]] = {
    "batch_norm": by_batch_norm,
    "self_training": by_self_training,
    "finetune": by_finetune,
}


@dataclass(frozen=True)
class Answers:
    """Whether a model is right, bool (n,): on the target's held-out images, and on the source's test images."""

    target: NDArray[np.bool_]
    source: NDArray[np.bool_]


class Judge:
    """Scores a model as it would be served, on the held-out images of the target and the test images of the source."""

    def __init__(self, domains: Domains, input_size: int, parameters: Parameters) -> None:
        self.domains = domains
        self.target = domains.target_images(domains.held_out, input_size)
        self.source = domains.source_images(domains.source, input_size)
        self.settings, self.seed = parameters.evaluate, parameters.seed

    def answers(self, folder: Path, card: ModelCard) -> Answers:
        """Return the answers of the model's ONNX file; raises KingletError if they are no numbers."""
        model, file = open_model(folder, card, threads=1), folder / card.file_names[0]
        return Answers(
            self._correct(model, file, self.target, self.domains.held_out.labels),
            self._correct(model, file, self.source, self.domains.source.labels),
        )

    def _correct(
        self, model: OpenedModel, file: Path, images: NDArray[np.uint8], labels: NDArray[np.int64]
    ) -> NDArray[np.bool_]:
        logits = gather_logits(
            model.engine.run,
            len(model.classes),
            images,
            np.arange(len(images)),
            model.preprocessing,
            workers=available_processors(),
        )
        if not np.isfinite(logits).all():
            raise KingletError(f"{file} gives NaN or infinite logits in the step adapt.")
        return np.asarray(logits.argmax(axis=1) == labels, bool)

    def scores_before(self, before: Answers) -> dict[str, Any]:
        """Return the scores of the model as it came; cost: of the change, where the target is made, paired."""
        cost = self._paired(before.source, before.target, "held_out") if self.domains.is_made else None
        return {**self._accuracies(before), "cost": cost}

    def scores(self, before: Answers, after: Answers) -> dict[str, Any]:
        """Return the scores of an adapted model, with its paired changes; recovered: share of the cost, if any."""
        recovered = None
        if self.domains.is_made:
            recovered = recovered_share(
                before.source, before.target, after.target, strata=self._strata("held_out"), **self._options()
            )
        return {
            **self._accuracies(after),
            "target_change": self._paired(after.target, before.target, "held_out"),
            "source_change": self._paired(after.source, before.source, "source"),
            "recovered": recovered.to_dict() if recovered else None,
        }

    def _accuracies(self, answers: Answers) -> dict[str, dict[str, float]]:
        options = {**self._options(), "method": self.settings.interval}
        of_target = accuracy_interval(answers.target, strata=self._strata("held_out"), **options)
        of_source = accuracy_interval(answers.source, strata=self._strata("source"), **options)
        return {"target_accuracy": of_target.to_dict(), "source_accuracy": of_source.to_dict()}

    def _paired(self, one: NDArray[np.bool_], other: NDArray[np.bool_], part: str) -> dict[str, float]:
        options = {**self._options(), "method": self.settings.interval}
        return paired_interval(one, other, strata=self._strata(part), **options).to_dict()

    def _strata(self, part: str) -> NDArray[np.int64] | None:
        labels: NDArray[np.int64] = getattr(self.domains, part).labels
        return labels if self.settings.stratified else None

    def _options(self) -> dict[str, Any]:
        return {"confidence": self.settings.confidence, "seed": self.seed}


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

    Where the target is made, they are the same images without and with the change.
    """
    n_images = min(PICTURES, len(domains.source.rows), len(domains.held_out.rows))
    size, first = min(PICTURE_SIZE, input_size), np.arange(n_images)
    pair = [
        domains.source_images(domains.source.only(first), input_size),
        domains.target_images(domains.held_out.only(first), input_size),
    ]
    return np.stack([resize_batch(images, size, size, Image.Resampling.BILINEAR) for images in pair])
