"""Predictions from a bundle: uint8 images in, classes and probabilities out.

Needs onnxruntime, numpy and Pillow only; for a bundle that names another runtime, that one.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kinglet.errors import KingletError
from kinglet.runtime import bundles
from kinglet.runtime.decoding import decode
from kinglet.runtime.golden_probabilities import Answering, check_probabilities
from kinglet.runtime.opened_bundle import open_bundle
from kinglet.runtime.preprocessing import InputTensor, prepare
from kinglet.runtime.sessions import softmax

BATCH_SIZE = 32
MAX_PIXELS = 100_000_000


@dataclass(frozen=True)
class Predictions:
    """What the model says about n images or clips, in the order given.

    classes: the most probable class of each. confidences: its probability, float32 of shape (n,).
    probabilities: float32 of shape (n, n_classes), columns in the order of `Predictor.classes`.
    """

    classes: list[str]
    confidences: NDArray[np.float32]
    probabilities: NDArray[np.float32]

    def __len__(self) -> int:
        return len(self.classes)


def predictions_of(probabilities: NDArray[np.float32], classes: Sequence[str]) -> Predictions:
    """Return probabilities, float32 (n, n_classes), with the most probable class of each row."""
    best = probabilities.argmax(axis=1)
    confidences = probabilities[np.arange(len(best)), best]
    return Predictions([classes[index] for index in best], confidences, probabilities)


class Predictor:
    """A model opened from a bundle; safe to call from several threads at once.

    >>> predictor = Predictor("artifacts/bundle")
    >>> predictor.predict([image]).classes
    ['sandal']
    """

    problem = bundles.CLASSIFICATION

    def __init__(self, bundle: Path | str, threads: int | None = None, saturates: bool | None = None) -> None:
        """Open the bundle.

        threads: processors that one prediction may use; None takes every one that is granted. saturates:
        whether this processor is x86 without VNNI, for which a bundle may hold a file of its own; None asks
        the processor. `model_file` says which file was opened, `runtime` what computes it.
        Raises KingletError that names the file if one is missing, damaged or not what the checksums say, or the
        runtime if it is not installed, or says what opens it if it is no classifier's.
        """
        opened = open_bundle(Path(bundle), threads, saturates, bundles.CLASSIFICATION)
        self.runtime, self.model_file, self.saturates = opened.runtime, opened.model_file, opened.saturates
        self.classes, self.preprocessing = opened.classes, opened.preprocessing
        self._compute = opened.engine.run

    def predict(self, images: Iterable[NDArray[np.uint8]]) -> Predictions:
        """Return the predictions for images of any size.

        images: uint8 arrays of shape (height, width) or (height, width, 1 or 3), RGB; or one array of
        shape (n, height, width, 1 or 3).
        Raises ValueError that says which image has another shape or type.
        """
        if isinstance(images, np.ndarray) and images.ndim != 4:
            raise ValueError(f"predict takes a list of images or an array of 4 dimensions, got shape {images.shape}")
        parts = [self._probabilities(batch, start) for start, batch in batches(images)]
        probabilities = np.concatenate(parts) if parts else np.empty((0, len(self.classes)), np.float32)
        return predictions_of(probabilities, self.classes)

    def predict_files(self, paths: Sequence[Path | str], max_pixels: int = MAX_PIXELS) -> Predictions:
        """Return the predictions for image files, decoded as in training.

        Raises KingletError that names the first file which is missing or cannot be decoded.
        """
        return self.predict(read_image(Path(path), max_pixels) for path in paths)

    def logits(self, tensors: InputTensor) -> NDArray[np.float32]:
        """Return the logits of inputs that are prepared already, float32 (n, n_classes).

        tensors: as `kinglet.runtime.preprocessing.prepare` makes them, n at least 1.
        """
        return self.outputs(tensors)

    def outputs(self, tensors: InputTensor) -> NDArray[np.float32]:
        """Return what the model gives, its logits; see `logits`."""
        return self._compute(tensors)

    def check_golden(self, golden: Path, tolerance: float | None = None) -> float:
        """Predict the golden images and return the largest difference from what this kind of processor answers.

        tolerance: None stands for the one that the golden file states, or else for a usual one.
        Raises KingletError with the first image whose answer is farther off; see `check_probabilities`.
        """
        answering = Answering(
            lambda images: self.predict(images).probabilities, self.classes, self.runtime, self.saturates
        )
        return check_probabilities(answering, golden, tolerance)

    def _probabilities(self, images: list[NDArray[np.uint8]], start: int) -> NDArray[np.float32]:
        tensors: list[Any] = []
        for position, image in enumerate(images, start):
            try:
                tensors.append(prepare([np.asarray(image)], self.preprocessing))
            except ValueError as error:
                raise ValueError(f"image {position}: {error}") from None
        return softmax(self._compute(np.concatenate(tensors)))


def batches(images: Iterable[NDArray[np.uint8]]) -> Iterator[tuple[int, list[NDArray[np.uint8]]]]:
    """Yield the images in lists of at most BATCH_SIZE, each with the position of its first."""
    start, batch = 0, []
    for image in images:
        batch.append(image)
        if len(batch) == BATCH_SIZE:
            yield start, batch
            start, batch = start + len(batch), []
    if batch:
        yield start, batch


def read_image(path: Path, max_pixels: int) -> NDArray[np.uint8]:
    """Return the decoded image of a file; raises KingletError that names it."""
    try:
        content = path.read_bytes()
    except OSError as error:
        raise KingletError(f"{path} cannot be read: {error.strerror}.") from None
    try:
        return decode(content, max_pixels)[0]
    except (ValueError, OSError) as error:
        raise KingletError(f"{path} cannot be decoded: {error}.") from None
