"""Which layer of the float file is which of the int8 file: by name, else by order and likeness of weights."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import onnx
import onnxruntime
from numpy.typing import NDArray

from kinglet.compression.doctor.graph import Graph, limits_of
from kinglet.compression.doctor.layers import Layer
from kinglet.compression.doctor.qdq_form import to_qdq
from kinglet.compression.fusion import optimized
from kinglet.errors import KingletError

# Weights of two files whose directions agree less than this, channel by channel, are of different layers.
# Rounding to 8 bits leaves 0.99, training for int8 above 0.9; unrelated filters lie around 0.
LEAST_LIKENESS = 0.5
# A stored weight that is rounded, in whatever way, lies within this many steps of what it was made from.
ROUNDED_WITHIN = 1.5
# Fewer matched layers than this share: the files are of different networks.
LEAST_MATCHED = 0.5
# What quantizers add to a node's name.
SUFFIXES = ("_quant", "_quantized")


@dataclass(frozen=True)
class Activation:
    """What the float file does to a node's output: lets numbers between two limits pass. Infinite for no limit."""

    low: float
    high: float


IDENTITY = Activation(-np.inf, np.inf)


@dataclass(frozen=True)
class Match:
    """What is known of an int8 file from its float file.

    layers: the float file's layers by the names of the int8 file's; their weights are in its layout.
    activations: what the float file does behind a layer or an addition, by the int8 file's names.
    altered: layers whose stored weights are no rounding of the float file's; theirs stand in for themselves.
    unmatched: layers without a counterpart. how: "by name" or "by order and weights".
    """

    layers: dict[str, Layer]
    activations: dict[str, Activation]
    altered: tuple[str, ...]
    unmatched: tuple[str, ...]
    how: str


def match(graph: Graph, float_model: onnx.ModelProto) -> Match:
    """Return the match of an int8 file with its float file, whose batch normalizations are folded first.

    Raises KingletError if fewer than half of the layers have a counterpart.
    """
    # ONNX Runtime's basic optimizations fold batch normalization as quantizers do before they start.
    floats = Graph(to_qdq(optimized(float_model, onnxruntime.GraphOptimizationLevel.ORT_ENABLE_BASIC)))
    pairs = _by_name(graph.layers, floats.layers)
    how = "by name" if len(pairs) == len(graph.layers) else "by order and weights"
    if how != "by name":
        pairs = _by_order(graph.layers, floats.layers)
    if len(pairs) < LEAST_MATCHED * max(1, len(graph.layers)):
        raise KingletError(
            f"The float file is of another network: {len(pairs)} of the {len(graph.layers)} layers with weights "
            "have a counterpart in it.",
            "Name the file that the int8 file was made from, or leave --float out.",
        )
    layers, altered = {}, []
    for layer, counterpart in pairs:
        if layer.weight is not None and not _is_rounding(layer, counterpart):
            altered.append(layer.name)
            continue
        layers[layer.name] = counterpart
    return Match(
        layers,
        _activations(graph, floats, pairs),
        tuple(altered),
        tuple(sorted({layer.name for layer in graph.layers} - {layer.name for layer, _ in pairs})),
        how,
    )


def _by_name(layers: list[Layer], others: list[Layer]) -> list[tuple[Layer, Layer]]:
    named = {layer.name: layer for layer in others}
    found = []
    for layer in layers:
        plain = next((layer.name.removesuffix(end) for end in SUFFIXES if layer.name.endswith(end)), layer.name)
        other = named.get(layer.name) or named.get(plain)
        if other is not None and _likeness(layer, other) >= LEAST_LIKENESS:
            found.append((layer, _in_layout_of(layer, other)))
    return found


def _by_order(layers: list[Layer], others: list[Layer]) -> list[tuple[Layer, Layer]]:
    """Return the pairs, in the order of both graphs, whose likenesses have the largest sum."""
    scores = np.zeros((len(layers) + 1, len(others) + 1))
    for row, layer in enumerate(layers, 1):
        for column, other in enumerate(others, 1):
            likeness = _likeness(layer, other)
            both = scores[row - 1, column - 1] + likeness if likeness >= LEAST_LIKENESS else -np.inf
            scores[row, column] = max(scores[row - 1, column], scores[row, column - 1], both)
    pairs = []
    row, column = len(layers), len(others)
    while row and column:
        if scores[row, column] == scores[row - 1, column]:
            row -= 1
        elif scores[row, column] == scores[row, column - 1]:
            column -= 1
        else:
            row, column = row - 1, column - 1
            pairs.append((layers[row], _in_layout_of(layers[row], others[column])))
    return pairs[::-1]


def _likeness(layer: Layer, other: Layer) -> float:
    """Return the mean cosine of the two layers' filters; -1 where their shapes do not fit.

    A factor per channel, which folding a batch normalization leaves, does not matter.
    """
    one, two = layer.by_channel(layer.weights), other.by_channel(other.weights)
    if one.shape != two.shape or np.prod(one.shape) == 0:
        return -1.0
    norms = np.linalg.norm(one, axis=1) * np.linalg.norm(two, axis=1)
    alive = norms > 0
    return float(((one * two).sum(1)[alive] / norms[alive]).mean()) if alive.any() else 1.0


def _in_layout_of(layer: Layer, other: Layer) -> Layer:
    """Return the other layer with its weights laid out as the first one's."""
    if other.weights.shape == layer.weights.shape and other.channel_axis == layer.channel_axis:
        return other
    return Layer(other.node, None, None, other.weights.T, other.biases, None, None)


def _is_rounding(layer: Layer, counterpart: Layer) -> bool:
    """Whether the stored integers are those of the float weights, but for a few that were cut off."""
    assert layer.weight is not None
    shape = [1] * layer.weights.ndim
    if layer.weight.grid.per_channel:
        shape[layer.weight.grid.axis] = -1
    steps = layer.weight.grid.scale.reshape(shape)
    within: NDArray[np.bool_] = np.abs(layer.weights - counterpart.weights) <= ROUNDED_WITHIN * steps
    return bool(within.mean() >= 0.9)


def _activations(graph: Graph, floats: Graph, pairs: list[tuple[Layer, Layer]]) -> dict[str, Activation]:
    found = {layer.name: _behind(floats, other.node) for layer, other in pairs}
    additions = [node for node in graph.nodes if node.op_type == "Add" and not _adds_constant(graph, node)]
    others = [node for node in floats.nodes if node.op_type == "Add" and not _adds_constant(floats, node)]
    # Additions have no weights to be known by: only where both files have as many is their order enough.
    if len(additions) == len(others):
        found |= {node.name: _behind(floats, other) for node, other in zip(additions, others, strict=True)}
    return found


def _adds_constant(graph: Graph, node: onnx.NodeProto) -> bool:
    makers = (graph.makers.get(name) for name in node.input)
    stored = any(maker is not None and set(maker.input) <= graph.constants.keys() for maker in makers)
    return stored or any(name in graph.constants for name in node.input)


def _behind(floats: Graph, node: onnx.NodeProto) -> Activation:
    activation = floats.activation_after(node)
    return IDENTITY if activation is None else Activation(*limits_of(activation, floats.constants))
