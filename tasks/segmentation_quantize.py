"""How the ladder of int8 begins for segmenters: the images of each role, their masks, and the steps."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx

from kinglet.compression.guard import set_aside
from kinglet.compression.ladder import STEPS, Bench, Settings, Step, open_bench
from kinglet.compression.segmentation_judge import MaskedRows, SegmentationJudge
from kinglet.errors import KingletError
from kinglet.reporting import Report
from kinglet.runtime.bundles import MODEL
from tasks.artifacts import ModelCard
from tasks.models import read_manifest
from tasks.parameters import Quantize
from tasks.segmentation_training import masked_images

# Training images that no calibration sees, at most. They judge whether a model is good enough.
CHOICE_IMAGES = 500


def segmentation_ladder(
    folder: Path, card: ModelCard, settings: Quantize, seed: int, report: Report, warn: Callable[[str], None]
) -> tuple[Bench, dict[str, Step]]:
    """Give every image of the training split its role; return what the steps work with, and the steps.

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
    model = onnx.load(folder / MODEL)
    bench = open_bench(
        card.name,
        model,
        np.asarray(training.packed[training.rows[calibration]]),
        SegmentationJudge(model, judging, card.preprocessing),
        card.preprocessing,
        Settings(settings.methods, settings.weight_bits, settings.tolerance, settings.max_float_layers),
        report,
        warn,
        uint8_input=settings.uint8_input,
    )
    return bench, dict(STEPS)
