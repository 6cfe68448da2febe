"""A recurrent step in int8: weights of its matrix products stored in integers, what they are multiplied with scaled on
the way.

A state has no range that calibration could find once for all clips of any length; dynamic quantization needs none.
"""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnxruntime.quantization import QuantType, quantize_dynamic

from kinglet.compression.classification_judge import accuracy
from kinglet.compression.clip_judge import Features, logits_of_clips
from kinglet.compression.latency import Latency
from kinglet.models.onnx_graph import add_metadata, read_metadata
from kinglet.runtime.recurrence import open_recurrence


@dataclass(frozen=True)
class Judgement:
    """What speaks for a recurrent part in int8, in place of that in float.

    accuracy, float_accuracy: on the judging clips, [0, 1]. latency, float_latency: of one step.
    """

    accuracy: float
    float_accuracy: float
    latency: Latency
    float_latency: Latency

    @property
    def is_kept(self) -> bool:
        """Whether it is not worse, and not slower beyond doubt."""
        return self.accuracy >= self.float_accuracy and self.latency.low <= self.float_latency.high

    def to_dict(self) -> dict[str, Any]:
        """Return what a model's notes say of it."""
        return {
            "precision": "int8" if self.is_kept else "fp32",
            "accuracy": self.accuracy,
            "float_accuracy": self.float_accuracy,
            "p50_ms": self.latency.value,
            "float_p50_ms": self.float_latency.value,
        }


def quantize_step(model: onnx.ModelProto) -> onnx.ModelProto:
    """Return a recurrent step with int8 weights, one scale per output; the same step gives the same bytes.

    The weights have 7 bits, so that no processor's 16-bit sums of products saturate: all answer alike.
    """
    with tempfile.TemporaryDirectory() as folder:
        source, made = Path(folder) / "float.onnx", Path(folder) / "int8.onnx"
        onnx.save(model, source)
        quantize_dynamic(source, made, per_channel=True, reduce_range=True, weight_type=QuantType.QInt8)
        quantized = onnx.load(made)
    add_metadata(quantized, read_metadata(model))
    return quantized


def accuracy_of_step(model: onnx.ModelProto, features: Features, labels: NDArray[np.int64]) -> float:
    """Return the share of clips, [0, 1], that a step takes for what they are.

    features: float32 (n_clips, frames, feature_size). labels: int64 (n_clips,).
    """
    recurrence = open_recurrence(model.SerializeToString(), threads=1)
    return accuracy(logits_of_clips(features, recurrence), labels)
