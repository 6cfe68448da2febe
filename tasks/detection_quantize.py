"""How the ladder of int8 begins for detectors: the images of each role, their boxes, and the steps."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
from numpy.typing import NDArray

from kinglet.compression.detection_judge import BoxedRows, DetectionJudge
from kinglet.compression.guard import set_aside
from kinglet.compression.ladder import STEPS, Bench, Settings, Step, open_bench
from kinglet.data.boxed_images import BoxedImages
from kinglet.errors import KingletError
from kinglet.evidence.detection_matches import Objects
from kinglet.reporting import Report
from kinglet.runtime.bundles import MODEL
from tasks.artifacts import ModelCard
from tasks.detection_training import boxed_images
from tasks.parameters import Quantize

# Training images that no calibration sees, at most. They judge whether a model is good enough.
CHOICE_IMAGES = 500


def detection_ladder(
    folder: Path, card: ModelCard, settings: Quantize, seed: int, report: Report, warn: Callable[[str], None]
) -> tuple[Bench, dict[str, Step]]:
    """Give every image of the training split its role; return what the steps work with, and the steps.

    Raises KingletError if the images that judge the models show no object.
    """
    training = boxed_images("train", card.input_size, card.fit, card.classes)
    calibration, choice, _ = set_aside(len(training), settings.calibration_images, CHOICE_IMAGES, seed)
    judging = boxed_rows(training, choice, len(card.classes))
    if not len(judging.truths):
        raise KingletError(
            f"The {len(choice)} training images that would judge the int8 models of {card.name} show no object.",
            "Bring more images with objects.",
        )
    model = onnx.load(folder / MODEL)
    bench = open_bench(
        card.name,
        model,
        np.asarray(training.packed[training.rows[calibration]]),
        DetectionJudge(model, judging, card.preprocessing),
        card.preprocessing,
        Settings(settings.methods, settings.weight_bits, settings.tolerance, settings.max_float_layers),
        report,
        warn,
        uint8_input=settings.uint8_input,
    )
    return bench, dict(STEPS)


def boxed_rows(images: BoxedImages, places: NDArray[np.int64], n_classes: int) -> BoxedRows:
    """Return the images at these places with their boxes, as a judge takes them."""
    objects = [images.objects[place] for place in places.tolist()]
    truths = Objects(
        np.repeat(np.arange(len(objects)), [len(of_image) for of_image in objects]),
        np.concatenate([of_image.labels for of_image in objects]),
        np.concatenate([of_image.xyxy for of_image in objects]),
    )
    return BoxedRows(images.packed, images.rows[places], truths, n_classes)
