"""What an int8 file answers on x86 processors without VNNI, where sums of two 8-bit products saturate.

Without VNNI, ONNX Runtime multiplies with the instruction `vpmaddubsw`: it adds the products of two neighbouring
uint8 activations and int8 weights and cuts the sum off at 16 bits; from there on all sums have 32 bits. Which
weights are neighbours: all inputs of an output channel in the order kernel row, kernel column, input channel, taken
two by two. Depthwise convolutions widen every product to 32 bits first and never saturate.

Source: onnxruntime 1.32, core/mlas/lib/amd64/ConvSymKernelAvx2.asm, ConvSymKernelAvx512Core.asm and
QgemmU8X8KernelAvx2.asm (the instructions); core/mlas/lib/convsym.cpp, MlasConvSymPackW, and
core/providers/cpu/quantization/qlinearconv.cc, ReorderFilter (the order of the weights).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import onnx
import onnxruntime
from numpy.typing import NDArray
from onnx import numpy_helper

from kinglet.compression.float_nodes import FloatNodes
from kinglet.compression.fusion import optimized
from kinglet.runtime.preprocessing import InputTensor, Preprocessing
from kinglet.runtime.sessions import logits_of, map_batches, open_session
from kinglet.runtime.vnni import products_saturate

WEIGHTED = ("Conv", "Gemm", "MatMul")
LOWEST, HIGHEST = -(2**15), 2**15 - 1
LARGEST_ACTIVATION = 255
BATCH_SIZE = 64
# Images that tell which layers saturate: enough for their order, and a big network takes 20 ms for each.
COUNTED_IMAGES = 256

Array = NDArray[Any]
Attributes = dict[str, Any]


@dataclass(frozen=True)
class Quantized:
    """What DequantizeLinear reads: integers, and the scale and zero point of all or of every channel along `axis`."""

    values: Array
    scale: NDArray[np.float32]
    zero_point: Array
    axis: int

    @property
    def floats(self) -> NDArray[np.float32]:
        """The numbers that the integers stand for, float32."""
        shape = [1] * self.values.ndim
        if self.scale.size > 1:
            shape[self.axis] = -1
        zero_point = self.zero_point.astype(np.int32).reshape(shape)
        return (self.values.astype(np.int32) - zero_point).astype(np.float32) * self.scale.reshape(shape)


@dataclass(frozen=True)
class Accumulated:
    """Sums before they are brought to 8 bits: int32 (n, channels, ...), the scale of every channel or of all.

    count: what they are divided by.
    """

    sums: NDArray[np.int32]
    scale: NDArray[np.float32]
    count: int = 1

    def quantized(self, scale: NDArray[np.float32], zero_point: Array) -> NDArray[np.uint8]:
        """Return the sums as uint8, multiplied and rounded in float32 as ONNX Runtime does."""
        ratio = (self.scale / (scale * np.float32(self.count))).reshape(-1, *[1] * (self.sums.ndim - 2))
        shift = np.float32(zero_point)
        scaled = self.sums.astype(np.float32)
        scaled *= ratio
        np.clip(scaled, -shift, LARGEST_ACTIVATION - shift, out=scaled)
        np.rint(scaled, out=scaled)
        scaled += shift
        return scaled.astype(np.uint8)

    @property
    def floats(self) -> NDArray[np.float32]:
        """The sums, or means, as float32."""
        scale = self.scale.reshape(-1, *[1] * (self.sums.ndim - 2))
        return (self.sums * np.float64(1) * scale / self.count).astype(np.float32)


@dataclass(frozen=True)
class Added:
    """Two uint8 tensors to be added."""

    one: Quantized
    other: Quantized

    def quantized(self, scale: NDArray[np.float32], zero_point: Array) -> NDArray[np.uint8]:
        """Return the sum as uint8, by the fused multiplications and additions of ONNX Runtime's kernel.

        Source: core/mlas/lib/qladd.cpp.
        """
        ratio_one, ratio_other = self.one.scale / scale, self.other.scale / scale
        zero_one, zero_other = np.float32(self.one.zero_point), np.float32(self.other.zero_point)
        fixed = np.float32(zero_point) - (ratio_one * zero_one + ratio_other * zero_other)
        # A fused step rounds once: float64 holds the product exactly.
        sums = (self.one.values * np.float64(ratio_one) + fixed).astype(np.float32)
        sums = (self.other.values * np.float64(ratio_other) + sums).astype(np.float32)
        return np.clip(np.rint(sums), 0, LARGEST_ACTIVATION).astype(np.uint8)

    @property
    def floats(self) -> NDArray[np.float32]:
        """The sum as float32."""
        return self.one.floats + self.other.floats


@dataclass(frozen=True)
class Averaged:
    """Means of windows of a uint8 tensor, float32 (n, channels, height, width)."""

    floats: NDArray[np.float32]

    def quantized(self, scale: NDArray[np.float32], zero_point: Array) -> NDArray[np.uint8]:
        """Return the means as uint8, rounded after the zero point is added, as the kernel for windows does.

        Means of integers often lie halfway between two of them, so that it shows.
        Source: core/providers/cpu/quantization (QLinearAveragePool), checked against it.
        """
        return np.clip(np.rint(self.floats / scale + np.float32(zero_point)), 0, LARGEST_ACTIVATION).astype(np.uint8)


def sums_of_products(
    weights: NDArray[np.int8], activations: NDArray[np.uint8], saturate: bool = True
) -> tuple[NDArray[np.int32], int]:
    """Return weights @ activations as a processor without VNNI computes it, and how many pairs saturated.

    weights: int8 (n_outputs, n_inputs). activations: uint8 (n_inputs, n_positions). Returns int32
    (n_outputs, n_positions). saturate: False gives the exact sums, as VNNI and ARM do, and 0.
    """
    bound = LARGEST_ACTIVATION * int(np.abs(weights.astype(np.int32)).sum(axis=1).max(initial=0))
    # Floats hold these integers exactly and multiply matrices many times faster than numpy's integers do.
    exact: Any = np.float32 if bound < 2**24 else np.float64
    operands: Array = activations.astype(exact)
    sums = (weights.astype(exact) @ operands).astype(np.int32)
    if not saturate:
        return sums, 0
    if len(operands) % 2:
        operands, weights = np.pad(operands, ((0, 1), (0, 0))), np.pad(weights, ((0, 0), (0, 1)))
    evens, odds = operands[0::2], operands[1::2]
    even_weights, odd_weights = weights[:, 0::2].astype(exact), weights[:, 1::2].astype(exact)
    at_risk = can_exceed(even_weights, odd_weights, evens.max(axis=1, initial=0), odds.max(axis=1, initial=0))
    n_saturated = 0
    for channel in np.flatnonzero(at_risk.any(axis=1)):
        pairs = np.flatnonzero(at_risk[channel])
        of_pairs = even_weights[channel, pairs, None] * evens[pairs] + odd_weights[channel, pairs, None] * odds[pairs]
        cut_off = of_pairs - np.clip(of_pairs, LOWEST, HIGHEST)
        sums[channel] -= cut_off.sum(axis=0).astype(np.int32)
        n_saturated += int(np.count_nonzero(cut_off))
    return sums, n_saturated


def can_exceed(even_weights: Array, odd_weights: Array, even_peaks: Any, odd_peaks: Any) -> NDArray[np.bool_]:
    """Return which pairs of weights could leave 16 bits with activations between 0 and these peaks.

    weights: (n_outputs, n_pairs). peaks: (n_pairs,) or one for all, in [0, 255].
    """
    highest = np.maximum(even_weights, 0) * even_peaks + np.maximum(odd_weights, 0) * odd_peaks
    lowest = np.minimum(even_weights, 0) * even_peaks + np.minimum(odd_weights, 0) * odd_peaks
    result: NDArray[np.bool_] = (highest > HIGHEST) | (lowest < LOWEST)
    return result


def in_order_of_the_kernel(weights: Array) -> Array:
    """Return the weights of a convolution as a matrix (n_outputs, n_inputs), neighbours beside each other.

    weights: (n_outputs, channels, height, width).
    """
    return weights.transpose(0, 2, 3, 1).reshape(len(weights), -1)


def padded(images: Array, attributes: Attributes, padding: Any) -> Array:
    """Return images (n, channels, height, width) with `padding` around them, as the convolution asks for."""
    top, left, bottom, right = attributes.get("pads", [0, 0, 0, 0])
    return np.pad(images, ((0, 0), (0, 0), (top, bottom), (left, right)), constant_values=padding)


def shifted(pixels: Array, kernel: tuple[int, ...], attributes: Attributes) -> Iterator[tuple[tuple[int, int], Array]]:
    """Yield for every position in the kernel what its weights meet, a view (out_height, out_width, ...).

    pixels: (height, width, ...). kernel: its height and width.
    """
    strides, dilations = attributes.get("strides", [1, 1]), attributes.get("dilations", [1, 1])
    height, width = (
        (size - dilation * (edge - 1) - 1) // stride + 1
        for size, edge, stride, dilation in zip(pixels.shape, kernel, strides, dilations, strict=False)
    )
    for row, column in np.ndindex(*kernel):
        rows = slice(row * dilations[0], row * dilations[0] + strides[0] * (height - 1) + 1, strides[0])
        columns = slice(column * dilations[1], column * dilations[1] + strides[1] * (width - 1) + 1, strides[1])
        yield (row, column), pixels[rows, columns]


def patches(images: Array, kernel: tuple[int, ...], attributes: Attributes, padding: Any) -> Array:
    """Return what all weights of a convolution meet: (positions in the kernel, channels, n, out_height, out_width)."""
    # Channels first: what one weight meets then lies together.
    pixels = padded(images, attributes, padding).transpose(2, 3, 1, 0)
    return np.stack([seen.transpose(2, 3, 0, 1) for _, seen in shifted(pixels, kernel, attributes)])


def is_depthwise(weights: Array, group: int) -> bool:
    """Return whether every channel has a filter of its own: then nothing saturates."""
    return group > 1 and weights.shape[0] == group and weights.shape[1] == 1


def convolve_integers(
    images: NDArray[np.uint8], weights: NDArray[np.int8], attributes: Attributes, padding: int, saturate: bool
) -> tuple[NDArray[np.int32], int]:
    """Return the sums of products (n, n_outputs, out_height, out_width), int32, and how many pairs saturated."""
    group = attributes.get("group", 1)
    if is_depthwise(weights, group):
        return convolve_depthwise(images, weights, attributes, padding), 0
    seen = patches(images, weights.shape[2:], attributes, padding)
    shape = seen.shape[2:]
    parts, n_saturated = [], 0
    for of_group, inputs in zip(np.split(weights, group), np.split(seen, group, axis=1), strict=True):
        matrix = in_order_of_the_kernel(of_group)
        sums, count = sums_of_products(matrix, inputs.reshape(matrix.shape[1], -1), saturate)
        parts.append(sums.reshape(-1, *shape))
        n_saturated += count
    return np.moveaxis(np.concatenate(parts), 0, 1), n_saturated


def convolve_depthwise(
    images: NDArray[np.uint8], weights: NDArray[np.int8], attributes: Attributes, padding: int
) -> NDArray[np.int32]:
    """Return the exact sums of products of one filter for every channel."""
    n, channels = images.shape[:2]
    # Pixels first: every step then works on long rows, 3 times as fast. float32 holds sums of 500 weights exactly.
    pixels = padded(images, attributes, padding).transpose(2, 3, 0, 1).astype(np.float32, order="C")
    sums: Any = np.float32(0)
    for at, seen in shifted(pixels.reshape(*pixels.shape[:2], -1), weights.shape[2:], attributes):
        sums = sums + seen * np.tile(weights[:, 0, *at].astype(np.float32), n)
    result: NDArray[np.int32] = sums.astype(np.int32).reshape(*sums.shape[:2], n, channels).transpose(2, 3, 0, 1)
    return result


def convolve_floats(attributes: Attributes, images: Array, weights: Array, bias: Array | None = None) -> Array:
    """Return a convolution of floats, float32; summed in float64, so that no order of the sums shows."""
    group = attributes.get("group", 1)
    seen = patches(images, weights.shape[2:], attributes, np.float32(0)).astype(np.float64)
    parts = []
    for of_group, inputs in zip(np.split(weights, group), np.split(seen, group, axis=1), strict=True):
        matrix = in_order_of_the_kernel(of_group).astype(np.float64)
        parts.append((matrix @ inputs.reshape(matrix.shape[1], -1)).reshape(-1, *seen.shape[2:]))
    sums = np.moveaxis(np.concatenate(parts), 0, 1)
    return (sums if bias is None else sums + bias.reshape(-1, 1, 1)).astype(np.float32)


def multiply_floats(attributes: Attributes, rows: Array, weights: Array, bias: Array | None = None) -> Array:
    """Return a Gemm of floats, float32."""
    matrix = weights.T if attributes.get("transB") else weights
    result = attributes.get("alpha", 1.0) * (rows.astype(np.float64) @ matrix.astype(np.float64))
    return (result if bias is None else result + attributes.get("beta", 1.0) * bias).astype(np.float32)


def average_floats(attributes: Attributes, images: Array) -> Array:
    """Return an AveragePool of floats, summed in float32 row by row as the kernel of uint8 does.

    Another order of the sums would put means that lie halfway between two integers to one side.
    """
    kernel = tuple(attributes["kernel_shape"])
    attributes = reaching_the_edge(attributes, images.shape[2:])

    def summed(pixels: Array) -> Array:
        sums: Any = np.float32(0)
        for _, seen in shifted(padded(pixels, attributes, np.float32(0)).transpose(2, 3, 0, 1), kernel, attributes):
            sums = sums + seen
        result: Array = sums.transpose(2, 3, 0, 1)
        return result

    if attributes.get("count_include_pad", 0):
        return (summed(images) / np.float32(np.prod(kernel))).astype(np.float32)
    return (summed(images) / summed(np.ones((1, 1, *images.shape[2:]), np.float32))).astype(np.float32)


def reaching_the_edge(attributes: Attributes, edges: tuple[int, ...]) -> Attributes:
    """Return the attributes of a pooling with `ceil_mode` with as much padding at the end as its last windows need."""
    if not attributes.get("ceil_mode", 0):
        return attributes
    pads = list(attributes.get("pads", [0, 0, 0, 0]))
    dilations, strides = attributes.get("dilations", [1, 1]), attributes.get("strides", [1, 1])
    for axis, (edge, size) in enumerate(zip(edges, attributes["kernel_shape"], strict=True)):
        reach, before = dilations[axis] * (size - 1) + 1, pads[axis]
        last = -(-(before + edge + pads[axis + 2] - reach) // strides[axis]) * strides[axis]
        # A window that would begin behind the image is left out.
        last -= strides[axis] * (last >= before + edge)
        pads[axis + 2] = max(pads[axis + 2], last + reach - before - edge)
    return {**attributes, "pads": pads}


def is_known(attributes: Attributes) -> bool:
    """Return whether a node's windows, if it has some, are of the kind computed here: in two dimensions, in numbers."""
    in_numbers = attributes.get("auto_pad", b"NOTSET") == b"NOTSET" and len(attributes.get("kernel_shape", (1, 1))) == 2
    # Together they divide by what lies in the padding that was asked for, which ONNX Runtime knows.
    return in_numbers and not (attributes.get("ceil_mode", 0) and attributes.get("count_include_pad", 0))


