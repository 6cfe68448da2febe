"""What the ladder of int8 works with for segmenters: the images that calibrate, and those that judge."""

from __future__ import annotations

import numpy as np
import onnx
from numpy.typing import NDArray

from kinglet.compression.guard import set_aside
from kinglet.compression.segmentation_judge import MaskedRows, SegmentationJudge
from kinglet.errors import KingletError
from tasks.artifacts import ModelCard
from tasks.models import read_manifest
from tasks.parameters import Quantize
from tasks.segmentation_training import masked_images

# Training images that no calibration sees, at most. They judge whether a model is good enough.
CHOICE_IMAGES = 500


def judged_segmenters(
    model: onnx.ModelProto, card: ModelCard, settings: Quantize, seed: int
) -> tuple[NDArray[np.uint8], SegmentationJudge]:
    """Give the images of the training split their roles; return those that calibrate, packed, and the judge.

    Raises KingletError if no pixel of the images that judge the models has a class.
    """
    training = masked_images(read_manifest(), "train", card.input_size)
    calibration, choice, _ = set_aside(len(training), settings.calibration_images, CHOICE_IMAGES, seed)
    judging = MaskedRows(training.packed, training.masks, training.rows[choice])
    if not judging.has_classes:
        raise KingletError(
            f"The {len(choice)} training images that would judge the int8 models of {card.name} are void altogether.",
            "Bring more images with masks.",
        )
    packed = np.asarray(training.packed[training.rows[calibration]])
    return packed, SegmentationJudge(model, judging, card.preprocessing)
