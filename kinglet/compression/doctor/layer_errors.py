"""How much of a layer's output is noise of quantization: signal to quantization noise ratios in decibels.

20 dB: the noise has a hundredth of the signal's power. A good 8-bit rounding of one tensor leaves 35 to 45 dB.

Source: Nagel et al. 2021, "A White Paper on Neural Network Quantization" (the measure, and finding faults layer by
layer with it).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
import onnxruntime
from numpy.typing import NDArray
from onnx import helper, numpy_helper

from kinglet.compression.doctor.layers import Grid, Layer
from kinglet.compression.doctor.subject import Subject
from kinglet.compression.doctor.twin import activation_folded, limiting_node
from kinglet.runtime.sessions import open_as_written

BATCH_SIZE = 8
# What is called no noise at all.
MOST_DECIBELS = 120.0


@dataclass(frozen=True)
class LayerError:
    """Signal to quantization noise ratios of a layer's output, behind its activation, in dB; more is better.

    own: with the float network's input, all that the file rounds at this layer. weights, output: of that, with
    nothing but the weights rounded, and with nothing but the output. accumulated: in the file, with all that was
    rounded before.
    """

    name: str
    own: float
    weights: float
    output: float
    accumulated: float


@dataclass(frozen=True)
class _Piece:
    """Names of one layer's tensors: in the twin its input and its output, in the pieces' model its three outputs."""

    layer: Layer
    source: str
    target: str
    outputs: tuple[str, str, str]


def layer_errors(subject: Subject) -> list[LayerError]:
    """Return the errors of all quantized layers in graph order, over the subject's images.

    The float network's numbers are those of its twin. Nothing is fused, so that the file's numbers between its
    layers are there to be compared.
    """
    pieces, model = _pieces(subject)
    if not pieces:
        return []
    ends = {piece.layer.name: _end_of(piece) for piece in pieces}
    wanted = sorted({*(piece.source for piece in pieces), *(piece.target for piece in pieces), *ends.values()})
    of_twin = _exposing(subject.twin, wanted)
    of_file = _exposing(subject.graph.model, sorted(set(ends.values())))
    alone = open_as_written(model.SerializeToString())
    power: dict[tuple[str, str], float] = {}
    for start in range(0, len(subject.inputs), BATCH_SIZE):
        batch = subject.inputs[start : start + BATCH_SIZE]
        floats = _run(of_twin, batch)
        rounded = _run(of_file, batch)
        names = list(dict.fromkeys(name for piece in pieces for name in piece.outputs))
        fed = {f"{piece.layer.name}:input": floats[piece.source] for piece in pieces}
        fed |= {f"{piece.layer.name}:target": floats[piece.target] for piece in pieces}
        known = {item.name for item in alone.get_inputs()}
        values = dict(zip(names, alone.run(names, {k: v for k, v in fed.items() if k in known}), strict=True))
        for piece in pieces:
            target = floats[piece.target]
            for kind, output in zip(("own", "weights", "output"), piece.outputs, strict=True):
                _add(power, piece.layer.name, kind, target, values[output])
            end = ends[piece.layer.name]
            _add(power, piece.layer.name, "accumulated", floats[end], rounded[end])
    return [
        LayerError(
            piece.layer.name,
            *(_decibels(power, piece.layer.name, kind) for kind in ("own", "weights", "output", "accumulated")),
        )
        for piece in pieces
    ]


def _add(
    power: dict[tuple[str, str], float], name: str, kind: str, signal: NDArray[np.float32], noisy: NDArray[np.float32]
) -> None:
    exact = signal.astype(np.float64)
    power[name, f"{kind} signal"] = power.get((name, f"{kind} signal"), 0.0) + float((exact**2).sum())
    power[name, f"{kind} noise"] = power.get((name, f"{kind} noise"), 0.0) + float(((noisy - exact) ** 2).sum())


def _decibels(power: dict[tuple[str, str], float], name: str, kind: str) -> float:
    signal, noise = power[name, f"{kind} signal"], power[name, f"{kind} noise"]
    if noise <= signal * 10 ** (-MOST_DECIBELS / 10):
        return MOST_DECIBELS
    return 10 * float(np.log10(max(signal, 1e-30) / noise))


def _end_of(piece: _Piece) -> str:
    """Return the tensor behind a layer that both the file and its twin hold as floats."""
    pair = piece.layer.pair
    return piece.target if pair is None else str(pair.dequantizes[0].output[0])


def _exposing(model: onnx.ModelProto, names: list[str]) -> onnxruntime.InferenceSession:
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    source = copy.graph.input[0].name
    del copy.graph.output[:]
    copy.graph.output.extend(
        helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, None) for name in names if name != source
    )
    return open_as_written(copy.SerializeToString())


def _run(session: onnxruntime.InferenceSession, batch: NDArray[np.float32]) -> dict[str, NDArray[np.float32]]:
    source = session.get_inputs()[0].name
    names = [item.name for item in session.get_outputs()]
    return {source: batch, **dict(zip(names, session.run(names, {source: batch}), strict=True))}


def _pieces(subject: Subject) -> tuple[list[_Piece], onnx.ModelProto]:
    """Return a model that holds every quantized layer by itself, with the float network's tensors as its inputs."""
    graph = subject.graph
    model = onnx.ModelProto()
    model.CopyFrom(graph.model)
    for part in (model.graph.node, model.graph.input, model.graph.output, model.graph.initializer):
        del part[:]
    del model.graph.value_info[:]
    pieces = []
    for layer in subject.quantized:
        assert layer.source is not None
        pair = layer.pair
        target = graph.end_of(layer.node) if pair is None else pair.quantize.output[0]
        if pair is not None and not pair.dequantizes:
            continue
        name = layer.name
        _round(model, f"{name}:input", f"{name}:rounded_input", layer.source, f"{name}:source")
        own = _layer_alone(model, subject, layer, f"{name}:rounded_input", f"{name}:whole")
        weights = _layer_alone(model, subject, layer, f"{name}:input", f"{name}:weights")
        output = weights if pair is None else f"{name}:target"
        if pair is not None:
            own = _round(model, own, f"{name}:own", pair.grid, f"{name}:own_grid")
            output = _round(model, f"{name}:target", f"{name}:rounded_target", pair.grid, f"{name}:target_grid")
            model.graph.input.append(_floats(f"{name}:target"))
        model.graph.input.append(_floats(f"{name}:input"))
        piece = _Piece(layer, str(layer.node.input[0]), str(target), (own, weights, output))
        model.graph.output.extend(_floats(tensor) for tensor in dict.fromkeys(piece.outputs))
        pieces.append(piece)
    return pieces, model