# What is computed here of a float graph between the integer layers, alike on every machine: functions of attributes
# and float32 arrays. ONNX Runtime computes the others, one by one.
OPERATORS: dict[str, Callable[..., Array]] = {
    "Conv": convolve_floats,
    "Gemm": multiply_floats,
    "Add": lambda _, one, other: one + other,
    "Relu": lambda _, values: np.maximum(values, np.float32(0)),
    "Clip": lambda _, values, low=-np.inf, high=np.inf: np.clip(values, low, high).astype(np.float32),
    "GlobalAveragePool": lambda _, images: images.mean((2, 3), np.float64, keepdims=True).astype(np.float32),
    "AveragePool": average_floats,
    "Flatten": lambda attributes, values: values.reshape(int(np.prod(values.shape[: attributes.get("axis", 1)])), -1),
}


# What has sums of its own in integers, or graphs inside.
NOT_EMULATED = ("QLinear", "QGemm", "QAttention", "Integer", "NBits", "DynamicQuantize", "If", "Loop", "Scan")


def unknown_operators(model: onnx.ModelProto) -> list[str]:
    """Return the names of the operators that the emulator cannot compute, sorted.

    Those are integers' sums that are not written with QuantizeLinear and DequantizeLinear, and operators of other
    domains than ONNX's own.
    """
    foreign = {node.op_type for node in model.graph.node if node.domain not in ("", "ai.onnx")}
    known_not = {node.op_type for node in model.graph.node if node.op_type.startswith(NOT_EMULATED)}
    inner = {node.op_type for node in model.graph.node if "Integer" in node.op_type or "NBits" in node.op_type}
    return sorted(foreign | known_not | inner)


