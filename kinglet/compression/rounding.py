"""Rounding of weights by what a layer gives, instead of each weight to its nearest step.

AdaRound (Nagel et al. 2020, "Up or Down? Adaptive Rounding for Post-Training Quantization") finds by
gradient descent which weights to round up and which down, so that the layer's output stays what it was.
The same aim has a solution without training: the weights are rounded one column after the other, and the
error of each is made up for by those that are still free. It takes no learning rate and no random numbers.

Source: Frantar et al. 2022, "GPTQ: Accurate Post-Training Quantization for Generative Pre-trained
Transformers", algorithm 1 (without its blocks), with groups and windows for convolutions.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray
from onnx import numpy_helper

from kinglet.compression.graph_walk import Walk
from kinglet.compression.quantization import WEIGHTED, node_name

# Positions of the images that a layer's second moments are taken from.
SAMPLES = 8192
# Added to the diagonal of the second moments, as a share of its mean: keeps directions that no image shows in place.
DAMPING = 0.01


def round_weights(model: onnx.ModelProto, quantized: onnx.ModelProto, inputs: NDArray[np.float32]) -> onnx.ModelProto:
    """Return `quantized` with int8 weights that keep the outputs of its layers near those of the weights in `model`.

    model: the float model. quantized: made from it by `quantize_static`; scales and biases stay. inputs:
    float32 (n, channels, height, width). Layers are rounded in the order of the graph, each for what it is
    fed by the rounded ones before. A layer stays as it is if there are fewer positions than weights in
    a row, if it is in float, or if it is dilated.
    """
    rounded = onnx.ModelProto()
    rounded.CopyFrom(quantized)
    floats = {item.name: item for item in model.graph.initializer}
    weights = {
        node_name(node, index): floats[node.input[1]]
        for index, node in enumerate(model.graph.node)
        if node.op_type in WEIGHTED and node.input[1] in floats
    }
    walk = Walk(rounded, inputs)
    for node in [node for node in rounded.graph.node if node.op_type in WEIGHTED]:
        stored = _stored_weight(walk, node)
        if stored is None or node.name not in weights:
            continue
        samples = _windows(node, walk.value(node.input[0]), stored[0].dims)
        if samples is None or samples.shape[1] < samples.shape[2]:
            continue
        tensor, scales = stored
        limit = int(np.abs(numpy_helper.to_array(tensor).astype(np.int64)).max())
        weight = numpy_helper.to_array(weights[node.name])
        n_groups, _, n_inputs = samples.shape
        steps = (weight.reshape(len(weight), -1) / scales[:, None]).reshape(n_groups, -1, n_inputs)
        found = round_rows(steps, samples, limit).astype(np.int8).reshape(weight.shape)
        tensor.CopyFrom(numpy_helper.from_array(found, tensor.name))
    return rounded


def round_rows(steps: NDArray[np.floating[Any]], samples: NDArray[np.floating[Any]], limit: int) -> NDArray[np.float64]:
    """Return whole numbers in [-limit, limit] near `steps` whose products with the samples stay near those of `steps`.

    steps: weights in units of their scale, (n_groups, n_outputs, n_inputs). samples: what the weights are
    multiplied with, (n_groups, n_samples, n_inputs).
    """
    samples = samples.astype(np.float64)
    moments = np.einsum("gsi,gsj->gij", samples, samples) / samples.shape[1]
    diagonal = np.einsum("gii->gi", moments)
    diagonal += DAMPING * diagonal.mean(1, keepdims=True) + 1e-9
    # Upper factors of the inverse: row i says how the later weights make up for weight i.
    factors = np.linalg.cholesky(np.linalg.inv(moments)).swapaxes(1, 2)
    free = steps.astype(np.float64)
    rounded = np.empty_like(free)
    for column in range(free.shape[2]):
        rounded[..., column] = np.rint(free[..., column]).clip(-limit, limit)
        error = (free[..., column] - rounded[..., column]) / factors[:, column, column, None]
        free[..., column:] -= error[..., None] * factors[:, None, column, column:]
    return rounded


def _stored_weight(walk: Walk, node: onnx.NodeProto) -> tuple[onnx.TensorProto, NDArray[np.float64]] | None:
    """Return the int8 weight of a layer and its scales per output channel, None if it is in float."""
    maker = walk.makers.get(node.input[1])
    if maker is None or maker.op_type != "DequantizeLinear" or maker.input[0] not in walk.initializers:
        return None
    tensor, scale = (walk.initializers[name] for name in maker.input[:2])
    scales = np.atleast_1d(numpy_helper.to_array(scale).astype(np.float64))
    return tensor, np.broadcast_to(scales, (tensor.dims[0],))


def _windows(node: onnx.NodeProto, x: NDArray[np.float32], shape: Any) -> NDArray[np.float32] | None:
    """Return what the weights of a layer are multiplied with: (n_groups, n_samples, n_inputs), None if not known."""
    attributes = {item.name: onnx.helper.get_attribute_value(item) for item in node.attribute}
    if node.op_type == "Gemm":
        return x[None] if attributes.get("transB") and not attributes.get("transA") else None
    if set(attributes.get("dilations", [1])) != {1} or attributes.get("auto_pad", b"NOTSET") != b"NOTSET":
        return None
    top, left, bottom, right = attributes.get("pads", [0, 0, 0, 0])
    rows, columns = attributes.get("strides", [1, 1])
    padded = np.pad(x, ((0, 0), (0, 0), (top, bottom), (left, right)))
    view = sliding_window_view(padded, tuple(shape[2:]), (2, 3))[:, :, ::rows, ::columns]
    places = (view.shape[0], *view.shape[2:4])
    n_places = int(np.prod(places))
    # Evenly spread over images and positions, the same ones every time.
    image, row, column = np.unravel_index(np.linspace(0, n_places - 1, min(SAMPLES, n_places)).astype(int), places)
    n_groups = attributes.get("group", 1)
    samples = view[image, :, row, column].reshape(len(image), n_groups, -1)
    return np.ascontiguousarray(samples.swapaxes(0, 1))
