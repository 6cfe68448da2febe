"""Reading a graph of ONNX: constants, also quantized ones, and what follows a value."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import numpy_helper

Array = NDArray[Any]


class OnnxReader:
    """A graph with its constants and the readers of every value at hand."""

    def __init__(self, model: onnx.ModelProto) -> None:
        self.graph = model.graph
        self._constants = {item.name: numpy_helper.to_array(item) for item in self.graph.initializer}
        self._outputs = {item.name for item in self.graph.output}
        self._dequantizers = {
            node.output[0]: node
            for node in self.graph.node
            if node.op_type == "DequantizeLinear" and node.input[0] in self._constants
        }
        self._consumers: dict[str, list[onnx.NodeProto]] = {}
        for node in self.graph.node:
            for name in node.input:
                self._consumers.setdefault(name, []).append(node)

    def attributes(self, node: onnx.NodeProto) -> dict[str, Any]:
        """Return a node's attributes, {name: value}."""
        return {item.name: onnx.helper.get_attribute_value(item) for item in node.attribute}

    def is_constant(self, name: str) -> bool:
        """Return whether a value is stored in the file, as it is or quantized."""
        return name in self._constants or name in self._dequantizers

    def is_quantized_constant(self, name: str) -> bool:
        """Return whether a value is stored in integers."""
        return name in self._dequantizers

    def constant(self, name: str) -> Array:
        """Return a stored value; in float32 if it is quantized."""
        if name in self._constants:
            return self._constants[name]
        node = self._dequantizers[name]
        stored, scales, zero_points = self.quantized_constant(name)
        axis = self.attributes(node).get("axis", 1)
        shape = [-1 if place == axis else 1 for place in range(stored.ndim)] if scales.size > 1 else []
        shifted = stored.astype(np.int64) - zero_points.astype(np.int64).reshape(shape)
        floats: Array = (shifted * scales.astype(np.float64).reshape(shape)).astype(np.float32)
        return floats

    def quantized_constant(self, name: str) -> tuple[Array, Array, Array]:
        """Return the integers of a quantized stored value, its scales and zero points."""
        node = self._dequantizers[name]
        scales, zero_points = self.scale_of(node)
        return self._constants[node.input[0]], scales, zero_points

    def scale_of(self, node: onnx.NodeProto) -> tuple[Array, Array]:
        """Return scale and zero point of a QuantizeLinear or DequantizeLinear."""
        scale = self._constants[node.input[1]]
        return scale, self._constants[node.input[2]] if len(node.input) > 2 else np.zeros(scale.shape, np.uint8)

    def dequantized(self, name: str) -> list[str]:
        """Return the values that DequantizeLinear makes of an integer value."""
        return [node.output[0] for node in self._consumers.get(name, []) if node.op_type == "DequantizeLinear"]

    def only_consumer(self, name: str) -> onnx.NodeProto | None:
        """Return the one node that reads a value; None if there are several, or it is the graph's output too."""
        consumers = self._consumers.get(name, [])
        return consumers[0] if len(consumers) == 1 and name not in self._outputs else None

    def activation_of(self, node: onnx.NodeProto) -> str | None:
        """Return "RELU" or "RELU6" for a node that computes it, else None."""
        if node.op_type == "Relu":
            return "RELU"
        if node.op_type == "Clip" and len(node.input) == 3 and all(map(self.is_constant, node.input[1:])):
            bounds = [float(self.constant(name)) for name in node.input[1:]]
            return "RELU6" if bounds == [0.0, 6.0] else None
        return None

    def activation_after(self, name: str) -> tuple[str, str, list[str]]:
        """Return the value that a node gives once the activation after it is computed with it.

        Also the activation, "NONE", "RELU" or "RELU6", and the names of the values that are passed over.
        """
        consumer = self.only_consumer(name)
        activation = self.activation_of(consumer) if consumer is not None else None
        if consumer is None or activation is None:
            return name, "NONE", []
        return consumer.output[0], activation, [consumer.output[0]]
