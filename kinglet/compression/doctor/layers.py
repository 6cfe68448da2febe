"""What a network in QDQ form is made of: grids that tensors are rounded to, stored constants, pairs and layers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray


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
