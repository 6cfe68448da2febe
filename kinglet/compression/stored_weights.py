"""Float models whose weights are stored in fewer bits and become floats again when the file is opened.

Nothing but the weights of layers is touched: activations and arithmetic stay float32, so that the accuracy hardly
changes and no calibration is needed, and the file is half the size, or a quarter. ONNX Runtime folds the conversion
into a constant while it opens the file, before it chooses kernels: an inference then takes as long as the float
model's. On x86 its kernels compute in float32 in any case.

int8 weights have one scale per output channel and are symmetric.

Source: Nagel et al. 2021, "A White Paper on Neural Network Quantization", section 2.2 (per-channel weights).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import ml_dtypes
import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

FP16, BF16, INT8 = "fp16", "bf16", "int8"
STORAGES = (FP16, BF16, INT8)
LARGEST_INT8 = 127


@dataclass(frozen=True)
class Stored:
    """A model with its weights in fewer bits.

    layers: how many layers' weights are. left: names of those that stay float32, as they hold what the type cannot.
    """

    model: onnx.ModelProto
    layers: int
    left: list[str]


def store_weights(model: onnx.ModelProto, storage: str) -> Stored:
    """Return a copy of a float model with the weights of its layers in another type.

    model: float32, ONNX's own operators, its weights among the initializers. storage: one of STORAGES.
    """
    made = onnx.ModelProto()
    made.CopyFrom(model)
    graph = made.graph
    stored = {item.name: item for item in graph.initializer if item.data_type == TensorProto.FLOAT}
    axes = {name: axis for name, axis in weight_axes(graph) if name in stored}
    nodes, left = [], []
    for name, axis in axes.items():
        values = numpy_helper.to_array(stored[name])
        replaced = REPLACING[storage](name, values, axis)
        if replaced is None:
            left.append(name)
            continue
        tensors, restoring = replaced
        graph.initializer.remove(stored[name])
        graph.initializer.extend(tensors)
        nodes += restoring
    later = list(graph.node)
    del graph.node[:]
    graph.node.extend([*nodes, *later])
    return Stored(made, len(axes) - len(left), left)


def weight_axes(graph: onnx.GraphProto) -> list[tuple[str, int]]:
    """Return the names of what layers take for weights, each once, with the axis of the output channels."""
    axes: dict[str, int] = {}
    for node in graph.node:
        if node.op_type == "Conv":
            axes.setdefault(node.input[1], 0)
        elif node.op_type == "ConvTranspose":
            axes.setdefault(node.input[1], 1)
        elif node.op_type == "Gemm":
            turned = any(item.name == "transB" and item.i for item in node.attribute)
            axes.setdefault(node.input[1], 0 if turned else 1)
        elif node.op_type == "MatMul":
            axes.setdefault(node.input[1], -1)
    return list(axes.items())


Replaced = tuple[list[TensorProto], list[onnx.NodeProto]]


def as_short_float(kind: np.dtype[np.generic]) -> Callable[[str, NDArray[np.float32], int], Replaced | None]:
    """Return what stores weights as 16-bit floats of a kind; None for weights beyond its range."""

    def replace(name: str, values: NDArray[np.float32], _: int) -> Replaced | None:
        with np.errstate(over="ignore"):
            short = values.astype(kind)
        if not np.isfinite(short.astype(np.float32)).all():
            return None
        tensor = numpy_helper.from_array(short, f"{name}.stored")
        return [tensor], [helper.make_node("Cast", [tensor.name], [name], f"{name}.restored", to=TensorProto.FLOAT)]

    return replace


def as_int8(name: str, values: NDArray[np.float32], axis: int) -> Replaced | None:
    """Store weights as whole numbers from -127 to 127 and a scale for each output channel; None for none finite."""
    if not np.isfinite(values).all():
        return None
    others = tuple(place for place in range(values.ndim) if place != axis % values.ndim)
    largest = np.abs(values).max(axis=others, keepdims=True)
    scales = np.where(largest > 0, largest / LARGEST_INT8, 1).astype(np.float32)
    whole = np.clip(np.rint(values / scales), -LARGEST_INT8, LARGEST_INT8).astype(np.int8)
    tensors = [numpy_helper.from_array(whole, f"{name}.stored"), numpy_helper.from_array(scales, f"{name}.scales")]
    nodes = [
        helper.make_node("Cast", [tensors[0].name], [f"{name}.whole"], f"{name}.cast", to=TensorProto.FLOAT),
        helper.make_node("Mul", [f"{name}.whole", tensors[1].name], [name], f"{name}.restored"),
    ]
    return tensors, nodes


REPLACING: dict[str, Callable[[str, NDArray[np.float32], int], Replaced | None]] = {
    FP16: as_short_float(np.dtype(np.float16)),
    BF16: as_short_float(np.dtype(ml_dtypes.bfloat16)),
    INT8: as_int8,
}
