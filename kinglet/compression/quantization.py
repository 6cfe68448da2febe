"""Static int8: QDQ nodes, weights per channel, activations uint8, sensitive layers left in float."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import numpy_helper

from kinglet.compression.calibration import Statistics, range_of
from kinglet.compression.hard_gates import gates_of, write_hard_gates_as_convolutions
from kinglet.compression.integer_nodes import OPERATORS, nodes_left_in_float, quantized_layers
from kinglet.compression.qdq import write_qdq
from kinglet.reporting import Report, silent

# Layers whose result has a bias, to be corrected, and channels beside the batch axis.
WEIGHTED = ("Conv", "Gemm")
# Agreement and divergence of an int8 model's answers from those of the float model, as in `Variant`.
Score = Callable[[onnx.ModelProto], tuple[float, float]]


@dataclass(frozen=True)
class Variant:
    """One way to quantize a model, and how well it agrees with the float model.

    agreement: share of answers that are the same, [0, 1]. divergence: how far the answers are apart, from 0 up. What
    exactly, the judge of the problem says: of a classifier, the share of images with the same class, and the mean
    Kullback-Leibler divergence of the class probabilities in nats.
    """

    method: str
    weight_bits: int
    float_layers: tuple[str, ...]
    agreement: float
    divergence: float


def quantize_static(
    model: onnx.ModelProto,
    histograms: Mapping[str, Statistics],
    method: str,
    weight_bits: int = 8,
    float_layers: Iterable[str] = (),
) -> onnx.ModelProto:
    """Return `model` with QDQ nodes: int8 weights per channel, uint8 activations.

    histograms: of every tensor, from `stream_histograms`, or its range where that is fixed. method: a key of
    `METHODS`. weight_bits: 8, or 7 for CPUs whose 16-bit sums of products of 8-bit weights saturate (x86 without
    VNNI). float_layers: names of nodes that stay in float, beside those that ONNX Runtime would compute in float
    anyway.
    """
    prepared = _prepare(model)
    ranges = {name: range_of(statistics, method) for name, statistics in histograms.items()}
    ranges.update(dict.fromkeys(gates_of(prepared), (0.0, 1.0)))
    left = {node.name for node in nodes_left_in_float(prepared)}
    others = {node.name for node in prepared.graph.node if node.op_type not in OPERATORS}
    return write_qdq(prepared, ranges, weight_bits, {*float_layers, *left, *others})


def _prepare(model: onnx.ModelProto) -> onnx.ModelProto:
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    for index, node in enumerate(copy.graph.node):
        node.name = node_name(node, index)
    _give_biases(copy)
    write_hard_gates_as_convolutions(copy)
    return onnx.shape_inference.infer_shapes(copy)


def node_name(node: onnx.NodeProto, index: int) -> str:
    """Return the name that a node goes by in a quantized model: its own, else its type and place in the graph."""
    return node.name or f"{node.op_type}_{index}"


def _give_biases(model: onnx.ModelProto) -> None:
    """Give every layer that has no bias one of zeros, for a correction to work on."""
    weights = {item.name: item for item in model.graph.initializer}
    for node in model.graph.node:
        if node.op_type in WEIGHTED and len(node.input) == 2 and node.input[1] in weights:
            weight = numpy_helper.to_array(weights[node.input[1]])
            transposed = any(item.name == "transB" and item.i for item in node.attribute)
            n_channels = weight.shape[0] if node.op_type == "Conv" or transposed else weight.shape[1]
            zeros = numpy_helper.from_array(np.zeros(n_channels, np.float32), f"{node.name}.zero_bias")
            model.graph.initializer.append(zeros)
            node.input.append(zeros.name)


def weighted_layers(model: onnx.ModelProto) -> list[str]:
    """Return the names of the nodes with weights, in graph order."""
    return [node.name for node in quantized_layers(_prepare(model))]


def compare(reference: NDArray[np.float32], logits: NDArray[np.float32]) -> tuple[float, float]:
    """Return agreement and divergence of logits (n, n_classes) from reference logits."""
    agreement = float((reference.argmax(1) == logits.argmax(1)).mean())
    log_p, log_q = _log_softmax(reference), _log_softmax(logits)
    return agreement, float((np.exp(log_p) * (log_p - log_q)).sum(1).mean())


def _log_softmax(logits: NDArray[np.float32]) -> NDArray[np.float64]:
    shifted = logits.astype(np.float64) - logits.max(1, keepdims=True)
    result: NDArray[np.float64] = shifted - np.log(np.exp(shifted).sum(1, keepdims=True))
    return result


def try_methods(
    model: onnx.ModelProto,
    histograms: Mapping[str, Statistics],
    methods: Iterable[str],
    weight_bits: Iterable[int],
    score: Score,
) -> tuple[list[Variant], Variant, onnx.ModelProto]:
    """Quantize in every way asked for; return all variants, the best one, and its model.

    score: of a model's answers to the images set aside for choices. The best variant has the smallest
    divergence from the float model; of equals the first.
    """
    tried: list[tuple[Variant, onnx.ModelProto]] = []
    for bits in weight_bits:
        for method in methods:
            quantized = quantize_static(model, histograms, method, bits)
            tried.append((Variant(method, bits, (), *score(quantized)), quantized))
    best, best_model = min(tried, key=lambda pair: pair[0].divergence)
    return [variant for variant, _ in tried], best, best_model


def prices(model: onnx.ModelProto) -> dict[str, float]:
    """Return what every layer costs if it stays in float, relative to the whole model: {node's name: price}.

    The price is the layer's share of all multiplications, for its work, and a layer's share of all layers,
    for its two conversions: below half a millisecond a runtime spends its time per node. It is counted, not
    measured, on purpose: wall times differ from run to run and from machine to machine, and would make
    another file of the same model. What the file costs in microseconds is measured afterwards, as a whole.
    """
    prepared = _prepare(model)
    sizes = {item.name: tuple(item.dims) for item in prepared.graph.initializer}
    shapes = {
        value.name: [dimension.dim_value for dimension in value.type.tensor_type.shape.dim]
        for value in (*prepared.graph.value_info, *prepared.graph.output)
    }
    work = {
        node.name: np.prod(sizes[node.input[1]]) * _n_positions(node, shapes.get(node.output[0], []))
        for node in quantized_layers(prepared)
    }
    total = sum(work.values())
    return {name: float(own / total + 1 / len(work)) for name, own in work.items()}


def _n_positions(node: onnx.NodeProto, shape: list[int]) -> int:
    """Return how many times a layer's weights are used for an image, 1 where it cannot be told."""
    return max(1, int(np.prod(shape[2:] if node.op_type != "MatMul" else shape[1:-1])))


def spare_layers(
    model: onnx.ModelProto,
    histograms: Mapping[str, Statistics],
    start: Variant,
    max_layers: int,
    is_good: Callable[[onnx.ModelProto], bool],
    score: Score,
    finish: Callable[[onnx.ModelProto], onnx.ModelProto] = lambda quantized: quantized,
    report: Report = silent,
) -> tuple[Variant, onnx.ModelProto]:
    """Leave layers in float, those first that mend most for their price, until `is_good` or `max_layers` are spared.

    What a layer mends is what leaving it alone in float takes off the divergence; its price is that of
    `prices`. A layer that mends nothing is never spared. finish: what is done to a model before it is
    judged, as bias correction. Returns the last variant.
    """
    costs, layers = prices(model), weighted_layers(model)
    whole = quantize_static(model, histograms, start.method, start.weight_bits)
    divergence = score(whole)[1]
    worth = {}
    for number, layer in enumerate(layers):
        spared = quantize_static(model, histograms, start.method, start.weight_bits, [layer])
        worth[layer] = (divergence - score(spared)[1]) / costs[layer]
        report(number + 1, len(layers), "sensitivity of layers")
    order = sorted((layer for layer in layers if worth[layer] > 0), key=lambda layer: -worth[layer])
    variant, quantized = start, finish(whole)
    for count in range(1, min(max_layers, len(order)) + 1):
        chosen = tuple(order[:count])
        quantized = finish(quantize_static(model, histograms, start.method, start.weight_bits, chosen))
        variant = Variant(start.method, start.weight_bits, chosen, *score(quantized))
        if is_good(quantized):
            break
    return variant, quantized
