"""The float twin of an int8 file: the same graph and names with all rounding taken out.

Whatever is compared afterwards (errors layer by layer, ranges, repairs) is compared between tensors of the same
name in two graphs of the same form. With the float file at hand the twin computes what that file computes, which is
checked. Without it the twin is a stand-in: its weights are the dequantized ones, so that nothing can be blamed on
their rounding, and an activation that was folded into a range is known only by the range's end at 0 or 6.
"""

from __future__ import annotations

import numpy as np
import onnx
from onnx import helper, numpy_helper

from kinglet.compression.doctor.graph import Graph
from kinglet.compression.doctor.layers import Grid, Layer, Pair, Stored
from kinglet.compression.doctor.matching import IDENTITY, Activation, Match
from kinglet.models.onnx_graph import keep_only_needed


def float_twin(graph: Graph, found: Match | None) -> onnx.ModelProto:
    """Return the twin of an int8 graph; `found` is None where there is no float file.

    Every float tensor of the int8 file keeps its name; the integers' names stand for floats.
    """
    twin = onnx.ModelProto()
    twin.CopyFrom(graph.model)
    stored = {name for layer in graph.layers for name in layer.node.input[1:3] if name in graph.makers}
    inserted = {pair.quantize.name: activation_folded(graph, pair, found) for pair in graph.pairs}
    nodes = []
    for node in twin.graph.node:
        if node.op_type == "QuantizeLinear":
            nodes.append(limiting_node(twin, node.input[0], node.output[0], inserted[node.name], node.name))
        elif node.op_type == "DequantizeLinear":
            if node.output[0] not in stored and node.input[0] in graph.constants:
                stored_constant = Stored(node.input[0], graph.constants[node.input[0]], graph.grid(node))
                _add_constant(twin, node.output[0], stored_constant.floats)
            elif node.output[0] not in stored:
                nodes.append(helper.make_node("Identity", [node.input[0]], [node.output[0]], name=node.name))
        else:
            nodes.append(node)
    for layer in graph.layers:
        weights, biases = float_weights(layer, found)
        node = next(item for item in nodes if item.name == layer.name)
        set_weights(twin, node, weights, biases)
    del twin.graph.node[:]
    twin.graph.node.extend(nodes)
    del twin.graph.value_info[:]
    keep_only_needed(twin)
    return twin


def float_weights(layer: Layer, found: Match | None) -> tuple[np.ndarray, np.ndarray | None]:
    """Return a layer's weights and biases as they were before rounding, as far as that is known.

    Quantizers give a layer without a bias one of zeros, and may leave a bias to an addition of its own.
    """
    known = found.layers.get(layer.name) if found else None
    if known is None or layer.biases is None:
        return known.weights if known else layer.weights, layer.biases
    return known.weights, np.zeros_like(layer.biases) if known.biases is None else known.biases


def activation_folded(graph: Graph, pair: Pair, found: Match | None) -> Activation:
    """Return the activation that the float network has where a pair rounds, and that no node of the int8 file does."""
    maker = graph.makers.get(pair.tensor)
    if maker is None or maker.op_type in ("Relu", "Clip"):
        return IDENTITY
    if found and maker.name in found.activations:
        return found.activations[maker.name]
    return _activation_of(pair.grid) if maker.op_type in ("Conv", "Gemm", "MatMul", "Add") else IDENTITY


def _activation_of(grid: Grid) -> Activation:
    """Return the activation that a range looks like: what ends at 0 lets no negative number pass in any case."""
    if grid.low < -1e-6 * grid.step:
        return IDENTITY
    return Activation(0.0, 6.0 if 5.9 <= grid.high <= 6.03 else np.inf)


def limiting_node(
    model: onnx.ModelProto, source: str, target: str, activation: Activation, name: str
) -> onnx.NodeProto:
    """Return a node from one tensor to the other that does what the activation does; constants go into the model."""
    if activation == IDENTITY:
        return helper.make_node("Identity", [source], [target], name=name)
    if activation == Activation(0.0, np.inf):
        return helper.make_node("Relu", [source], [target], name=name)
    limits = []
    for word, value in (("low", activation.low), ("high", activation.high)):
        limits.append(f"{name}.{word}")
        model.graph.initializer.append(
            numpy_helper.from_array(np.asarray(np.clip(value, -3e38, 3e38), np.float32), limits[-1])
        )
    return helper.make_node("Clip", [source, *limits], [target], name=name)


def set_weights(model: onnx.ModelProto, node: onnx.NodeProto, weights: np.ndarray, biases: np.ndarray | None) -> None:
    """Give a node of the model float weights and biases of its own, in place."""
    node.input[1] = _add_constant(model, f"{node.name}.float_weight", weights)
    if biases is not None:
        name = _add_constant(model, f"{node.name}.float_bias", biases)
        del node.input[2:]
        node.input.append(name)


def _add_constant(model: onnx.ModelProto, name: str, values: np.ndarray) -> str:
    model.graph.initializer.append(numpy_helper.from_array(np.asarray(values, np.float32), name))
    return name
