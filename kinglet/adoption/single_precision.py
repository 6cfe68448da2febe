"""A graph of half-precision numbers turned into one of single precision, which is what the quantizer reads."""

from __future__ import annotations

import numpy as np
import onnx
from onnx import TensorProto, numpy_helper


def has_halves(model: onnx.ModelProto) -> bool:
    """Return whether the model stores or takes float16 numbers."""
    inputs = (item.type.tensor_type.elem_type for item in model.graph.input)
    stored = (item.data_type for item in model.graph.initializer)
    return TensorProto.FLOAT16 in (*inputs, *stored)


def to_single_precision(model: onnx.ModelProto) -> None:
    """Make every float16 number of the model's main graph a float32 one, in place; they hold the same values."""
    graph = model.graph
    for item in graph.initializer:
        _widen(item)
    for node in graph.node:
        for attribute in node.attribute:
            if attribute.HasField("t"):
                _widen(attribute.t)
            if attribute.name in ("to", "dtype") and attribute.i == TensorProto.FLOAT16:
                attribute.i = TensorProto.FLOAT
    for value in (*graph.input, *graph.output):
        if value.type.tensor_type.elem_type == TensorProto.FLOAT16:
            value.type.tensor_type.elem_type = TensorProto.FLOAT
    del graph.value_info[:]


def _widen(tensor: onnx.TensorProto) -> None:
    if tensor.data_type == TensorProto.FLOAT16:
        tensor.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(tensor).astype(np.float32), tensor.name))
