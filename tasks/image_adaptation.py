"""What the step `adapt` does with detectors and segmenters: every method, judged by the problem's own metric."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from PIL import Image
from torch import nn

from kinglet.adaptation.dense_answers import fine_tune_detector, fine_tune_segmenter
from kinglet.adaptation.mask_self_training import self_train_segmenter
from kinglet.adaptation.training import AdaptationRecipe, TargetImages
from kinglet.atomic import read_json
from kinglet.data.batches import open_packed
from kinglet.data.splits import ADAPTATION, TARGET_TEST
from kinglet.evidence.corruptions.pixels import resize_batch
from kinglet.evidence.image_bootstrap import DrawnScores
from kinglet.evidence.image_gate import MAP_50, MIOU
from kinglet.reporting import Report
from kinglet.training.devices import pick_device
from kinglet.training.schedules import EpochBudget
from tasks.adaptation import SELF_TRAINING_RATE, adaptation_recipe, save_adapted, with_statistics_of
from tasks.artifacts import (
    ADAPTED_MODELS,
    DISTILL,
    FINETUNE,
    PRUNE,
    SPLIT,
    ModelCard,
    model_folders,
    packed_images,
    read_card,
    refuse_unknown_models,
)
from tasks.detection_answers import find_objects, open_detector, read_boxed
from tasks.detection_scores import draw as draw_objects
from tasks.detection_training import boxed_images, refuse_without_boxes
from tasks.image_scores import json_interval, read_intervals
from tasks.models import load_model, placements_of, prepare_training, read_manifest
from tasks.parameters import Parameters
from tasks.progress import progress
from tasks.segmentation_answers import count_answers, open_segmenter, read_masked
from tasks.segmentation_evaluate import draw as draw_masks
from tasks.segmentation_training import masked_images, refuse_without_classes
from tasks.target_domain import FEWEST_IMAGES, PIXELS_TO_ADAPT, read_part

# What a fine-tuning may cost where nobody says its epochs: 200 images of 320 pixels are shown three times.
BUDGET = EpochBudget(pixels=60e6, fewest=2, most=20)
# The part that no training and no other step but this one scores, and the test images of all other domains.
PARTS = {"target": TARGET_TEST, "source": "test"}
PICTURES, PICTURE_SIZE = 8, 64


@dataclass(frozen=True)
class Work:
    """A model that is to be adapted, and what with.

    images: packed as the model takes them. rows: of those of the target domain, int64 (n,). labelled: of the rows,
    those whose boxes or masks `finetune` gets to see.
    """

    network: nn.Module
    card: ModelCard
    images: TargetImages
    rows: NDArray[np.int64]
    labelled: NDArray[np.int64]
    parameters: Parameters

    @property
    def manifest(self) -> pd.DataFrame:
        """The labelled images as rows of the manifest."""
        manifest = read_manifest()
        return manifest[manifest["index"].isin(self.labelled)]

    def recipe(self, n_images: int) -> AdaptationRecipe:
        """Return how the network goes on with this many images."""
        return adaptation_recipe(self.parameters, BUDGET, n_images, self.card.input_size)


@dataclass(frozen=True)
class Adapting:
    """How models of a problem learn from images of the target, and how they are judged.

    fine_tune: from the labelled ones, from a network, which replaces that of the work, to the one that has learnt.
    self_train: the same from all of them without labels; None where that is not offered. headline: the score. draw:
    that of the model in a folder on a part of the split, with all others, drawn anew over its images; the same images
    are drawn for every model.
    """

    fine_tune: Callable[[Work, nn.Module, Report], nn.Module]
    self_train: Callable[[Work, nn.Module, Report], nn.Module] | None
    headline: str
    draw: Callable[[Path, str, list[str], Parameters], DrawnScores]


def learn_from_objects(work: Work, network: nn.Module, report: Report) -> nn.Module:
    """Return a detector after learning from the labelled images; raises KingletError if these show no object."""
    card = work.card
    images = boxed_images(work.manifest, ADAPTATION, card.input_size, card.fit, card.classes)
    refuse_without_boxes({"labelled": images})
    recipe = work.recipe(len(work.labelled))
    return fine_tune_detector(network, images, card.mean, card.std, recipe, pick_device(), report)


def learn_from_masks(work: Work, network: nn.Module, report: Report) -> nn.Module:
    """Return a segmenter after learning from the labelled images; raises KingletError if no pixel has a class."""
    card = work.card
    images = masked_images(work.manifest, ADAPTATION, card.input_size)
    refuse_without_classes({"labelled": images}, len(card.classes))
    recipe = work.recipe(len(work.labelled))
    return fine_tune_segmenter(network, images, len(card.classes), card.mean, card.std, recipe, pick_device(), report)


def learn_from_sure_pixels(work: Work, network: nn.Module, report: Report) -> nn.Module:
    """Return a segmenter after learning from its own sure answers to all images of the target."""
    card, recipe = work.card, work.recipe(len(work.rows))
    return self_train_segmenter(
        network,
        np.asarray(work.images.packed[work.rows]),
        placements_of(work.rows, card.input_size, card.fit)[1],
        len(card.classes),
        work.parameters.adapt.confidence,
        card.mean,
        card.std,
        replace(recipe, learning_rate=SELF_TRAINING_RATE * recipe.learning_rate),
        pick_device(),
        report,
    )


def scores_of_objects(folder: Path, part: str, classes: list[str], parameters: Parameters) -> DrawnScores:
    """Return the scores of a detector's file on a part of the split."""
    images = read_boxed(part, classes)
    found = find_objects(open_detector(folder, classes), images, str(folder))
    return draw_objects(images, found, len(classes), parameters.evaluate, parameters.seed)


