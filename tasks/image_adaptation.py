"""What the step `adapt` does with detectors and segmenters: batch statistics of a domain, judged by their own metric.

Images of the domain that no label is read of re-estimate the statistics; nothing is trained.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from kinglet.adaptation.training import TargetImages
from kinglet.atomic import read_json
from kinglet.data.batches import open_packed
from kinglet.data.splits import ADAPTATION, TARGET_TEST
from kinglet.evidence.corruptions.pixels import resize_batch
from kinglet.evidence.image_bootstrap import DrawnScores
from kinglet.evidence.image_gate import MAP_50, MIOU
from tasks.adaptation import save_adapted, with_statistics_of
from tasks.artifacts import (
    ADAPTED_MODELS,
    FINETUNE,
    PRUNE,
    SPLIT,
    model_folders,
    packed_images,
    read_card,
    refuse_unknown_models,
)
from tasks.detection_answers import find_objects, open_detector, read_boxed
from tasks.detection_evaluate import draw as draw_objects
from tasks.image_scores import json_interval, read_intervals
from tasks.models import load_model, prepare_training
from tasks.parameters import Parameters
from tasks.progress import progress
from tasks.segmentation_answers import count_answers, open_segmenter, read_masked
from tasks.segmentation_evaluate import draw as draw_masks
from tasks.target_domain import FEWEST_IMAGES, PIXELS_TO_ADAPT, read_part

METHOD = "batch_norm"
# The part that no training and no other step but this one scores, and the test images of all other domains.
PARTS = {"target": TARGET_TEST, "source": "test"}
PICTURES, PICTURE_SIZE = 8, 64


@dataclass(frozen=True)
class Scoring:
    """How models of a problem are judged.

    headline: the score. draw: that of the model in a folder on a part of the split, with all others, drawn anew over
    its images; the same images are drawn for every model.
    """

    headline: str
    draw: Callable[[Path, str, list[str], Parameters], DrawnScores]


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


SCORING = {
    "detection": Scoring(MAP_50.name, scores_of_objects),
    "segmentation": Scoring(MIOU.name, scores_of_masks),
}


def adapt_models(parameters: Parameters) -> tuple[dict[str, Any], NDArray[np.uint8] | None]:
    """Adapt every model that the settings name and keep the adapted ones; return the scores and some pictures.

    The scores are JSON-ready; pictures: of the source, and below of the target, uint8 (2, n, size, size, channels).
    """
    settings, scoring = parameters.adapt, SCORING[parameters.network]
    prepare_training(parameters.seed)
    folders = {folder.name: folder for folder in model_folders(FINETUNE, PRUNE)}
    refuse_unknown_models("adapt.models", settings.models, folders)
    names = list(dict.fromkeys(settings.models))
    scores = {
        "target": settings.target,
        "is_made": False,
        "headline": scoring.headline,
        "models": {name: adapt_model(folders[name], scoring, parameters) for name in names},
    }
    return scores, pictures(read_card(folders[names[0]]).input_size)


def adapt_model(folder: Path, scoring: Scoring, parameters: Parameters) -> dict[str, Any]:
    """Adapt one model; return its scores before and after, on the target and where it came from, JSON-ready."""
    network, card = load_model(folder)
    classes, settings = read_json(SPLIT / "classes.json"), parameters.adapt
    rows = rows_to_adapt(card.input_size)
    output = ADAPTED_MODELS / f"{card.name}-{METHOD.replace('_', '-')}"
    with progress(f"adapt {card.name}") as report:
        report(0, 1, METHOD)
        images = TargetImages(open_packed(packed_images(card.input_size)), card.mean, card.std)
        adapted = with_statistics_of(network, images, rows, settings.source_share)
        save_adapted(output, adapted, card, settings.target, METHOD)
        before = {word: scoring.draw(folder, part, classes, parameters) for word, part in PARTS.items()}
        after = {word: scoring.draw(output, part, classes, parameters) for word, part in PARTS.items()}
        report(1, 1, METHOD)

    def interval(drawn: DrawnScores) -> dict[str, float] | None:
        return json_interval(read_intervals(drawn, parameters.evaluate).overall[scoring.headline])

    return {
        "images": {
            "adaptation": len(rows),
            "labelled": 0,
            "held_out": len(read_part(TARGET_TEST).rows),
            "source": len(read_part("test").rows),
        },
        **{f"{word}_{scoring.headline}": interval(drawn) for word, drawn in before.items()},
        "cost": None,
        "methods": {
            METHOD: {
                **{f"{word}_{scoring.headline}": interval(drawn) for word, drawn in after.items()},
                **{f"{word}_change": interval(drawn.minus(before[word])) for word, drawn in after.items()},
                "recovered": None,
            }
        },
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
