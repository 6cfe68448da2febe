"""The writer of int8 files: Q/DQ pairs around what is to be computed in integers, weights and biases stored so.

Where the pairs stand decides what ONNX Runtime fuses. They follow its own quantizer (onnxruntime.quantization, to
which a test compares node by node), with these differences: a network is written in a fraction of the time, a weight
that several layers share stays in float for those that are spared, and a layer's bias is never shared.

Nodes go by their names, which have to be unique.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from kinglet.compression.calibration import Range
from kinglet.compression.integer_nodes import FLOAT_RESULT, LAYERS, MOVES

# The largest number of a weight by its bits. One more than half with 7: two products with uint8 fit into 16 bits then.
LARGEST = {8: 127, 7: 64}
HIGHEST = 255
# Nodes whose work a clipping grid does: a tensor whose range ends where they clip needs none.
CLIPPING = ("Clip", "Relu")
# In the range of their input; an average lies within it.
OF_INPUTS_RANGE = (*MOVES, "AveragePool")
BIASED = ("Conv", "Gemm")
INT32 = np.iinfo(np.int32)

Number = TypeVar("Number", bound=np.generic)


@dataclass(frozen=True)
class Grid:
    """Numbers that a tensor can hold: (integer - zero_point) * scale.

    scale: float32, zero_point: of the integers' dtype, both () or one of each channel (n_channels,) along `axis`.
    """

    scale: NDArray[np.float32]
    zero_point: NDArray[np.integer[Any]]
    axis: int | None = None

    def of_shape(self, values: NDArray[Number], rank: int) -> NDArray[Number]:
        """Return a value of each channel in a shape that goes with a tensor of this rank."""
        if self.axis is None:
            return values
        return values.reshape([-1 if place == self.axis else 1 for place in range(rank)])

    def nearest(self, values: NDArray[np.float32]) -> NDArray[np.integer[Any]]:
        """Return the integers of the numbers nearest to `values`."""
        dtype: np.dtype[np.integer[Any]] = self.zero_point.dtype
        limits = np.iinfo(dtype)
        steps = (values / self.of_shape(self.scale, values.ndim)).round()
        shifted = steps + self.of_shape(self.zero_point, values.ndim)
        return np.asarray(np.clip(shifted, limits.min, limits.max)).astype(dtype)


def grid_of_range(limits: Range, highest: int = HIGHEST) -> Grid:
    """Return the grid of uint8 from 0 to `highest` over a range, zero among its numbers."""
    low, high = (np.float32(limit) for limit in limits)
    low, high = min(low, np.float32(0)), max(high, np.float32(0))
    scale = (np.float64(high) - np.float64(low)) / highest
    if scale < np.finfo(np.float32).tiny:
        return Grid(np.asarray(1, np.float32), np.asarray(0, np.uint8))
    zero_point = np.round(0 - low / scale)
    return Grid(np.asarray(scale, np.float32), np.asarray(zero_point, np.uint8))


def grid_of_weight(weight: NDArray[np.float32], axis: int | None, weight_bits: int) -> Grid:
    """Return the grid of int8 of a weight, symmetric, a scale for every channel along `axis` or one for all.

    A channel of zeros has the scale 1.
    """
    others = tuple(place for place in range(weight.ndim) if place != axis)
    largest = np.abs(weight).max(others) if weight.size else np.zeros(np.shape(weight)[:1], np.float32)
    scale = 2.0 * largest.astype(np.float64) / (2 * LARGEST[weight_bits])
    stored: NDArray[np.float32] = np.where(scale < np.finfo(np.float32).tiny, 1.0, scale).astype(np.float32)
    return Grid(stored, np.zeros(stored.shape, np.int8), axis)


def with_room_for_bias(grid: Grid, input_scale: NDArray[np.float32], bias: NDArray[np.float32]) -> Grid:
    """Return the grid of a weight with scales that are large enough for the bias to fit into 32 bits.

    The bias is stored in steps of `input_scale` times the weight's scale. Without this, tiny weights beside a large
    bias clip it (onnxruntime#22020).
    """
    largest = np.abs(bias).astype(np.float64)
    if grid.axis is None:
        largest = largest.max(initial=0.0)
    step = np.float64(input_scale) * grid.scale.astype(np.float64)
    needed = 1.0001 * 2 * largest / (np.float64(INT32.max) - np.float64(INT32.min + 1))
    is_small = (step < needed) & (step > 0)
    wider = grid.scale.astype(np.float64) * np.where(is_small, needed / np.where(step > 0, step, 1), 1)
    scale = np.where(is_small, wider, grid.scale).astype(np.float32)
    return Grid(scale, grid.zero_point, grid.axis)


@dataclass
class Marks:
    """Which tensors get a Q/DQ pair: those with a range of their own, and {tensor: the one whose range it has}."""

    own: dict[str, None] = field(default_factory=dict)
    shared: dict[str, str] = field(default_factory=dict)

    def __contains__(self, name: str) -> bool:
        return name in self.own or name in self.shared

    def root(self, name: str) -> str:
        """Return the tensor whose range a tensor has."""
        while name in self.shared:
            name = self.shared[name]
        return name


def write_qdq(
    model: onnx.ModelProto, ranges: Mapping[str, Range], weight_bits: int, in_float: Collection[str]
) -> onnx.ModelProto:
    """Return `model` with Q/DQ pairs: weights int8 per channel, activations uint8, biases int32.

    model: of float32 with inferred shapes, opset 13 or newer; its nodes are of operators that have an integer kernel
    where `in_float` does not name them. ranges: of every float32 tensor that is not stored. weight_bits: 8 or 7.
    Raises ValueError where a range is missing.
    """
    written = onnx.ModelProto()
    written.CopyFrom(model)
    Writer(written, ranges, weight_bits, frozenset(in_float)).write()
    nodes = list(written.graph.node)
    keep_in_float(written, {node.name for node in nodes if node.op_type in BIASED and node.name in in_float})
    # What was added last reads nothing but what is stored: first, every node stands behind those that it reads.
    added = list(written.graph.node)[len(nodes) :]
    del written.graph.node[:]
    written.graph.node.extend([*added, *nodes])
    return written


def keep_in_float(quantized: onnx.ModelProto, float_layers: Collection[str]) -> None:
    """Store the biases of spared layers so that ONNX Runtime computes these layers in float.

    Where float weights and bias lie between Q and DQ, its WeightBiasQuantization brings them to int8 on
    loading after all, with one scale per tensor. It leaves a layer alone whose bias is dequantized. With
    steps of 2^-24 of the largest value the bias is as exact as in float32.
    """
    dequantized = {node.output[0] for node in quantized.graph.node if node.op_type == "DequantizeLinear"}
    biases = {item.name: item for item in quantized.graph.initializer}
    for node in list(quantized.graph.node):
        if node.name in float_layers and node.input[0] in dequantized and set(node.input[2:]) & biases.keys():
            bias = numpy_helper.to_array(biases[node.input[2]])
            scale = np.float32(max(float(np.abs(bias).max()), 1e-3) / 2**24)
            stored = np.rint(bias.astype(np.float64) / np.float64(scale)).astype(np.int32)
            parts = {
                f"{node.name}.bias_int32": stored,
                f"{node.name}.bias_scale": scale,
                f"{node.name}.bias_zero_point": np.int32(0),
            }
            quantized.graph.initializer.extend(
                numpy_helper.from_array(np.asarray(value), name) for name, value in parts.items()
            )
            output = f"{node.name}.bias_dequantized"
            quantized.graph.node.append(
                helper.make_node("DequantizeLinear", list(parts), [output], name=f"{output}.node")
            )
            node.input[2] = output
    used = {name for node in quantized.graph.node for name in node.input}
    unused = [item for item in quantized.graph.initializer if item.name not in used]
    for item in unused:
        quantized.graph.initializer.remove(item)


class Writer:
    """Writes one file, in place."""

    def __init__(
        self, model: onnx.ModelProto, ranges: Mapping[str, Range], weight_bits: int, in_float: frozenset[str]
    ) -> None:
        self.graph = model.graph
        self.ranges, self.weight_bits, self.in_float = ranges, weight_bits, in_float
        self.stored = {item.name: item for item in self.graph.initializer}
        self.outputs = {output.name for output in self.graph.output}
        values = (*self.graph.value_info, *self.graph.input, *self.graph.output)
        self.floats = {value.name for value in values if value.type.tensor_type.elem_type == TensorProto.FLOAT}
        self.floats |= {name for name, item in self.stored.items() if item.data_type == TensorProto.FLOAT}
        self.marks = Marks()
        self.nodes: list[onnx.NodeProto] = []
        self.added: dict[str, onnx.TensorProto] = {}
        self.grids: dict[str, Grid] = {}

    def write(self) -> None:
        """Write the file."""
        kept = self.mark()
        for value in self.graph.input:
            self.add_pair(value.name)
        for node in kept:
            self.add_node(node)
        del self.graph.node[:]
        self.graph.node.extend(self.nodes)
        used = {name for node in self.nodes for name in node.input} | self.outputs
        initializers = [item for item in (*self.stored.values(), *self.added.values()) if item.name in used]
        del self.graph.initializer[:]
        self.graph.initializer.extend(initializers)

    def mark(self) -> list[onnx.NodeProto]:
        """Mark the tensors that get a pair; return the nodes that stay, without those that clip what a grid clips."""
        readers: dict[str, int] = {}
        makers: dict[str, tuple[onnx.NodeProto, int]] = {}
        kept = []
        for node in self.graph.node:
            for name in node.input:
                readers[name] = readers.get(name, 0) + 1
            makers.update({name: (node, place) for place, name in enumerate(node.output)})
        for node in self.graph.node:
            kept.append(node)
            if node.name in self.in_float:
                continue
            if node.op_type in LAYERS:
                self.mark_own(node.input[0])
                if node.op_type not in FLOAT_RESULT:
                    self.mark_own(node.output[0])
            elif node.op_type in CLIPPING:
                if node.input[0] not in self.marks:
                    continue
                source, result = node.input[0], node.output[0]
                if readers[source] == 1 and source in makers and source not in self.outputs and result in self.ranges:
                    maker, place = makers[source]
                    maker.output[place] = result
                    makers[result] = (maker, place)
                    self.marks.own.pop(source, None)
                    self.marks.shared.pop(source, None)
                    kept.pop()
                self.mark_own(result)
            elif node.op_type in OF_INPUTS_RANGE:
                if node.input[0] in self.marks and node.output[0] in self.floats:
                    self.marks.own.pop(node.output[0], None)
                    self.marks.shared[node.output[0]] = node.input[0]
            else:
                for name in (*node.input, *node.output):
                    self.mark_own(name)
        return kept

    def mark_own(self, name: str) -> None:
        """Mark a tensor of float32 to get a pair with a range of its own, unless it has one already."""
        if name in self.floats and name not in self.marks:
            self.marks.own[name] = None

    def add_node(self, node: onnx.NodeProto) -> None:
        """Add a node that reads what is quantized, and the pairs of what it makes."""
        if node.op_type in LAYERS and node.name not in self.in_float:
            self.store_weight(node)
        for place, name in enumerate(node.input):
            if name in self.marks:
                if name in self.stored:
                    if node.name in self.in_float:
                        continue
                    self.store_constant(name)
                node.input[place] = f"{name}_DequantizeLinear_Output"
        self.nodes.append(node)
        for name in list(node.output):
            self.add_pair(name)

    def add_pair(self, name: str) -> None:
        """Add Q and DQ of a tensor that is marked."""
        if name not in self.marks:
            return
        source, result = name, f"{name}_DequantizeLinear_Output"
        if name in self.outputs:
            # The file's answer keeps its name, and whatever reads it inside reads what left the grid.
            source, result = f"{name}_QuantizeLinear_Input", name
            maker = self.nodes[-1]
            maker.output[list(maker.output).index(name)] = source
        root = self.marks.root(name)
        self.store_grid(root, self.grid_of(root))
        grid, integers = [f"{root}_scale", f"{root}_zero_point"], f"{name}_QuantizeLinear_Output"
        self.nodes += [
            helper.make_node("QuantizeLinear", [source, *grid], [integers], f"{name}_QuantizeLinear"),
            helper.make_node("DequantizeLinear", [integers, *grid], [result], f"{name}_DequantizeLinear"),
        ]

    def grid_of(self, name: str) -> Grid:
        """Return the grid of a tensor that the network makes; raises ValueError where its range is not known."""
        if name not in self.grids:
            if name not in self.ranges:
                raise ValueError(f"the range of {name} is not known")
            self.grids[name] = grid_of_range(self.ranges[name])
        return self.grids[name]

    def store_weight(self, node: onnx.NodeProto) -> None:
        """Store the weight of a layer in int8 and its bias in int32, and let it read those."""
        name = node.input[1]
        weight = numpy_helper.to_array(self.stored[name])
        grid = grid_of_weight(weight, channel_axis(node, weight.ndim), self.weight_bits)
        has_bias = node.op_type in BIASED and len(node.input) == 3 and node.input[2] in self.stored
        if has_bias:
            bias = np.broadcast_to(bias_of(node, self.stored[node.input[2]]).reshape(-1), grid.scale.shape)
            step = self.grid_of(self.marks.root(node.input[0])).scale
            grid = with_room_for_bias(grid, step, bias)
        # Layers that share a weight may need other scales for their biases.
        stored = f"{name}_quantized"
        if stored in self.added and not np.array_equal(self.grids[name].scale, grid.scale):
            name, stored = f"{node.name}.weight", f"{node.name}.weight_quantized"
        if stored not in self.added:
            self.grids[name] = grid
            self.store(stored, grid.nearest(weight))
            self.dequantize(name, stored, grid, f"{name}_DequantizeLinear_Output")
        node.input[1] = f"{name}_DequantizeLinear_Output"
        if has_bias:
            self.store_bias(node, bias, np.asarray(step * grid.scale))

    def store_bias(self, node: onnx.NodeProto, bias: NDArray[np.float32], scale: NDArray[np.float32]) -> None:
        """Store the bias of a layer in int32, in steps of `scale`, and let the layer read it."""
        name = node.input[2]
        stored = f"{name}_quantized"
        if stored in self.added:
            name, stored = f"{node.name}.bias", f"{node.name}.bias_quantized"
        steps = np.round(bias.astype(np.float64) / scale.astype(np.float64))
        self.store(stored, np.clip(steps, INT32.min, INT32.max).astype(np.int32))
        scale = scale.reshape(-1)
        grid = Grid(scale, np.zeros(scale.shape, np.int32), 0 if scale.size > 1 else None)
        self.dequantize(name, stored, grid, f"{name}_DequantizeLinear_Output", of=stored)
        node.input[2] = f"{name}_DequantizeLinear_Output"

    def store_constant(self, name: str) -> None:
        """Store a constant that is no weight in uint8."""
        if f"{name}_quantized" not in self.added:
            values = numpy_helper.to_array(self.stored[name])
            # As the quantizer of ONNX Runtime does: a constant beside 7-bit weights has 7 bits.
            highest = HIGHEST if self.weight_bits == 8 else HIGHEST // 2
            grid = grid_of_range((float(values.min(initial=0)), float(values.max(initial=0))), highest)
            self.store(f"{name}_quantized", grid.nearest(values))
            self.dequantize(name, f"{name}_quantized", grid, f"{name}_DequantizeLinear_Output")

    def dequantize(self, name: str, integers: str, grid: Grid, result: str, of: str = "") -> None:
        """Add the DQ of what is stored in integers. of: what its grid is named after, `name` if nothing else."""
        self.store_grid(of or name, grid)
        names = [integers, f"{of or name}_scale", f"{of or name}_zero_point"]
        axis: dict[str, Any] = {} if grid.axis is None else {"axis": grid.axis}
        self.nodes.append(helper.make_node("DequantizeLinear", names, [result], f"{name}_DequantizeLinear", **axis))

    def store_grid(self, name: str, grid: Grid) -> None:
        """Store scale and zero point of a tensor."""
        self.store(f"{name}_scale", grid.scale)
        self.store(f"{name}_zero_point", grid.zero_point)

    def store(self, name: str, values: NDArray[np.generic]) -> None:
        """Store a tensor under a name."""
        self.added[name] = numpy_helper.from_array(np.ascontiguousarray(values).reshape(values.shape), name)


def channel_axis(node: onnx.NodeProto, rank: int) -> int | None:
    """Return the axis of a layer's weight along which its results lie; None where a kernel knows one scale only."""
    if node.op_type == "Conv":
        return 0
    if node.op_type == "Gemm":
        return 0 if any(item.name == "transB" and item.i for item in node.attribute) else 1
    return 1 if rank == 2 else None


def bias_of(node: onnx.NodeProto, stored: onnx.TensorProto) -> NDArray[np.float32]:
    """Return the bias that a layer adds, with a Gemm's factor for it, which the node loses."""
    bias = numpy_helper.to_array(stored)
    for item in node.attribute:
        if node.op_type == "Gemm" and item.name == "beta":
            bias, item.f = np.asarray(np.float32(item.f) * bias), 1.0
    return bias
