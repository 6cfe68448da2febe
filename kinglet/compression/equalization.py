"""Cross-layer equalization: channels of very different ranges share one range, and the function stays the same.

A channel between two convolutions may be divided by any positive number if the second convolution
multiplies by it: relu(x / s) * s = relu(x). Only pairs with nothing or a ReLU between them are touched.
ReLU6, a Clip, is not of that kind: it would need a bound of its own for every channel, which no
integer kernel of ONNX Runtime takes, so inverted residual networks keep most of their layers as they are.

Source: Nagel et al. 2019, "Data-Free Quantization Through Weight Equalization and Bias Correction", section 4.1.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import numpy_helper

ROUNDS = 20
# No channel is changed by more than this factor in a round: channels that are nearly dead stay finite.
LARGEST_FACTOR = 1e3


@dataclass(frozen=True)
class Pair:
    """Two convolutions, by their nodes, of which the second alone reads the first's output, through a ReLU or not."""

    first: onnx.NodeProto
    second: onnx.NodeProto


def equalize(model: onnx.ModelProto, rounds: int = ROUNDS) -> tuple[onnx.ModelProto, int]:
    """Return the float `model` with equalized weights, and the number of pairs of convolutions found.

    The function of the model stays the same up to rounding in float32. Every round visits all pairs in
    the order of the graph, because a convolution may be in two of them. The result of no pairs equals `model`.
    """
    equalized = onnx.ModelProto()
    equalized.CopyFrom(model)
    pairs = find_pairs(equalized)
    tensors = {item.name: item for item in equalized.graph.initializer}
    values = {
        name: numpy_helper.to_array(tensors[name]).copy()
        for pair in pairs
        for name in (*pair.first.input[1:], pair.second.input[1])
    }
    for _ in range(rounds):
        for pair in pairs:
            _equalize_pair(pair, values)
    for name, value in values.items():
        tensors[name].CopyFrom(numpy_helper.from_array(value, name))
    return equalized, len(pairs)


def find_pairs(model: onnx.ModelProto) -> list[Pair]:
    """Return the pairs of convolutions that may be equalized, in the order of the graph."""
    graph = model.graph
    readers: dict[str, list[onnx.NodeProto]] = {}
    for node in graph.node:
        for name in node.input:
            readers.setdefault(name, []).append(node)
    outputs = {output.name for output in graph.output}
    # Weights that two layers share cannot be changed for one of them.
    own = {item.name for item in graph.initializer if len(readers.get(item.name, [])) == 1}

    def only_reader(node: onnx.NodeProto) -> onnx.NodeProto | None:
        name = node.output[0]
        found = readers.get(name, [])
        return found[0] if len(found) == 1 and name not in outputs else None

    pairs = []
    for node in graph.node:
        if node.op_type != "Conv" or not own.issuperset(node.input[1:]):
            continue
        second = only_reader(node)
        if second is not None and second.op_type == "Relu":
            second = only_reader(second)
        if second is not None and second.op_type == "Conv" and second.input[1] in own and _is_plain(model, second):
            pairs.append(Pair(node, second))
    return pairs


def _is_plain(model: onnx.ModelProto, node: onnx.NodeProto) -> bool:
    """Whether every input channel of a convolution is one slice of its weights: dense or depthwise."""
    groups = _groups(node)
    weight = next(item for item in model.graph.initializer if item.name == node.input[1])
    return groups == 1 or (groups == weight.dims[0] and weight.dims[1] == 1)


def _groups(node: onnx.NodeProto) -> int:
    return next((int(item.i) for item in node.attribute if item.name == "group"), 1)


def _equalize_pair(pair: Pair, values: dict[str, NDArray[np.float32]]) -> None:
    first, second = values[pair.first.input[1]], values[pair.second.input[1]]
    axis = 1 if _groups(pair.second) == 1 else 0
    range_first = _largest(first, 0)
    range_second = _largest(second, axis)
    alive = (range_first > 0) & (range_second > 0)
    wanted = np.ones_like(range_first)
    # Both ranges become their geometric mean, equation 11.
    wanted[alive] = np.sqrt(range_first[alive] / range_second[alive])
    factors = wanted.clip(1 / LARGEST_FACTOR, LARGEST_FACTOR).astype(np.float32)
    values[pair.first.input[1]] = first / _along(factors, 0, first.ndim)
    for bias in pair.first.input[2:]:
        values[bias] = values[bias] / factors
    values[pair.second.input[1]] = second * _along(factors, axis, second.ndim)


def _largest(weight: NDArray[np.float32], axis: int) -> NDArray[np.float64]:
    largest = np.abs(np.moveaxis(weight, axis, 0).reshape(weight.shape[axis], -1)).max(1)
    return np.asarray(largest, dtype=np.float64)


def _along(factors: NDArray[np.float32], axis: int, n_axes: int) -> NDArray[np.float32]:
    return factors.reshape([-1 if place == axis else 1 for place in range(n_axes)])
