"""What the ladder of int8 asks about a candidate, whatever the problem: how near the float model, and how good."""

from __future__ import annotations

from collections import Counter
from typing import Protocol

import onnx

from kinglet.compression.guard import Verdict
from kinglet.runtime.preprocessing import Preprocessing


class Judge(Protocol):
    """Holds int8 models against the float model that it was opened with, on images that no calibration sees.

    A problem has one judge. `preprocessing` is always that of the model asked about.
    """

    @property
    def quality_name(self) -> str:
        """What `quality` is called in the notes on a model."""

    @property
    def reference_quality(self) -> float:
        """The quality of the float model."""

    def score(self, model: onnx.ModelProto, preprocessing: Preprocessing) -> tuple[float, float]:
        """Return agreement and divergence, as in `Variant`."""

    def verdict(self, model: onnx.ModelProto, preprocessing: Preprocessing, tolerance: float) -> Verdict:
        """Return whether the model is good enough. tolerance: what may be lost of the quality, [0, 1)."""

    def quality(self, model: onnx.ModelProto, preprocessing: Preprocessing) -> float:
        """Return how good the model is, [0, 1]."""

    def quality_without_vnni(self, model: onnx.ModelProto, preprocessing: Preprocessing) -> tuple[float, Counter[str]]:
        """Return how good the model is on x86 processors without VNNI, and its saturated pairs by layer."""
