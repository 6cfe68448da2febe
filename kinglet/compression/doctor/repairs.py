"""Repairs of a file in QDQ form. Each returns a changed copy."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import onnx
from numpy.typing import DTypeLike, NDArray
from onnx import helper

from kinglet.compression.calibration import Range, minmax_range, with_zero
from kinglet.compression.doctor.edit import Edit, constants_first
from kinglet.compression.doctor.graph import Graph
from kinglet.compression.doctor.layers import Layer, Pair
from kinglet.compression.doctor.subject import Subject
from kinglet.compression.doctor.twin import activation_folded, limiting_node, set_weights
from kinglet.compression.qdq import keep_in_float

INT32_MAX = float(np.iinfo(np.int32).max)
# Room that is left in an int32 bias for the sums of products that are added to it.
BIAS_ROOM = 0.5
LARGEST_WEIGHT = {8: 127, 7: 64}


def with_ranges(model: onnx.ModelProto, ranges: Mapping[str, Range]) -> onnx.ModelProto:
    """Return the model with other ranges of activations, of the same integer type.

    ranges: {name of a QuantizeLinear: (low, high)}. Biases of the layers behind keep their values and get the
    steps that go with the new input.
    """
    edit = Edit(model)
    for pair in edit.graph.pairs:
        if pair.quantize.name in ranges:
            _set_range(edit, pair, ranges[pair.quantize.name])
    _follow_inputs(edit)
    return edit.finish()


def _follow_inputs(edit: Edit) -> None:
    """Store the biases of all layers whose input has got another step in steps that go with it."""
    for layer in Graph(edit.model).layers:
        if layer.source is None or layer.weight is None or layer.bias is None:
            continue
        source = edit.before[layer.name].source
        if source is None or not np.array_equal(source.scale, layer.source.scale):
            _store_bias(edit, layer, layer.biases)


def _set_range(edit: Edit, pair: Pair, limits: Range) -> None:
    scale, zero_point = _asymmetric(limits, pair.grid.zero_point.dtype)
    name = pair.quantize.name
    _set_grid(pair, edit.constant(f"{name}.scale", scale), edit.constant(f"{name}.zero_point", zero_point))


def _asymmetric(limits: Range, kind: DTypeLike) -> tuple[np.float32, NDArray[np.integer[Any]]]:
    """Return scale and zero point of a range, in this integer type, with a zero that is held exactly."""
    low, high = with_zero(*limits)
    integers = np.iinfo(np.dtype(kind))
    scale = np.float32((high - low) / (integers.max - integers.min))
    zero_point = np.clip(np.rint(integers.min - low / scale), integers.min, integers.max)
    return scale, np.asarray(zero_point).astype(kind)


def _set_grid(pair: Pair, scale: str, zero_point: str) -> None:
    for node in (pair.quantize, *pair.dequantizes):
        del node.input[1:]
        node.input.extend([scale, zero_point])


def with_unsigned_activations(model: onnx.ModelProto) -> onnx.ModelProto:
    """Return the model with every int8 activation stored as uint8: the same numbers, 128 added to each integer."""
    edit = Edit(model)
    for pair in edit.graph.pairs:
        if pair.grid.zero_point.dtype == np.int8:
            name = pair.quantize.name
            shifted = (pair.grid.zero_point.astype(np.int16) + 128).astype(np.uint8)
            shape = () if not pair.grid.per_channel else shifted.shape
            scale = edit.constant(f"{name}.scale", pair.grid.scale.reshape(shape))
            _set_grid(pair, scale, edit.constant(f"{name}.zero_point", shifted.reshape(shape)))
    return edit.finish()


def with_biases(model: onnx.ModelProto, biases: Mapping[str, NDArray[np.float32]]) -> onnx.ModelProto:
    """Return the model with these biases stored as int32, in steps of input scale times weight scale."""
    edit = Edit(model)
    for layer in edit.graph.layers:
        if layer.name in biases:
            _store_bias(edit, layer, biases[layer.name])
    return edit.finish()


def _store_bias(edit: Edit, layer: Layer, biases: NDArray[np.float32] | None) -> None:
    assert layer.weight is not None
    assert layer.source is not None
    if biases is None:
        return
    axis = 0 if layer.weight.grid.per_channel else None
    steps = (layer.source.scale * layer.weight.grid.scale).astype(np.float32)
    stored = np.clip(np.rint(biases / steps.astype(np.float64)), -INT32_MAX, INT32_MAX).astype(np.int32)
    name = edit.stored(f"{layer.name}.bias", stored, steps, axis)
    _set_input(layer.node, 2, name)


def _set_input(node: onnx.NodeProto, place: int, name: str) -> None:
    if len(node.input) > place:
        node.input[place] = name
    else:
        node.input.append(name)


def with_weights_per_channel(
    model: onnx.ModelProto, subject: Subject, names: Iterable[str], bits: int = 8, float_biases: bool = False
) -> onnx.ModelProto:
    """Return the model with these layers' weights stored anew, int8 per channel, from those before rounding.

    bits: 8, or 7 for processors whose sums of two products saturate. float_biases: store the float file's biases
    instead of what the file's own stand for, which may have been corrected on purpose. A channel whose bias int32
    could not hold gets larger steps for its weights.
    """
    edit = Edit(model)
    wanted = set(names)
    for layer in [layer for layer in edit.graph.layers if layer.name in wanted]:
        weights, biases = subject.float_weights(layer.name)
        _store_layer(edit, layer, weights, biases if float_biases else layer.biases, LARGEST_WEIGHT[bits])
    return edit.finish()


def _store_layer(
    edit: Edit, layer: Layer, weights: NDArray[np.float32], biases: NDArray[np.float32] | None, largest: int
) -> None:
    assert layer.source is not None
    axis = layer.channel_axis
    scale = np.maximum(np.abs(layer.by_channel(weights)).max(1).astype(np.float64) / largest, 1e-12)
    if biases is not None:
        scale = np.maximum(scale, np.abs(biases) / (float(layer.source.step) * INT32_MAX * BIAS_ROOM))
    shape = [1] * weights.ndim
    shape[axis] = -1
    stored = np.clip(np.rint(weights / scale.reshape(shape)), -127, 127).astype(np.int8)
    _set_input(layer.node, 1, edit.stored(f"{layer.name}.weight", stored, scale.astype(np.float32), axis))
    if biases is not None:
        steps = (layer.source.scale * scale).astype(np.float32)
        whole = np.rint(biases / steps.astype(np.float64)).astype(np.int32)
        _set_input(layer.node, 2, edit.stored(f"{layer.name}.bias", whole, steps, 0))


def in_float(model: onnx.ModelProto, subject: Subject, names: Iterable[str]) -> onnx.ModelProto:
    """Return the model with these layers computed in float, with the weights and biases of the float twin.

    A pair all of whose neighbouring layers are in float goes, and the activation that was folded into it comes
    back. A pair behind a layer in float whose other neighbours are not gets its range measured anew, so that what
    is left of the layer's own error is one good rounding.
    """
    edit = Edit(model)
    spared = set(names)
    floats = spared | {layer.name for layer in edit.graph.layers if not layer.is_quantized}
    for pair in edit.graph.pairs:
        around = edit.graph.neighbours(pair)
        if around & spared and around <= floats:
            _remove(edit, pair, subject)
        elif any(layer.pair is pair and layer.name in spared for layer in edit.graph.layers):
            histogram = subject.histograms.get(pair.quantize.output[0])
            if histogram is not None:  # A pair that a repair put in has a good range already.
                _set_range(edit, pair, minmax_range(histogram))
    _follow_inputs(edit)
    for name in sorted(spared):
        node = edit.graph.by_name[name]
        weights, biases = subject.float_weights(name)
        if biases is None and node.op_type != "MatMul":
            biases = np.zeros(weights.shape[edit.graph.layer[name].channel_axis], np.float32)
        set_weights(edit.model, node, weights, biases)
    result = edit.finish()
    keep_in_float(result, spared)
    constants_first(result)
    return result


def _remove(edit: Edit, pair: Pair, subject: Subject) -> None:
    activation = activation_folded(subject.graph, pair, subject.found)
    node = limiting_node(edit.model, pair.quantize.input[0], pair.quantize.output[0], activation, pair.quantize.name)
    pair.quantize.CopyFrom(node)
    for dequantize in pair.dequantizes:
        dequantize.CopyFrom(
            helper.make_node("Identity", [dequantize.input[0]], [dequantize.output[0]], name=dequantize.name)
        )


def with_pair_behind(model: onnx.ModelProto, ranges: Mapping[str, Range]) -> onnx.ModelProto:
    """Return the model with a pair behind each of these layers' outputs, so that the layer can be fused.

    ranges: {name of a layer: (low, high)}; the pair follows the ReLU or Clip that alone reads the layer. It has the
    integer type of the layer's input: no kernel mixes two.
    """
    edit = Edit(model)
    added: dict[str, list[onnx.NodeProto]] = {}
    for name, limits in ranges.items():
        tensor = edit.graph.end_of(edit.graph.by_name[name])
        source = edit.graph.layer[name].source
        kind: DTypeLike = np.uint8 if source is None else source.zero_point.dtype
        scale, zero_point = _asymmetric(limits, kind)
        grid = [edit.constant(f"{name}.output_scale", scale), edit.constant(f"{name}.output_zero_point", zero_point)]
        for reader in edit.graph.readers.get(tensor, []):
            for place, given in enumerate(reader.input):
                if given == tensor:
                    reader.input[place] = f"{tensor}.rounded"
        added[tensor] = [
            helper.make_node("QuantizeLinear", [tensor, *grid], [f"{tensor}.integers"], name=f"{name}.quantize"),
            helper.make_node(
                "DequantizeLinear", [f"{tensor}.integers", *grid], [f"{tensor}.rounded"], name=f"{name}.dequantize"
            ),
        ]
    nodes = []
    for node in edit.model.graph.node:
        nodes.append(node)
        for output in node.output:
            nodes += added.get(output, [])
    del edit.model.graph.node[:]
    edit.model.graph.node.extend(nodes)
    _follow_inputs(edit)
    return edit.finish()