def _layer_alone(model: onnx.ModelProto, subject: Subject, layer: Layer, source: str, prefix: str) -> str:
    """Add a layer with the weights that the file stores and the activation behind it; return its output."""
    node = onnx.NodeProto()
    node.CopyFrom(layer.node)
    constants = {1: layer.weights, **({} if layer.biases is None else {2: layer.biases})}
    del node.input[:]
    node.input.append(source)
    for place, values in constants.items():
        node.input.append(f"{prefix}:{place}")
        model.graph.initializer.append(numpy_helper.from_array(np.asarray(values, np.float32), node.input[-1]))
    node.name = node.output[0] = prefix
    model.graph.node.append(node)
    activation = subject.graph.activation_after(layer.node)
    if activation is not None:
        behind = onnx.NodeProto()
        behind.CopyFrom(activation)
        for place, name in enumerate(activation.input[1:], 1):
            if name:
                behind.input[place] = f"{prefix}:limit_{place}"
                limit = numpy_helper.from_array(subject.graph.constants[name], behind.input[place])
                model.graph.initializer.append(limit)
        behind.input[0], behind.output[0], behind.name = prefix, f"{prefix}:end", f"{prefix}:end"
        model.graph.node.append(behind)
        return f"{prefix}:end"
    if layer.pair is not None and not prefix.endswith("whole"):
        folded = activation_folded(subject.graph, layer.pair, subject.found)
        model.graph.node.append(limiting_node(model, prefix, f"{prefix}:end", folded, f"{prefix}:end"))
        return f"{prefix}:end"
    return prefix


def _round(model: onnx.ModelProto, source: str, target: str, grid: Grid, name: str) -> str:
    shape = grid.scale.shape if grid.per_channel else ()
    parts = {f"{name}:scale": grid.scale.reshape(shape), f"{name}:zero_point": grid.zero_point.reshape(shape)}
    model.graph.initializer.extend(numpy_helper.from_array(values, key) for key, values in parts.items())
    attributes: dict[str, Any] = {"axis": grid.axis} if grid.per_channel else {}
    model.graph.node.append(
        helper.make_node("QuantizeLinear", [source, *parts], [f"{name}:integers"], name=f"{name}:q", **attributes)
    )
    model.graph.node.append(
        helper.make_node("DequantizeLinear", [f"{name}:integers", *parts], [target], name=f"{name}:d", **attributes)
    )
    return target


def _floats(name: str) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, None)
