"""What the ladder of int8 works with for detectors: the images that calibrate, and those that judge."""

from __future__ import annotations

import numpy as np
import onnx
from numpy.typing import NDArray

from kinglet.compression.detection_judge import BoxedRows, DetectionJudge
from kinglet.compression.guard import drawn
from kinglet.data.boxed_images import BoxedImages
from kinglet.errors import KingletError
from kinglet.evidence.detection_matches import Objects
from tasks.artifacts import ModelCard
from tasks.compression_settings import Quantize
from tasks.detection_training import boxed_images
from tasks.models import read_manifest

# Validation images, at most. They judge whether a model is good enough: of the training images a detector knows
# every box by heart, and what int8 loses elsewhere is no loss there.
CHOICE_IMAGES = 500


def judged_detectors(
    model: onnx.ModelProto, card: ModelCard, settings: Quantize, seed: int
) -> tuple[NDArray[np.uint8], DetectionJudge]:
    """Return the training images that calibrate, packed, and a judge that looks at validation images.

    Raises KingletError if the images that judge the models show no object.
    """
    manifest = read_manifest()
    training, validation = (
        boxed_images(manifest, split, card.input_size, card.fit, card.classes) for split in ("train", "validation")
    )
    calibration = drawn(len(training), settings.calibration_images, seed)
    choice = drawn(len(validation), CHOICE_IMAGES, seed)
    judging = boxed_rows(validation, choice, len(card.classes))
    if not len(judging.truths):
        raise KingletError(
            f"The {len(choice)} validation images that would judge the int8 models of {card.name} show no object.",
            "Bring more images with objects.",
        )
    packed = np.asarray(training.packed[training.rows[calibration]])
    return packed, DetectionJudge(model, judging, card.preprocessing)


def boxed_rows(images: BoxedImages, places: NDArray[np.int64], n_classes: int) -> BoxedRows:
    """Return the images at these places with their boxes, as a judge takes them."""
    objects = [images.objects[place] for place in places.tolist()]
    truths = Objects(
        np.repeat(np.arange(len(objects)), [len(of_image) for of_image in objects]),
        np.concatenate([of_image.labels for of_image in objects]),
        np.concatenate([of_image.xyxy for of_image in objects]),
    )
    return BoxedRows(images.packed, images.rows[places], truths, n_classes)
