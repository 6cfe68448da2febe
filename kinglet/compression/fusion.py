"""What ONNX Runtime makes of a QDQ file: which layers it computes in integers, and which conversions are left.

A Q/DQ pair in the wrong place stops a fusion: the layer is then computed in float between two conversions,
slower than without quantization, and nothing tells. So the graph that is really run is looked at.
"""

from __future__ import annotations

import tempfile
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import onnx
import onnxruntime

# Layers with weights, as ONNX Runtime names them when they compute in integers, and in float.
INTEGER_LAYERS = (
    "QLinearConv",
    "QGemm",
    "QLinearMatMul",
    "ConvInteger",
    "MatMulInteger",
    "MatMulIntegerToFloat",
)
FLOAT_LAYERS = ("Conv", "FusedConv", "NhwcFusedConv", "Gemm", "FusedGemm", "MatMul", "FusedMatMul")
CONVERSIONS = ("QuantizeLinear", "DequantizeLinear")


@dataclass(frozen=True)
class Fusions:
    """Counts of the optimized graph's operators: {operator: nodes}."""

    operators: dict[str, int]

    @property
    def integer_layers(self) -> int:
        """Layers with weights that are computed in integers."""
        return sum(self.operators.get(name, 0) for name in INTEGER_LAYERS)

    @property
    def float_layers(self) -> int:
        """Layers with weights that are computed in float."""
        return sum(self.operators.get(name, 0) for name in FLOAT_LAYERS)

    @property
    def conversions(self) -> int:
        """Nodes that convert between float and integers; a network wholly in int8 has two, at its ends."""
        return sum(self.operators.get(name, 0) for name in CONVERSIONS)

    def to_dict(self) -> dict[str, Any]:
        """Return what a model's notes say about it."""
        return {
            "integer_layers": self.integer_layers,
            "float_layers": self.float_layers,
            "conversions": self.conversions,
            "operators": self.operators,
        }


def fusions_of(model: onnx.ModelProto) -> Fusions:
    """Return the operators of the graph that ONNX Runtime runs for `model` on this machine."""
    return Fusions(dict(sorted(Counter(node.op_type for node in optimized(model).graph.node).items())))


ALL = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_ALL


def optimized(model: onnx.ModelProto, level: onnxruntime.GraphOptimizationLevel = ALL) -> onnx.ModelProto:
    """Return the graph that ONNX Runtime makes of `model` on this machine, with the optimizations of this level."""
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = level
    options.log_severity_level = 3  # it warns that the graph suits this machine only, which is what is asked for
    options.intra_op_num_threads = 1
    with tempfile.TemporaryDirectory() as folder:  # ONNX Runtime gives the graph to a file only
        path = Path(folder) / "optimized.onnx"
        options.optimized_model_filepath = str(path)
        onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
        return onnx.load(path)