class Emulator:
    """An int8 model as `quantize_static` writes it, computed as on a processor without VNNI.

    Its integers are those of ONNX Runtime up to ties in rounding; float layers agree to about 1e-6.
    Raises ValueError if the model holds one of `unknown_operators`.
    """

    def __init__(self, model: onnx.ModelProto) -> None:
        unknown = unknown_operators(model)
        if unknown:
            raise ValueError(f"the emulator knows no {', '.join(unknown)}")
        graph = as_onnxruntime_reads_it(model).graph
        self._input, self._outputs = graph.input[0].name, [output.name for output in graph.output]
        self._constants = {item.name: numpy_helper.to_array(item) for item in graph.initializer}
        self._nodes = [
            (node, {item.name: onnx.helper.get_attribute_value(item) for item in node.attribute}) for node in graph.node
        ]
        self._integer_layers = {node.name: weights for node, weights in _integer_layers(graph)}
        self._sums = {node.output[0] for node, _ in self._nodes if node.name in self._integer_layers}
        self._float_nodes = FloatNodes(model)

    @property
    def layers_at_risk(self) -> list[str]:
        """The names of the layers that saturate for some activations, in graph order."""
        return [
            node.name
            for node, attributes in self._nodes
            if node.name in self._integer_layers and _at_risk(node.op_type, attributes, self._integer_layers[node.name])
        ]

    def run(self, inputs: NDArray[np.float32], saturate: bool = True) -> tuple[NDArray[np.float32], Counter[str]]:
        """Return the logits, float32 (n, n_classes), and the number of saturated pairs by layer; see `run_all`."""
        outputs, saturated = self.run_all(inputs, saturate)
        return outputs[0], saturated

    def run_all(self, inputs: InputTensor, saturate: bool = True) -> tuple[list[NDArray[np.float32]], Counter[str]]:
        """Return all outputs of the model, float32, and the number of saturated pairs by layer.

        inputs: n of them, as the model takes them. saturate: False computes as processors with VNNI do.
        """
        values: dict[str, Any] = {**self._constants, self._input: inputs}
        saturated: Counter[str] = Counter()
        for node, attributes in self._nodes:
            arguments: list[Any] = [values[name] if name else None for name in node.input]
            result: Any
            if node.name in self._integer_layers:
                result, saturated[node.name] = _accumulate(node.op_type, attributes, arguments, saturate)
            elif node.op_type == "DequantizeLinear":
                stored, scale, *zero_points = arguments
                zero_point = zero_points[0] if zero_points else np.zeros((), stored.dtype)
                result = Quantized(stored, scale, zero_point, attributes.get("axis", 1))
            elif node.op_type == "QuantizeLinear":
                result = _quantize(*arguments)
            elif node.op_type == "Add" and all(isinstance(argument, Quantized) for argument in arguments):
                result = Added(*arguments)
            elif node.op_type == "GlobalAveragePool" and isinstance(arguments[0], Quantized):
                result = _pool(arguments[0])
            elif node.op_type == "AveragePool" and isinstance(arguments[0], Quantized) and is_known(attributes):
                result = Averaged(average_floats(attributes, arguments[0].floats))
            elif node.input and node.input[0] in self._sums and isinstance(arguments[0], Accumulated):
                self._sums.add(node.output[0])
                result = arguments[0]  # A Relu or Clip that the range of the following uint8 does already.
            elif node.op_type in OPERATORS and is_known(attributes):
                result = OPERATORS[node.op_type](attributes, *map(_floats, arguments))
            else:
                values.update(self._float_nodes.run(node, [_floats(argument) for argument in arguments]))
                continue
            values[node.output[0]] = result
        return [_floats(values[name]) for name in self._outputs], saturated


