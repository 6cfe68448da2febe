"""A fold of the cross-validation where images have masks: a segmenter without it, and what it answers."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnxruntime
import pandas as pd
from numpy.typing import NDArray
from torch import nn

from kinglet.atomic import atomic_path
from kinglet.data.packed_masks import MaskedImages
from kinglet.evidence.mask_scores import mask_confusion
from kinglet.reporting import Report
from kinglet.runtime.preprocessing import Preprocessing, model_input, placement
from kinglet.runtime.segmentation import decode_masks
from kinglet.runtime.sessions import run as run_session
from kinglet.training.schedules import EpochBudget
from tasks.artifacts import packed_images, packed_masks, read_input_sizes
from tasks.fold_run import HELD_OUT, TRAINING, VALIDATION, FoldRun
from tasks.models import preprocessing_of, read_classes, served
from tasks.parameters import Parameters
from tasks.progress import progress
from tasks.segmentation_training import fine_tuned_segmenter, masked_images, refuse_without_classes, segmenter_recipe
from tasks.true_masks import scored_images

# What a fold may cost where nobody says its epochs: a third of a teacher. A segmenter has a decoder to learn from
# nothing, and says little before that.
FOLD_BUDGET = EpochBudget(pixels=130e6, fewest=1, most=60)


def answer_masks(given: FoldRun) -> None:
    """Train a segmenter without the fold, and write what the pixels of the fold's images are taken for."""
    classes, size = read_classes(), read_input_sizes().teacher
    images = given.images()
    held_out, training, validation = (masked_images(images, part, size) for part in (HELD_OUT, TRAINING, VALIDATION))
    refuse_without_classes({"training": training, "validation": validation, "held-out": held_out}, len(classes))
    recipe = segmenter_recipe(given.settings, size, len(training), given.seed, FOLD_BUDGET)
    checkpoint = given.checkpoint(recipe, [packed_images(size), packed_masks(size)])
    with progress(given.title) as report:
        network, history = fine_tuned_segmenter(
            given.settings, training, validation, len(classes), recipe, checkpoint, report
        )
        found = own_confusions(network, held_out, classes, given.parameters, report)
    write_confusions(given.folder / "predictions.parquet", held_out.rows, found)
    given.keep_facts(
        n=len(held_out), n_training=len(training), n_validation=len(validation), phases=recipe.phases, history=history
    )
    checkpoint.clear()


def own_confusions(
    network: nn.Module, images: MaskedImages, classes: list[str], parameters: Parameters, report: Report
) -> NDArray[np.int64]:
    """Return what the images' own pixels are taken for, int64 (n, n_classes, n_classes), by the network's ONNX file as
    it is served.
    """
    channels, n_classes = images.packed.shape[3], len(classes)
    preprocessing = preprocessing_of(images.size, channels, parameters)
    session = served(network, images.size, channels, classes, parameters)
    scored = scored_images(images.rows, [f"image {row}" for row in images.rows.tolist()])
    found = np.zeros((len(images), n_classes, n_classes), np.int64)
    for place, row in enumerate(images.rows.tolist()):
        width, height = scored.sizes[place].tolist()
        predicted = mask_of(session, np.asarray(images.packed[row]), preprocessing, width, height)
        found[place] = mask_confusion(scored.truth(place), predicted, n_classes)
        report(place + 1, len(images), "answers")
    return found


def mask_of(
    session: onnxruntime.InferenceSession,
    square: NDArray[np.uint8],
    preprocessing: Preprocessing,
    width: int,
    height: int,
) -> NDArray[np.uint8]:
    """Return the mask, uint8 (height, width), that a segmenter answers to an image of this size packed as a square."""
    logits = run_session(session, model_input(square[None], preprocessing))
    placed = placement(width, height, preprocessing.input_size, preprocessing.fit)
    return decode_masks(logits, [placed], [(width, height)])[0]


def write_confusions(path: Path, rows: NDArray[np.int64], confusions: NDArray[np.int64]) -> None:
    """Write how many pixels of each image are of a class and taken for another, one row each: index, truth, predicted,
    pixels; only what occurs.
    """
    images, truth, predicted = np.nonzero(confusions)
    table = pd.DataFrame(
        {
            "index": rows[images],
            "truth": truth.astype(np.int64),
            "predicted": predicted.astype(np.int64),
            "pixels": confusions[images, truth, predicted],
        }
    )
    with atomic_path(path) as temporary:
        table.to_parquet(temporary, index=False)
