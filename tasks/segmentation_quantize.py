"""What the ladder of int8 works with for segmenters: the images that calibrate, and those that judge."""

from __future__ import annotations

import numpy as np
import onnx
from numpy.typing import NDArray

from kinglet.compression.guard import drawn
from kinglet.compression.segmentation_judge import MaskedRows, SegmentationJudge
from kinglet.errors import KingletError
from tasks.artifacts import ModelCard
from tasks.compression_settings import Quantize
from tasks.models import read_manifest
from tasks.segmentation_training import masked_images

# Validation images, at most. They judge whether a model is good enough: training images are known by heart.
CHOICE_IMAGES = 500


def judged_segmenters(
    model: onnx.ModelProto, card: ModelCard, settings: Quantize, seed: int
) -> tuple[NDArray[np.uint8], SegmentationJudge]:
    """Return the training images that calibrate, packed, and a judge that looks at validation images.

    Raises KingletError if no pixel of the images that judge the models has a class.
    """
    training, validation = (masked_images(read_manifest(), split, card.input_size) for split in ("train", "validation"))
    calibration = drawn(len(training), settings.calibration_images, seed)
    choice = drawn(len(validation), CHOICE_IMAGES, seed)
    judging = MaskedRows(validation.packed, validation.masks, validation.rows[choice])
    if not judging.has_classes:
        raise KingletError(
            f"The {len(choice)} validation images that would judge the int8 models of {card.name} are void altogether.",
            "Bring more images with masks.",
        )
    packed = np.asarray(training.packed[training.rows[calibration]])
    return packed, SegmentationJudge(model, judging, card.preprocessing)