def scores_of_masks(folder: Path, part: str, classes: list[str], parameters: Parameters) -> DrawnScores:
    """Return the scores of a segmenter's file on a part of the split."""
    images = read_masked(part)
    counts = count_answers(open_segmenter(folder, classes), images, len(classes), str(folder))
    return draw_masks(counts, images, parameters.evaluate, parameters.seed)


ADAPTING = {
    "detection": Adapting(learn_from_objects, None, MAP_50.name, scores_of_objects),
    "segmentation": Adapting(learn_from_masks, learn_from_sure_pixels, MIOU.name, scores_of_masks),
}


def by_batch_norm(work: Work, _: Adapting, report: Report) -> nn.Module:
    """Return the network with the statistics of all images, of which no label is read; nothing is trained."""
    report(0, 1, "batch_norm")
    return with_statistics_of(work.network, work.images, work.rows, work.parameters.adapt.source_share)


def by_self_training(work: Work, adapting: Adapting, report: Report) -> nn.Module:
    """Return the network after learning from its sure answers to all images."""
    assert adapting.self_train is not None, "the parameters are refused where it is not offered"
    return adapting.self_train(work, by_batch_norm(work, adapting, report), report)


def by_finetune(work: Work, adapting: Adapting, report: Report) -> nn.Module:
    """Return the network after learning from the labelled images, which are all that it sees of the target."""
    network = with_statistics_of(work.network, work.images, work.labelled, work.parameters.adapt.source_share)
    return adapting.fine_tune(work, network, report)


# What `adapt.methods` may name where a network draws into images.
METHODS: dict[str, Callable[[Work, Adapting, Report], nn.Module]] = {
    "batch_norm": by_batch_norm,
    "self_training": by_self_training,
    "finetune": by_finetune,
}


def adapt_models(parameters: Parameters) -> tuple[dict[str, Any], NDArray[np.uint8] | None]:
    """Adapt every model that the settings name and keep the adapted ones; return the scores and some pictures.

    The scores are JSON-ready; pictures: of the source, and below of the target, uint8 (2, n, size, size, channels).
    """
    settings, adapting = parameters.adapt, ADAPTING[parameters.network]
    prepare_training(parameters.seed)
    folders = {folder.name: folder for folder in model_folders(FINETUNE, DISTILL, PRUNE)}
    refuse_unknown_models("adapt.models", settings.models, folders)
    names = list(dict.fromkeys(settings.models))
    scores = {
        "target": settings.target,
        "is_made": False,
        "headline": adapting.headline,
        "models": {name: adapt_model(folders[name], adapting, parameters) for name in names},
    }
    return scores, pictures(read_card(folders[names[0]]).input_size)


def adapt_model(folder: Path, adapting: Adapting, parameters: Parameters) -> dict[str, Any]:
    """Adapt one model by every method; return its scores before and after, on the target and where it came from,
    JSON-ready.
    """
    network, card = load_model(folder)
    classes, settings = read_json(SPLIT / "classes.json"), parameters.adapt
    images = TargetImages(open_packed(packed_images(card.input_size)), card.mean, card.std)
    rows = rows_to_adapt(card.input_size)
    work = Work(network, card, images, rows, read_part(ADAPTATION).rows[: settings.labelled_images], parameters)

    def drawn(of_model: Path) -> dict[str, DrawnScores]:
        return {word: adapting.draw(of_model, part, classes, parameters) for word, part in PARTS.items()}

    def interval(scores: DrawnScores) -> dict[str, float] | None:
        return json_interval(read_intervals(scores, parameters.evaluate).overall[adapting.headline])

    def scores_of(scores: dict[str, DrawnScores]) -> dict[str, dict[str, float] | None]:
        return {f"{word}_{adapting.headline}": interval(of_part) for word, of_part in scores.items()}

    methods = {}
    with progress(f"adapt {card.name}") as report:
        report(0, 1, "scores")
        before = drawn(folder)
        for method in settings.methods:
            output = ADAPTED_MODELS / f"{card.name}-{method.replace('_', '-')}"
            save_adapted(output, METHODS[method](work, adapting, report), card, settings.target, method)
            after = drawn(output)
            changes = {f"{word}_change": interval(of_part.minus(before[word])) for word, of_part in after.items()}
            methods[method] = {**scores_of(after), **changes, "recovered": None}
    return {
        "images": {
            "adaptation": len(rows),
            "labelled": len(work.labelled) if "finetune" in settings.methods else 0,
            "held_out": len(read_part(TARGET_TEST).rows),
            "source": len(read_part("test").rows),
        },
        **scores_of(before),
        "cost": None,
        "methods": methods,
    }


def rows_to_adapt(input_size: int) -> NDArray[np.int64]:
    """Return the rows of the images that the statistics are of: more than enough, by their content."""
    rows = read_part(ADAPTATION).rows
    return rows[: max(FEWEST_IMAGES, PIXELS_TO_ADAPT // input_size**2)]


def pictures(input_size: int) -> NDArray[np.uint8]:
    """Return images of the source, and below of the target."""
    parts = [read_part(PARTS[word]).rows for word in ("source", "target")]
    n_images, size = min(PICTURES, *map(len, parts)), min(PICTURE_SIZE, input_size)
    packed = open_packed(packed_images(input_size))
    return np.stack(
        [resize_batch(np.asarray(packed[rows[:n_images]]), size, size, Image.Resampling.BILINEAR) for rows in parts]
    )
