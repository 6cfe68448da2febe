"""What an int8 model is worth on x86 processors without VNNI, where sums of 8-bit products saturate."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

from kinglet.compression.saturation import logits_without_vnni, unknown_operators
from kinglet.evidence.bootstrap import accuracy_interval
from kinglet.runtime.bundles import MODEL, WITHOUT_VNNI
from kinglet.runtime.engines import ONNXRUNTIME
from kinglet.runtime.processors import available_processors
from kinglet.runtime.sessions import open_session, read_metadata
from tasks.artifacts import ModelCard
from tasks.held_out import HeldOut
from tasks.parameters import Parameters

# Test images that are asked: a big network takes 10 ms an image where its arithmetic is emulated.
EMULATED_IMAGES = 2000


# The predicted classes of these rows of a packed file by an ONNX file, as computed on such processors.
AnswersWithoutVnni = Callable[[Path, NDArray[np.uint8], NDArray[np.int64]], NDArray[np.int64]]


def answers_without_vnni(file: Path, packed: NDArray[np.uint8], rows: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return the predicted classes of these rows of packed images on x86 without VNNI."""
    preprocessing, _ = read_metadata(open_session(file, threads=1))
    return logits_without_vnni(onnx.load(file), packed, rows, preprocessing, available_processors()).argmax(axis=1)


def without_vnni(
    folder: Path,
    card: ModelCard,
    packed: Path,
    images: HeldOut,
    parameters: Parameters,
    answer: AnswersWithoutVnni = answers_without_vnni,
) -> dict[str, Any]:
    """Return what an int8 model is worth on x86 processors without VNNI, under one key; packed: the file of images.

    Nothing for other models and other runtimes, and for operators that cannot be emulated.
    """
    if card.precision != "int8" or card.runtime != ONNXRUNTIME or unknown_operators(onnx.load(folder / MODEL)):
        return {}
    settings, opened = parameters.evaluate, np.load(packed, mmap_mode="r")
    model, other = folder / MODEL, folder / WITHOUT_VNNI
    return {
        "without_vnni": accuracies_without_vnni(
            model, other, opened, images, settings.confidence, parameters.seed, answer
        )
    }


def accuracies_without_vnni(
    model: Path,
    other: Path,
    packed: NDArray[np.uint8],
    images: HeldOut,
    confidence: float,
    seed: int,
    answer: AnswersWithoutVnni = answers_without_vnni,
) -> dict[str, Any]:
    """Return what an int8 model is worth on x86 processors without VNNI.

    model, other: its file, and that of its variant for such processors; there may be none. packed: what
    images.rows point into. In the result, model_onnx: accuracy of the model there. accuracy: of the file that is
    opened there, called as in a bundle. n: the first images, at most EMULATED_IMAGES.
    """
    some = images.first(EMULATED_IMAGES)

    def accuracy(file: Path) -> dict[str, float]:
        right = answer(file, packed, some.rows) == some.labels
        return accuracy_interval(right, confidence=confidence, seed=seed).to_dict()

    of_model = accuracy(model)
    has_other = other.is_file()
    return {
        "file": WITHOUT_VNNI if has_other else MODEL,
        "n": len(some.labels),
        "accuracy": accuracy(other) if has_other else of_model,
        "model_onnx": of_model,
    }
