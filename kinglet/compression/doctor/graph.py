"""Facts about a network in QDQ form: its layers, what they store, and the grids its tensors are rounded to."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper, numpy_helper

WEIGHTED = ("Conv", "ConvTranspose", "Gemm", "MatMul")
ACTIVATIONS = ("Relu", "Clip")
# Operators that hand integers on without computing with them.
CARRIERS = ("MaxPool", "Reshape", "Flatten", "Transpose", "Squeeze", "Unsqueeze", "Identity", "Slice", "Split")


@dataclass(frozen=True)
class Grid:
    """The numbers that a quantized tensor can hold: (integer - zero_point) * scale.

    scale: float32, one or one per channel along `axis`. zero_point: integers of the type that is stored.
    """

    scale: NDArray[np.float32]
    zero_point: NDArray[Any]
    axis: int = 1

    @property
    def per_channel(self) -> bool:
        """Whether every channel has a scale of its own."""
        return bool(self.scale.size > 1)

    @property
    def step(self) -> float:
        """The largest distance between two neighbouring numbers."""
        return float(self.scale.max())

    @property
    def low(self) -> float:
        """The smallest number that can be held."""
        smallest = np.iinfo(self.zero_point.dtype).min
        return float(((smallest - self.zero_point.astype(np.float64)) * self.scale).min())

    @property
    def high(self) -> float:
        """The largest number that can be held."""
        largest = np.iinfo(self.zero_point.dtype).max
        return float(((largest - self.zero_point.astype(np.float64)) * self.scale).max())

    @property
    def levels(self) -> int:
        """How many numbers can be held."""
        information = np.iinfo(self.zero_point.dtype)
        return int(information.max) - int(information.min) + 1


@dataclass(frozen=True)
class Stored:
    """A constant in integers, by the name of its initializer."""

    name: str
    values: NDArray[Any]
    grid: Grid

    @property
    def floats(self) -> NDArray[np.float32]:
        """The numbers that the integers stand for."""
        shape = [1] * self.values.ndim
        if self.grid.per_channel:
            shape[self.grid.axis] = -1
        shifted = self.values.astype(np.int64) - self.grid.zero_point.astype(np.int64).reshape(shape)
        return (shifted * self.grid.scale.reshape(shape).astype(np.float64)).astype(np.float32)


@dataclass(frozen=True)
class Pair:
    """A QuantizeLinear and the DequantizeLinear nodes that read it, directly or through operators that carry bytes.

    tensor: the float tensor that is rounded.
    """

    quantize: onnx.NodeProto
    dequantizes: tuple[onnx.NodeProto, ...]
    grid: Grid

    @property
    def tensor(self) -> str:
        """The name of the float tensor before rounding."""
        return str(self.quantize.input[0])


@dataclass(frozen=True)
class Layer:
    """A node with weights.

    weight, bias: what is stored in integers, None where it is not. weights, biases: as floats; biases is None
    for a layer without one. source: the grid its input was rounded to, None where it was not.
    pair: the pair that rounds its output, behind its activation; None where nothing does.
    """

    node: onnx.NodeProto
    weight: Stored | None
    bias: Stored | None
    weights: NDArray[np.float32]
    biases: NDArray[np.float32] | None
    source: Grid | None
    pair: Pair | None

    @property
    def name(self) -> str:
        """The node's name."""
        return str(self.node.name)

    @property
    def is_quantized(self) -> bool:
        """Whether its weights are integers and its input is rounded."""
        return self.weight is not None and self.source is not None

    @property
    def channel_axis(self) -> int:
        """The axis of the output channels in its weights."""
        transposed = any(item.name == "transB" and item.i for item in self.node.attribute)
        return 0 if self.node.op_type == "Conv" or transposed else 1

    @property
    def is_depthwise(self) -> bool:
        """Whether every channel has a filter of its own."""
        group = next((int(item.i) for item in self.node.attribute if item.name == "group"), 1)
        return self.node.op_type == "Conv" and group > 1 and group == self.weights.shape[0]

    def by_channel(self, weights: NDArray[Any]) -> NDArray[Any]:
        """Return weights as a matrix (output channels, weights of one)."""
        return np.moveaxis(weights, self.channel_axis, 0).reshape(weights.shape[self.channel_axis], -1)


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
