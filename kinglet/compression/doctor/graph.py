"""The ways through a network in QDQ form: who makes and who reads a tensor, which pairs and layers there are."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cached_property
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper, numpy_helper

from kinglet.compression.doctor.layers import Grid, Layer, Pair, Stored

WEIGHTED = ("Conv", "ConvTranspose", "Gemm", "MatMul")
ACTIVATIONS = ("Relu", "Clip")
# Operators that hand integers on without computing with them.
CARRIERS = ("MaxPool", "Reshape", "Flatten", "Transpose", "Squeeze", "Unsqueeze", "Identity", "Slice", "Split")


class Graph:
    """A model in QDQ form and the ways through it. The model must not change afterwards."""

    def __init__(self, model: onnx.ModelProto) -> None:
        self.model = model
        self.nodes = list(model.graph.node)
        self.by_name = {node.name: node for node in self.nodes}
        self.constants = {item.name: numpy_helper.to_array(item) for item in model.graph.initializer}
        self.makers = {name: node for node in self.nodes for name in node.output}
        self.readers: dict[str, list[onnx.NodeProto]] = {}
        for node in self.nodes:
            for name in dict.fromkeys(node.input):
                self.readers.setdefault(name, []).append(node)
        self.outputs = {output.name for output in model.graph.output}

    @cached_property
    def pairs(self) -> list[Pair]:
        """All pairs on tensors that are computed, in graph order."""
        return [
            Pair(node, tuple(self._dequantizes(node.output[0])), self.grid(node))
            for node in self.nodes
            if node.op_type == "QuantizeLinear"
        ]

    @cached_property
    def layers(self) -> list[Layer]:
        """All nodes with constant weights, in graph order."""
        found = (self._layer(node) for node in self.nodes if node.op_type in WEIGHTED)
        return [layer for layer in found if layer is not None]

    @cached_property
    def layer(self) -> dict[str, Layer]:
        """The layers by name."""
        return {layer.name: layer for layer in self.layers}

    def grid(self, node: onnx.NodeProto) -> Grid:
        """Return the grid of a QuantizeLinear or DequantizeLinear; its zero point is 0 where none is given."""
        scale = np.atleast_1d(np.asarray(self.constants[node.input[1]], np.float32))
        axis = next((int(item.i) for item in node.attribute if item.name == "axis"), 1)
        if len(node.input) > 2 and node.input[2]:
            return Grid(scale, np.atleast_1d(self.constants[node.input[2]]), axis)
        stored = self.constants.get(node.input[0])
        default = np.uint8 if stored is None else stored.dtype
        return Grid(scale, np.zeros(scale.shape, default), axis)

    def only_reader(self, name: str) -> onnx.NodeProto | None:
        """Return the node that alone reads a tensor; None if several do, or if it is an output of the model."""
        readers = self.readers.get(name, [])
        return readers[0] if len(readers) == 1 and name not in self.outputs else None

    def activation_after(self, node: onnx.NodeProto) -> onnx.NodeProto | None:
        """Return the ReLU or Clip that alone reads a node's output, rounded before or not."""
        reader = self.only_reader(node.output[0])
        while reader is not None and reader.op_type in ("QuantizeLinear", "DequantizeLinear"):
            reader = self.only_reader(reader.output[0])
        return reader if reader is not None and reader.op_type in ACTIVATIONS else None

    def end_of(self, node: onnx.NodeProto) -> str:
        """Return the tensor that a node hands on: its output, or that of the activation behind it."""
        activation = self.activation_after(node)
        return str((activation or node).output[0])

    def pair_on(self, tensor: str) -> Pair | None:
        """Return the first pair that rounds this tensor."""
        return next((pair for pair in self.pairs if pair.tensor == tensor), None)

    def neighbours(self, pair: Pair) -> set[str]:
        """Return the names of the layers nearest before and behind a pair, seen through nodes without weights."""
        before = self._walk([pair.tensor], forwards=False)
        behind = self._walk([node.output[0] for node in pair.dequantizes], forwards=True)
        return {*before, *behind}

    def _walk(self, tensors: list[str], forwards: bool) -> Iterator[str]:
        seen: set[str] = set()
        while tensors:
            tensor = tensors.pop()
            made = [self.makers[tensor]] if tensor in self.makers else []
            for node in self.readers.get(tensor, []) if forwards else made:
                if node.name in seen:
                    continue
                seen.add(node.name)
                if node.name in self.layer:
                    yield node.name
                else:
                    tensors += list(node.output if forwards else node.input)

    def _dequantizes(self, integers: str) -> Iterator[onnx.NodeProto]:
        for node in self.readers.get(integers, []):
            if node.op_type == "DequantizeLinear":
                yield node
            elif node.op_type in CARRIERS:
                for name in node.output:
                    yield from self._dequantizes(name)

    def _stored(self, name: str) -> Stored | None:
        maker = self.makers.get(name)
        if maker is None or maker.op_type != "DequantizeLinear" or maker.input[0] not in self.constants:
            return None
        return Stored(maker.input[0], self.constants[maker.input[0]], self.grid(maker))

    def _layer(self, node: onnx.NodeProto) -> Layer | None:
        weight = self._stored(node.input[1])
        weights = weight.floats if weight else self.constants.get(node.input[1])
        if weights is None:
            return None  # A product of two activations.
        has_bias = len(node.input) > 2 and bool(node.input[2])
        bias = self._stored(node.input[2]) if has_bias else None
        biases = bias.floats if bias else self.constants.get(node.input[2]) if has_bias else None
        maker = self.makers.get(node.input[0])
        source = self.grid(maker) if maker is not None and maker.op_type == "DequantizeLinear" else None
        return Layer(
            node, weight, bias, np.asarray(weights, np.float32), biases, source, self.pair_on(self.end_of(node))
        )


def limits_of(node: onnx.NodeProto, constants: dict[str, NDArray[Any]]) -> tuple[float, float]:
    """Return the smallest and largest number that a ReLU or Clip lets pass."""
    if node.op_type == "Relu":
        return 0.0, np.inf
    attributes = {item.name: float(helper.get_attribute_value(item)) for item in node.attribute}
    given = [float(constants[name]) if name in constants else None for name in (*node.input[1:], "", "")[:2]]
    low = given[0] if given[0] is not None else attributes.get("min", -np.inf)
    high = given[1] if given[1] is not None else attributes.get("max", np.inf)
    return low, high