def logits_without_vnni(
    model: onnx.ModelProto,
    packed: NDArray[np.uint8],
    rows: NDArray[np.integer[Any]],
    preprocessing: Preprocessing,
    workers: int = 1,
    saturates: bool | None = None,
) -> NDArray[np.float32]:
    """Return the logits of these rows of packed images without VNNI, float32 (len(rows), n_classes).

    On a processor that has none ONNX Runtime computes them as it serves, many times as fast as the emulation; so it
    does for a model at no risk, which answers alike on all.
    packed: uint8 (n, input_size, input_size, channels). workers: batches computed side by side; their number changes
    nothing in the result. saturates: whether this processor has none; None finds out.
    """
    saturates = products_saturate() if saturates is None else saturates
    if saturates or not (emulator := Emulator(model)).layers_at_risk:
        session = open_session(model.SerializeToString(), threads=1, exact_sums=not saturates)
        return logits_of(session, packed, rows, preprocessing, workers=workers)
    return emulated_logits(emulator, packed, rows, preprocessing, workers)[0]


def logits_and_saturated_pairs(
    model: onnx.ModelProto,
    packed: NDArray[np.uint8],
    rows: NDArray[np.integer[Any]],
    preprocessing: Preprocessing,
    workers: int = 1,
) -> tuple[NDArray[np.float32], Counter[str]]:
    """Return what `logits_without_vnni` does, and the number of saturated pairs by layer of the first rows.

    Only the emulation counts pairs: it does so in COUNTED_IMAGES, on every processor alike.
    """
    emulator = Emulator(model)
    if not emulator.layers_at_risk:
        return logits_without_vnni(model, packed, rows, preprocessing, workers), Counter()
    first, saturated = emulated_logits(emulator, packed, rows[:COUNTED_IMAGES], preprocessing, workers)
    if len(rows) <= COUNTED_IMAGES:
        return first, saturated
    rest = logits_without_vnni(model, packed, rows[COUNTED_IMAGES:], preprocessing, workers)
    return np.concatenate([first, rest]), saturated


