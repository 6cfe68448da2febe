"""Static int8: QDQ nodes, weights per channel, activations uint8, sensitive layers left in float."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import numpy as np
import onnx
from numpy.typing import NDArray
from onnxruntime.quantization import CalibrationMethod, QuantType
from onnxruntime.quantization.calibrate import TensorData, TensorsData
from onnxruntime.quantization.qdq_quantizer import QDQQuantizer

from kinglet.compression.calibration import METHODS, Histogram
from kinglet.reporting import Report, silent

OPERATORS = ("Conv", "Gemm", "Add", "GlobalAveragePool", "Clip", "Relu", "Flatten")
WEIGHTED = ("Conv", "Gemm")
Predict = Callable[[onnx.ModelProto], NDArray[np.float32]]


@dataclass(frozen=True)
class Variant:
    """One way to quantize a model, and how well it agrees with the float model.

    agreement: share of images with the same predicted class, [0, 1]. divergence: mean Kullback-Leibler
    divergence of the class probabilities in nats.
    """

    method: str
    weight_bits: int
    float_layers: tuple[str, ...]
    agreement: float
    divergence: float


def quantize_static(
    model: onnx.ModelProto,
    histograms: dict[str, Histogram],
    method: str,
    weight_bits: int = 8,
    float_layers: Iterable[str] = (),
) -> onnx.ModelProto:
    """Return `model` with QDQ nodes: int8 weights per channel, uint8 activations.

    histograms: of every tensor, from `stream_histograms`. method: a key of `METHODS`. weight_bits: 8, or
    7 for CPUs whose 16-bit sums of products of 8-bit weights saturate (x86 without VNNI). float_layers:
    names of nodes that stay in float.
    """
    ranges = {}
    for name, histogram in histograms.items():
        low, high = METHODS[method](histogram)
        ranges[name] = TensorData(lowest=np.float32(low), highest=np.float32(high))
    prepared = _prepare(model)
    logging.getLogger().setLevel(max(logging.WARNING, logging.getLogger().level))
    quantizer = QDQQuantizer(
        prepared,
        per_channel=True,
        reduce_range=weight_bits == 7,
        weight_qType=QuantType.QInt8,
        activation_qType=QuantType.QUInt8,
        tensors_range=TensorsData(CalibrationMethod.MinMax, ranges),
        nodes_to_quantize=[],
        nodes_to_exclude=list(float_layers),
        op_types_to_quantize=list(OPERATORS),
        extra_options={"QDQKeepRemovableActivations": False, "ForceQuantizeNoInputCheck": False},
    )
    quantizer.quantize_model()
    quantizer.model.topological_sort()  # the format asks for it
    quantized: onnx.ModelProto = quantizer.model.model
    quantized.producer_name, quantized.producer_version = model.producer_name, model.producer_version
    return quantized


def _prepare(model: onnx.ModelProto) -> onnx.ModelProto:
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    for index, node in enumerate(copy.graph.node):
        node.name = node.name or f"{node.op_type}_{index}"
    return onnx.shape_inference.infer_shapes(copy)


def weighted_layers(model: onnx.ModelProto) -> list[str]:
    """Return the names of the nodes with weights, in graph order."""
    return [node.name for node in _prepare(model).graph.node if node.op_type in WEIGHTED]


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
    histograms: dict[str, Histogram],
    methods: Iterable[str],
    weight_bits: Iterable[int],
    predict: Predict,
) -> tuple[list[Variant], Variant, onnx.ModelProto]:
    """Quantize in every way asked for; return all variants, the best one, and its model.

    predict: returns a model's logits for the images set aside for choices. The best variant has the
    smallest divergence from the float model; of equals the first.
    """
    reference = predict(model)
    tried: list[tuple[Variant, onnx.ModelProto]] = []
    for bits in weight_bits:
        for method in methods:
            quantized = quantize_static(model, histograms, method, bits)
            tried.append((Variant(method, bits, (), *compare(reference, predict(quantized))), quantized))
    best, best_model = min(tried, key=lambda pair: pair[0].divergence)
    return [variant for variant, _ in tried], best, best_model


def spare_layers(
    model: onnx.ModelProto,
    histograms: dict[str, Histogram],
    start: Variant,
    max_layers: int,
    is_good: Callable[[onnx.ModelProto], bool],
    predict: Predict,
    report: Report = silent,
) -> tuple[Variant, onnx.ModelProto]:
    """Leave layers in float, the most damaging first, until `is_good` or `max_layers` are spared.

    A layer's damage is what leaving it alone in float takes off the divergence. Returns the last variant.
    """
    reference = predict(model)
    layers = weighted_layers(model)
    damage = {}
    for number, layer in enumerate(layers):
        spared = quantize_static(model, histograms, start.method, start.weight_bits, [layer])
        damage[layer] = start.divergence - compare(reference, predict(spared))[1]
        report(number + 1, len(layers), "sensitivity of layers")
    order = sorted(layers, key=lambda layer: -damage[layer])
    variant, quantized = start, quantize_static(model, histograms, start.method, start.weight_bits)
    for count in range(1, min(max_layers, len(order)) + 1):
        chosen = tuple(order[:count])
        quantized = quantize_static(model, histograms, start.method, start.weight_bits, chosen)
        variant = Variant(start.method, start.weight_bits, chosen, *compare(reference, predict(quantized)))
        if is_good(quantized):
            break
    return variant, quantized
