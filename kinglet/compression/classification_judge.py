"""How int8 classifiers are judged: the accuracy of paired answers, and the divergence of class probabilities."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

import numpy as np
import onnx
from numpy.typing import NDArray

from kinglet.compression.guard import Verdict, judge
from kinglet.compression.quantization import compare
from kinglet.compression.saturation import emulated_logits
from kinglet.runtime.preprocessing import Preprocessing
from kinglet.runtime.processors import available_processors
from kinglet.runtime.sessions import logits_of, open_session

# Of the images that judge whether a model is good enough, the first choose between variants by divergence, which
# needs fewer images than counting errors.
DIVERGENCE_IMAGES = 2000


@dataclass(frozen=True)
class LabelledRows:
    """Rows of packed images with their labels. packed: uint8 (n, size, size, channels). rows, labels: int64 (m,)."""

    packed: NDArray[np.uint8]
    rows: NDArray[np.int64]
    labels: NDArray[np.int64]

    @property
    def images(self) -> NDArray[np.uint8]:
        """The images themselves, uint8 (m, size, size, channels)."""
        return np.asarray(self.packed[self.rows])

    def first(self, count: int) -> LabelledRows:
        """Return the first rows."""
        return LabelledRows(self.packed, self.rows[:count], self.labels[:count])


class ClassificationJudge:
    """A `Judge` of classifiers.

    All images judge whether a model is good enough; the first decide between variants, so they are in random order.
    """

    quality_name = "accuracy"

    def __init__(self, model: onnx.ModelProto, choice: LabelledRows, preprocessing: Preprocessing) -> None:
        """Let the float model answer the images. preprocessing: that of the model."""
        self.choice, self.first = choice, choice.first(DIVERGENCE_IMAGES)
        self.reference = logits(model, choice, preprocessing)
        self.first_reference = self.reference[: len(self.first.rows)]

    @property
    def reference_quality(self) -> float:
        """The float model's accuracy on the first images."""
        return accuracy(self.first_reference, self.first.labels)

    def score(self, model: onnx.ModelProto, preprocessing: Preprocessing) -> tuple[float, float]:
        """Return the share of the first images with the same class, and the mean divergence of the probabilities."""
        return compare(self.first_reference, logits(model, self.first, preprocessing))

    def verdict(self, model: onnx.ModelProto, preprocessing: Preprocessing, tolerance: float) -> Verdict:
        """Return whether the model is good enough. tolerance: accuracy that may be lost, [0, 1)."""
        return judge(logits(model, self.choice, preprocessing), self.reference, self.choice.labels, tolerance)

    def quality(self, model: onnx.ModelProto, preprocessing: Preprocessing) -> float:
        """Return the model's accuracy on the first images."""
        return accuracy(logits(model, self.first, preprocessing), self.first.labels)

    def quality_without_vnni(self, model: onnx.ModelProto, preprocessing: Preprocessing) -> tuple[float, Counter[str]]:
        """Return the accuracy on the first images on processors without VNNI, and the saturated pairs by layer."""
        found, saturated = emulated_logits(
            model, self.first.packed, self.first.rows, preprocessing, available_processors()
        )
        return accuracy(found, self.first.labels), saturated


def logits(model: onnx.ModelProto, images: LabelledRows, preprocessing: Preprocessing) -> NDArray[np.float32]:
    """Return a model's logits, float32 (n_images, n_classes)."""
    session = open_session(model.SerializeToString(), threads=1)
    return logits_of(session, images.packed, images.rows, preprocessing, workers=available_processors())


def accuracy(of_model: NDArray[np.float32], labels: NDArray[np.int64]) -> float:
    """Return the share of right answers, [0, 1]."""
    return float((of_model.argmax(1) == labels).mean())