def emulated_logits(
    emulator: Emulator,
    packed: NDArray[np.uint8],
    rows: NDArray[np.integer[Any]],
    preprocessing: Preprocessing,
    workers: int = 1,
    saturate: bool = True,
) -> tuple[NDArray[np.float32], Counter[str]]:
    """Return the logits of these rows of packed images without VNNI, and the number of saturated pairs by layer.

    packed: uint8 (n, input_size, input_size, channels). Returns float32 (len(rows), n_classes). workers:
    batches computed side by side; their number changes nothing in the result. saturate: False computes as
    processors with VNNI do.
    """
    saturated: Counter[str] = Counter()
    parts = []
    emulate = partial(emulator.run, saturate=saturate)
    for logits, counts in map_batches(emulate, packed, rows, preprocessing, BATCH_SIZE, workers):
        parts.append(logits)
        saturated.update(counts)
    return np.concatenate(parts), saturated


def as_onnxruntime_reads_it(model: onnx.ModelProto) -> onnx.ModelProto:
    """Return the model after the rewriting that ONNX Runtime does on every processor before it chooses kernels.

    It is no formality: a layer with float weights between two uint8 tensors gets int8 weights there, with one
    scale for the whole tensor (core/optimizer/qdq_transformer/weight_bias_quantization.cc).
    """
    return optimized(model, onnxruntime.GraphOptimizationLevel.ORT_ENABLE_BASIC)


