"""Where time is lost: layers in float, layers that are not fused, and conversions in the middle of the network."""

from __future__ import annotations

from functools import partial

import onnx

from kinglet.compression.calibration import minmax_range, stream_histograms
from kinglet.compression.doctor.checks.biases import SAME_STEP, step_ratio
from kinglet.compression.doctor.findings import NOTE, WARNING, Finding
from kinglet.compression.doctor.layers import Layer
from kinglet.compression.doctor.repairs import with_biases, with_pair_behind, with_weights_per_channel
from kinglet.compression.doctor.runtime_graph import RuntimeGraph
from kinglet.compression.doctor.subject import Subject

# Why a layer with stored weights is computed in float.
FLOAT_BIAS = "its bias is stored in float"
BIAS_STEPS = "its bias has other steps than its sums"
FLOAT_INPUT = "its input is not quantized"
NO_PAIR = "its output is not quantized"
MIXED_TYPES = "its input and its output are of different integer types"
UNKNOWN = "ONNX Runtime has no integer kernel for this combination"


def check_float_layers(subject: Subject, runs: RuntimeGraph) -> list[Finding]:
    """Return a finding if the file keeps layers in float: which, and how much of the time they take."""
    layers = [layer for layer in subject.graph.layers if layer.weight is None]
    if not layers:
        return []
    names = [layer.name for layer in layers]
    mendable = [layer.name for layer in layers if layer.source is not None]
    share = runs.share_of(names)
    return [
        Finding(
            "float-layers",
            NOTE,
            tuple(names),
            f"{len(names)} of {len(subject.graph.layers)} layers are in float and take {share:.0%} of the time.",
            {"layers": len(names), "time_share": {name: round(runs.shares.get(name, 0.0), 4) for name in names}},
            "Quantize them, too, if the accuracy bears it.",
            partial(_quantized, subject=subject, names=mendable) if mendable else None,
        )
    ]


def _quantized(model: onnx.ModelProto, subject: Subject, names: list[str]) -> onnx.ModelProto:
    return _with_pairs(with_weights_per_channel(model, subject, names), subject, names)


def check_fusion(subject: Subject, runs: RuntimeGraph) -> list[Finding]:
    """Return a finding if layers whose weights are stored in integers are computed in float all the same.

    ONNX Runtime fuses a layer whose input, weights, bias and output are all quantized. What is missing is said.
    """
    stored = [layer for layer in subject.graph.layers if layer.weight is not None]
    reasons = {layer.name: _reason(subject, layer) for layer in stored if not runs.is_integer(layer.name)}
    if not reasons:
        return []
    names = sorted(reasons, key=lambda name: -runs.shares.get(name, 0.0))
    mendable = [name for name in names if reasons[name] in (FLOAT_BIAS, BIAS_STEPS, NO_PAIR)]
    return [
        Finding(
            "unfused-layers",
            WARNING,
            tuple(names),
            f"{len(names)} quantized layers are computed in float between conversions: {names[0]} because "
            f"{reasons[names[0]]}.",
            {"reasons": reasons, "time_share": round(runs.share_of(names), 4)},
            "Put what is missing in, or leave these layers in float altogether.",
            partial(_completed, subject=subject, names=mendable) if mendable else None,
        )
    ]


def _reason(subject: Subject, layer: Layer) -> str:
    if layer.source is None:
        return FLOAT_INPUT
    if layer.biases is not None and layer.bias is None:
        return FLOAT_BIAS
    if step_ratio(layer) > 1 + SAME_STEP:
        return BIAS_STEPS
    if layer.pair is None:
        return NO_PAIR
    if layer.source.zero_point.dtype != layer.pair.grid.zero_point.dtype:
        return MIXED_TYPES
    activation = subject.graph.activation_after(layer.node)
    return UNKNOWN if activation is None else f"the {activation.op_type} behind it is not part of its output's range"


def _completed(model: onnx.ModelProto, subject: Subject, names: list[str]) -> onnx.ModelProto:
    layers = subject.graph.layer
    biases = {name: values for name in names if (values := layers[name].biases) is not None}
    return _with_pairs(with_biases(model, biases), subject, names)


def _with_pairs(model: onnx.ModelProto, subject: Subject, names: list[str]) -> onnx.ModelProto:
    missing = {
        name: subject.graph.end_of(subject.graph.by_name[name])
        for name in names
        if subject.graph.layer[name].pair is None
    }
    missing = {name: tensor for name, tensor in missing.items() if tensor not in subject.graph.outputs}
    if not missing:
        return model
    histograms = stream_histograms(subject.twin, subject.inputs, tensors=set(missing.values()))
    return with_pair_behind(model, {name: minmax_range(histograms[tensor]) for name, tensor in missing.items()})


def check_conversions(runs: RuntimeGraph) -> list[Finding]:
    """Return a finding if conversions stand in the middle of the network, around islands of float operators."""
    between = runs.conversions_between()
    if not between:
        return []
    names = {node.name for node in between}
    others = [node for node in runs.model.graph.node if node.name not in names]
    converted = {node.output[0] for node in between if node.op_type == "DequantizeLinear"}
    rounded = {node.input[0] for node in between if node.op_type == "QuantizeLinear"}
    islands = [node for node in others if converted.intersection(node.input) or rounded.intersection(node.output)]
    operators = sorted({node.op_type for node in islands})
    share = runs.share_of(sorted(names))
    return [
        Finding(
            "float-islands",
            WARNING if share >= 0.05 else NOTE,
            tuple(dict.fromkeys(node.name for node in islands)),
            f"{len(between)} conversions between float and integers in the middle of the network, around "
            f"{', '.join(operators) or 'nothing'}, take {share:.0%} of the time.",
            {"conversions": len(between), "time_share": round(share, 4), "operators": operators},
            "Quantize these operators, too, or leave the layers around them in float: single islands cost most.",
        )
    ]
