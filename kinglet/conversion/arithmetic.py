"""Where the arithmetic of other runtimes is not that of ONNX Runtime, for files of int8."""

from __future__ import annotations

from pathlib import Path

import onnx

from kinglet.conversion.onnx_reading import OnnxReader

# Read from the graphs that the runtimes really compute, and from the differences (docs/runtimes.md).
INT8_ARITHMETIC = {
    "openvino": "it adds a shortcut to the sums of the convolution before it and rounds once to 8 bits, where ONNX "
    "Runtime rounds the convolution, then the sum.",
    "opencv": "its integer layers round in their own way, so that a value on the border of two steps may take the "
    "other.",
    "litert": "it computes the same integers; only an addition or a mean, in fixed-point numbers, may round a value on "
    "the border of two steps to the other.",
}


def logits_step(model: Path) -> float | None:
    """Return the difference of two neighbouring logits of an int8 file; None if its logits are not quantized."""
    reader = OnnxReader(onnx.load(model))
    output = reader.graph.output[0].name
    last = next(node for node in reader.graph.node if output in node.output)
    return float(reader.scale_of(last)[0]) if last.op_type == "DequantizeLinear" else None