def _integer_layers(graph: onnx.GraphProto) -> list[tuple[onnx.NodeProto, NDArray[np.int8]]]:
    """Return the nodes that ONNX Runtime computes in integers, and their weights."""
    constants = {item.name: item for item in graph.initializer}
    makers = {name: node for node in graph.node for name in node.output}
    found = []
    for node in graph.node:
        sources = [makers[name] for name in node.input if name in makers and makers[name].op_type == "DequantizeLinear"]
        all_quantized = len(sources) == len(node.input)
        if node.op_type not in WEIGHTED or not all_quantized or sources[1].input[0] not in constants:
            continue
        # A matrix product of integers may give floats.
        if node.op_type == "MatMul" or _ends_in_uint8(graph, node.output[0], constants):
            found.append((node, numpy_helper.to_array(constants[sources[1].input[0]])))
    return found


def _ends_in_uint8(graph: onnx.GraphProto, name: str, constants: dict[str, onnx.TensorProto]) -> bool:
    """Return whether the tensor goes into one QuantizeLinear, if need be through an activation made needless by it."""
    consumers = [node for node in graph.node if name in node.input]
    if len(consumers) != 1 or any(name == output.name for output in graph.output):
        return False
    if consumers[0].op_type == "QuantizeLinear":
        return True
    after = [node for node in graph.node if consumers[0].output[0] in node.input]
    if consumers[0].op_type not in ("Relu", "Clip") or [node.op_type for node in after] != ["QuantizeLinear"]:
        return False
    limits = [float(numpy_helper.to_array(constants[limit])) for limit in consumers[0].input[1:]]
    low, high = (0.0, np.inf) if consumers[0].op_type == "Relu" else (*limits, *(-np.inf, np.inf)[len(limits) :])
    scale, zero_point = (float(numpy_helper.to_array(constants[limit])) for limit in after[0].input[1:3])
    return low <= -zero_point * scale and (LARGEST_ACTIVATION - zero_point) * scale <= high


