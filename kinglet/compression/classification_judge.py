"""How int8 classifiers are judged: the accuracy of paired answers, and the divergence of class probabilities."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import onnx
from numpy.typing import NDArray

from kinglet.compression.guard import Verdict, judge
from kinglet.compression.quantization import compare
from kinglet.compression.saturation import logits_and_saturated_pairs
from kinglet.runtime.preprocessing import Preprocessing
from kinglet.runtime.processors import available_processors
from kinglet.runtime.sessions import logits_of, open_session

# Of the images that judge whether a model is good enough, the first choose between variants by divergence, which
# needs fewer images than counting errors.
DIVERGENCE_IMAGES = 2000

Logits = NDArray[np.float32]


@dataclass(frozen=True)
class LabelledRows:
    """Rows of packed images or clips with their labels.

    packed: uint8 (n, size, size, channels), of clips (n, frames, size, size, channels). rows, labels: int64 (m,).
    """

    packed: NDArray[np.uint8]
    rows: NDArray[np.int64]
    labels: NDArray[np.int64]

    @property
    def images(self) -> NDArray[np.uint8]:
        """The images or clips themselves, uint8 (m, ...)."""
        return np.asarray(self.packed[self.rows])

    def first(self, count: int) -> LabelledRows:
        """Return the first rows."""
        return LabelledRows(self.packed, self.rows[:count], self.labels[:count])


class Answering(Protocol):
    """How a model answers rows: images by itself, clips together with a recurrent part."""

    def logits(self, model: onnx.ModelProto, rows: LabelledRows, preprocessing: Preprocessing) -> Logits:
        """Return the model's logits, float32 (n_rows, n_classes)."""

    def logits_without_vnni(
        self, model: onnx.ModelProto, rows: LabelledRows, preprocessing: Preprocessing
    ) -> tuple[Logits, Counter[str]]:
        """Return those on x86 processors without VNNI, and the saturated pairs by layer."""


class OfImages:
    """The answers of a model that is whole."""

    def logits(self, model: onnx.ModelProto, rows: LabelledRows, preprocessing: Preprocessing) -> Logits:
        """See `Answering`."""
        session = open_session(model.SerializeToString(), threads=1)
        return logits_of(session, rows.packed, rows.rows, preprocessing, workers=available_processors())

    def logits_without_vnni(
        self, model: onnx.ModelProto, rows: LabelledRows, preprocessing: Preprocessing
    ) -> tuple[Logits, Counter[str]]:
        """See `Answering`."""
        return logits_and_saturated_pairs(model, rows.packed, rows.rows, preprocessing, available_processors())


class ClassificationJudge:
    """A `Judge` of classifiers.

    All images judge whether a model is good enough; the first decide between variants, so they are in random order.
    """

    quality_name = "accuracy"

    def __init__(
        self,
        model: onnx.ModelProto,
        choice: LabelledRows,
        preprocessing: Preprocessing,
        answering: Answering | None = None,
        n_first: int = DIVERGENCE_IMAGES,
    ) -> None:
        """Let the float model answer the images. preprocessing: that of the model. answering: None for images."""
        self.choice, self.first, self.answering = choice, choice.first(n_first), answering or OfImages()
        self.reference = self.answering.logits(model, choice, preprocessing)
        self.first_reference = self.reference[: len(self.first.rows)]

    @property
    def reference_quality(self) -> float:
        """The float model's accuracy on the first images."""
        return accuracy(self.first_reference, self.first.labels)

    def score(self, model: onnx.ModelProto, preprocessing: Preprocessing) -> tuple[float, float]:
        """Return the share of the first images with the same class, and the mean divergence of the probabilities."""
        return compare(self.first_reference, self.answering.logits(model, self.first, preprocessing))

    def verdict(self, model: onnx.ModelProto, preprocessing: Preprocessing, tolerance: float) -> Verdict:
        """Return whether the model is good enough. tolerance: accuracy that may be lost, [0, 1)."""
        found = self.answering.logits(model, self.choice, preprocessing)
        return judge(found, self.reference, self.choice.labels, tolerance)

    def quality(self, model: onnx.ModelProto, preprocessing: Preprocessing) -> float:
        """Return the model's accuracy on the first images."""
        return accuracy(self.answering.logits(model, self.first, preprocessing), self.first.labels)

    def quality_without_vnni(self, model: onnx.ModelProto, preprocessing: Preprocessing) -> tuple[float, Counter[str]]:
        """Return the accuracy on the first images on processors without VNNI, and the saturated pairs by layer."""
        found, saturated = self.answering.logits_without_vnni(model, self.first, preprocessing)
        return accuracy(found, self.first.labels), saturated


def accuracy(of_model: Logits, labels: NDArray[np.int64]) -> float:
    """Return the share of right answers, [0, 1]."""
    return float((of_model.argmax(1) == labels).mean())
