"""What an int8 detector is worth on x86 processors without VNNI, where sums of 8-bit products saturate."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx

from kinglet.compression.detector_without_vnni import detector_without_vnni
from kinglet.compression.saturation import unknown_operators
from kinglet.runtime.bundles import MODEL, WITHOUT_VNNI
from kinglet.runtime.detection import DETECTOR_OUTPUTS
from kinglet.runtime.sessions import open_session, read_metadata
from tasks.artifacts import ModelCard
from tasks.detection_answers import BoxedImages, OpenedDetector, find_objects
from tasks.detection_scores import headline_at
from tasks.parameters import Parameters

# Test images on which such arithmetic is emulated, which takes a second each.
EMULATED_IMAGES = 96


def scores_without_vnni(
    folder: Path, card: ModelCard, images: BoxedImages, n_classes: int, parameters: Parameters
) -> dict[str, Any]:
    """Return what an int8 detector is worth on x86 processors without VNNI, JSON-ready, under one key.

    images: of the test; the first EMULATED_IMAGES count. In the result, file: what is opened there, called as in a
    bundle. n: images. score: of that file, with its interval. model_onnx: of the model that is opened elsewhere.
    Nothing for other models, and for operators that cannot be emulated.
    """
    if card.precision != "int8" or unknown_operators(onnx.load(folder / MODEL)):
        return {}
    some = images.take(np.arange(min(len(images), EMULATED_IMAGES)))

    def score(file: Path) -> dict[str, float] | None:
        found = find_objects(open_without_vnni(file), some, str(file))
        return headline_at(np.arange(len(some)), some, found, n_classes, parameters)

    of_model, variant = score(folder / MODEL), folder / WITHOUT_VNNI
    return {
        "without_vnni": {
            "file": WITHOUT_VNNI if variant.is_file() else MODEL,
            "n": len(some),
            "score": score(variant) if variant.is_file() else of_model,
            "model_onnx": of_model,
        }
    }


def open_without_vnni(file: Path) -> OpenedDetector:
    """Return a detector that answers as on x86 without VNNI: by ONNX Runtime on such a processor, else emulated."""
    session = open_session(file, threads=1, outputs=DETECTOR_OUTPUTS)
    return OpenedDetector(detector_without_vnni(onnx.load(file)), *read_metadata(session))