def _at_risk(op_type: str, attributes: Attributes, weights: NDArray[np.int8]) -> bool:
    if op_type == "Conv" and is_depthwise(weights, attributes.get("group", 1)):
        return False
    matrix = in_order_of_the_kernel(weights) if op_type == "Conv" else _rows(op_type, attributes, weights)
    matrix = np.pad(matrix.astype(np.int32), ((0, 0), (0, matrix.shape[1] % 2)))
    return bool(can_exceed(matrix[:, 0::2], matrix[:, 1::2], LARGEST_ACTIVATION, LARGEST_ACTIVATION).any())


def _rows(op_type: str, attributes: Attributes, weights: NDArray[np.int8]) -> NDArray[np.int8]:
    """Return the weights of a layer with one row per output: as they are, or those of a matrix product turned."""
    return weights if op_type == "Conv" or attributes.get("transB") else weights.T


def _accumulate(op_type: str, attributes: Attributes, arguments: list[Quantized], saturate: bool) -> tuple[Any, int]:
    inputs, weights, *biases = arguments
    zero_point, shift = int(inputs.zero_point), int(weights.zero_point.ravel()[0])
    sums, count = _multiply(op_type, attributes, inputs, weights.values, saturate)
    # The kernels multiply what is stored; what the zero points add to every sum is taken off afterwards.
    stored = _rows(op_type, attributes, weights.values)
    added = zero_point * (stored.astype(np.int32) - shift).reshape(len(stored), -1).sum(axis=1)
    offsets = sum((bias.values for bias in biases), -added).astype(np.int32)
    sums = sums + offsets.reshape(-1, *[1] * (sums.ndim - 2 if op_type != "MatMul" else 0))
    if shift:
        sums = sums - shift * _multiply(op_type, attributes, inputs, np.ones_like(weights.values), False)[0]
    if op_type == "MatMul":  # channels lie last, and floats come out
        return sums.astype(np.float32) * (inputs.scale * weights.scale), count
    return Accumulated(sums, inputs.scale * weights.scale), count


def _multiply(
    op_type: str, attributes: Attributes, inputs: Quantized, weights: NDArray[np.int8], saturate: bool
) -> tuple[NDArray[np.int32], int]:
    if op_type == "Conv":
        return convolve_integers(inputs.values, weights, attributes, int(inputs.zero_point), saturate)
    matrix, rows = _rows(op_type, attributes, weights), inputs.values.reshape(-1, inputs.values.shape[-1])
    sums, count = sums_of_products(matrix, rows.T, saturate)
    return sums.T.reshape(*inputs.values.shape[:-1], len(matrix)), count


def _pool(images: Quantized) -> Accumulated:
    shifted_values = images.values.astype(np.int32) - images.zero_point.astype(np.int32)
    sums = shifted_values.sum(axis=(2, 3), keepdims=True, dtype=np.int32)
    return Accumulated(sums, images.scale, int(np.prod(images.values.shape[2:])))


def _quantize(values: Any, scale: NDArray[np.float32], zero_point: Array) -> NDArray[np.uint8]:
    if isinstance(values, Accumulated | Added | Averaged):
        return values.quantized(scale, zero_point)
    rounded = np.rint(_floats(values) / scale) + np.float32(zero_point)
    return np.clip(rounded, 0, LARGEST_ACTIVATION).astype(np.uint8)


def _floats(value: Any) -> Array:
    return value.floats if isinstance(value, Quantized | Added | Accumulated | Averaged) else value
