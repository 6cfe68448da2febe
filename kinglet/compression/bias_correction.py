"""Sequential bias correction: every layer's mean output is brought back to that of the float model.

Rounding shifts what a layer gives on average, and the shifts add up with depth. The layers are corrected in
the order of the graph, each with all earlier corrections in place: what an earlier layer's correction mends
is not mended twice.

Source: Nagel et al. 2019, "Data-Free Quantization Through Weight Equalization and Bias Correction",
section 4.2, with means measured on images (its empirical variant) instead of derived from batch normalization.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import numpy_helper

from kinglet.compression.graph_walk import Walk
from kinglet.compression.quantization import WEIGHTED, node_name
from kinglet.runtime.sessions import open_as_written

INT32 = np.iinfo(np.int32)


@dataclass(frozen=True)
class Correction:
    """A corrected model, and the layers whose correction did not fit into their int32 bias, left as they were."""

    model: onnx.ModelProto
    refused: tuple[str, ...]


def correct_biases(
    model: onnx.ModelProto, quantized: onnx.ModelProto, inputs: NDArray[np.float32], batch_size: int = 32
) -> Correction:
    """Return `quantized` with biases that bring the mean of every layer's output back to that of `model`.

    model: the float model. quantized: made from it by `quantize_static`, with the same names of nodes; it
    is not changed. inputs: float32 (n, channels, height, width); a few dozen images are enough for means.
    The mean is one per channel, over images and positions, before the activation. Layers in float are
    corrected too: what reaches them is shifted. An int32 bias keeps its scale, so a mean is met to half
    of the bias's step, which is far below a step of the activation. No image passes twice: what a
    correction adds to a layer's output is added to the outputs at hand.
    """
    corrected = onnx.ModelProto()
    corrected.CopyFrom(quantized)
    targets = channel_means(model, inputs, batch_size)
    initializers = {item.name: item for item in corrected.graph.initializer}
    walk = Walk(corrected, inputs)
    refused = []
    # What was written as a convolution for the sake of its kernel has no bias of its own.
    for node in [node for node in corrected.graph.node if node.op_type in WEIGHTED and node.name in targets]:
        output = walk.value(node.output[0])
        bias = _stored_bias(corrected, initializers, node)
        if bias is None:
            refused.append(node.name)
            continue
        shift = targets[node.name] - _per_channel(output).mean(1, dtype=np.float64)
        added = _add_to_bias(bias, shift)
        if added is None:
            refused.append(node.name)
            continue
        walk.known[node.output[0]] = (output + added.reshape(1, -1, *[1] * (output.ndim - 2))).astype(np.float32)
    return Correction(corrected, tuple(refused))


def channel_means(
    model: onnx.ModelProto, inputs: NDArray[np.float32], batch_size: int = 32
) -> dict[str, NDArray[np.float64]]:
    """Return the mean output per channel of every node with weights: {node's name: float64 (channels,)}.

    inputs: float32 (n, channels, height, width). The outputs are taken before the activations. A node
    without a name goes by its type and place, as in `quantize_static`.
    """
    exposed = onnx.ModelProto()
    exposed.CopyFrom(model)
    outputs = {
        node_name(node, index): node.output[0]
        for index, node in enumerate(model.graph.node)
        if node.op_type in WEIGHTED
    }
    del exposed.graph.output[:]
    exposed.graph.output.extend(
        onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, None) for name in outputs.values()
    )
    session = open_as_written(exposed.SerializeToString())
    sums = {name: np.float64(0) for name in outputs}
    for start in range(0, len(inputs), batch_size):
        batch = inputs[start : start + batch_size]
        values = session.run(list(outputs.values()), {model.graph.input[0].name: batch})
        for name, value in zip(outputs, values, strict=True):
            sums[name] = sums[name] + _per_channel(value).mean(1, dtype=np.float64) * len(batch)
    return {name: np.asarray(total / len(inputs), dtype=np.float64) for name, total in sums.items()}


def _per_channel(output: NDArray[np.generic]) -> NDArray[np.float32]:
    return np.moveaxis(np.asarray(output, dtype=np.float32), 1, 0).reshape(output.shape[1], -1)


@dataclass(frozen=True)
class _Bias:
    """A stored bias: int32 in steps of these values per channel, or float32 where there are no steps."""

    tensor: onnx.TensorProto
    steps: NDArray[np.float64] | None


def _stored_bias(
    model: onnx.ModelProto, initializers: dict[str, onnx.TensorProto], node: onnx.NodeProto
) -> _Bias | None:
    """Return the bias of a layer; None if it has none, or one that is computed."""
    if len(node.input) < 3:
        return None
    name = node.input[2]
    if name in initializers:
        return _Bias(initializers[name], None)
    dequantize = next((item for item in model.graph.node if name in item.output), None)
    if dequantize is None or dequantize.op_type != "DequantizeLinear" or dequantize.input[0] not in initializers:
        return None
    stored, scale = (initializers[part] for part in dequantize.input[:2])
    return _Bias(stored, numpy_helper.to_array(scale).astype(np.float64))


def _add_to_bias(bias: _Bias, shift: NDArray[np.float64]) -> NDArray[np.float64] | None:
    """Add `shift` to a stored bias; return what was added after rounding, None if it would overflow."""
    stored = numpy_helper.to_array(bias.tensor).astype(np.float64)
    if bias.steps is None:
        total = (stored + shift).astype(np.float32)
        added: NDArray[np.float64] = total.astype(np.float64) - stored
        bias.tensor.CopyFrom(numpy_helper.from_array(total, bias.tensor.name))
        return added
    steps = np.rint(shift / bias.steps)
    if not ((stored + steps >= INT32.min) & (stored + steps <= INT32.max)).all():
        return None
    bias.tensor.CopyFrom(numpy_helper.from_array((stored + steps).astype(np.int32), bias.tensor.name))
    return np.asarray(steps * bias.steps, dtype=np.float64)
