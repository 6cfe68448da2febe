"""Quantization-aware training of an int8 file itself: its weights, biases and the sizes of its steps are learned.

The graph of the QDQ file is computed node by node in torch, so that what is trained is what the file will hold. A
step is learned as a factor of its calibrated size: Adam moves all factors alike, whatever the size of the step.

Source: Esser et al. 2020, "Learned Step Size Quantization", equations 1 to 5: the gradient of a step, and its scale
of 1 / sqrt(n Q), with n values that share the step and Q its largest level.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from onnx import helper, numpy_helper
from torch import Tensor, nn
from torch.nn import functional

from kinglet.compression.calibration import FixedRange
from kinglet.compression.pixel_input import store
from kinglet.errors import KingletError

# A step never shrinks below this share of its calibrated size.
SMALLEST_FACTOR = 0.01
ACTIVATION_LEVELS = (0, 255)
WEIGHT_LIMITS = {7: 64, 8: 127}
# What ONNX Runtime's writer appends to the name of an output before it is quantized.
OF_OUTPUT = "_QuantizeLinear_Input"


class Rounded(torch.autograd.Function):
    """Values rounded to whole steps within the levels of an integer, with the gradients of learned step sizes."""

    @staticmethod
    def forward(
        ctx: Any, values: Tensor, step: Tensor, zero_point: int, levels: tuple[int, int], gradient_scale: float
    ) -> Tensor:
        """Return the values as the integers will give them back; step: one, or one per channel with axes of 1."""
        low, high = levels[0] - zero_point, levels[1] - zero_point
        in_steps = values / step
        ctx.save_for_backward(in_steps, step)
        ctx.low, ctx.high, ctx.gradient_scale = low, high, gradient_scale
        return in_steps.round().clamp_(low, high) * step

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor, None, None, None]:
        """Return the gradients of the values (equation 5) and of the steps (equation 3)."""
        in_steps, step = ctx.saved_tensors
        is_inside = (in_steps > ctx.low) & (in_steps < ctx.high)
        levels = in_steps.round().clamp_(ctx.low, ctx.high)
        of_step = gradient * torch.where(is_inside, levels - in_steps, levels)
        return gradient * is_inside, of_step.sum_to_size(step.shape) * ctx.gradient_scale, None, None, None


@dataclass(frozen=True)
class Learned:
    """What a training leaves: the int8 file, the float model of its weights, and the ranges of its activations."""

    quantized: onnx.ModelProto
    source: onnx.ModelProto
    ranges: dict[str, FixedRange]


class SimulatedFile(nn.Module):
    """An int8 file of `quantize_static` as a network that can be trained, starting from the float weights.

    quantized: the file, taking floats. source: the float model that it was made from. weight_bits: 8 or 7. Takes
    what the file takes and gives its logits.
    Raises KingletError if the file holds an operator that cannot be trained here.
    """

    def __init__(self, quantized: onnx.ModelProto, source: onnx.ModelProto, weight_bits: int) -> None:
        super().__init__()
        unknown = untrainable_operators(quantized)
        if unknown:
            raise KingletError(f"{', '.join(unknown)} cannot be trained with learned steps.")
        self._model, self._source = quantized, source
        limit = WEIGHT_LIMITS[weight_bits]
        self._weight_levels = (-limit, limit)
        self._stored = {item.name: numpy_helper.to_array(item) for item in quantized.graph.initializer}
        self._floats = {item.name: numpy_helper.to_array(item) for item in source.graph.initializer}
        self._makers = {name: node for node in quantized.graph.node for name in node.output}
        # Of activations and of weights by the name of their scale in the file, of weights and biases by their own.
        self.factors, self.values = nn.ParameterDict(), nn.ParameterDict()
        self._layers = [node for node in quantized.graph.node if node.op_type in ("Conv", "Gemm")]
        first = min(list(quantized.graph.node).index(layer) for layer in self._layers)
        for place, node in enumerate(quantized.graph.node):
            # The step of the input stays: for pixels it is exact.
            if node.op_type == "QuantizeLinear" and place > first:
                self.factors.setdefault(key_of(node.input[1]), nn.Parameter(torch.ones(())))
        for layer in self._layers:
            self._add_layer(layer)
        for name, value in self._stored.items():
            self.register_buffer(key_of(name), torch.from_numpy(np.array(value)), persistent=False)

    def _add_layer(self, layer: onnx.NodeProto) -> None:
        for name in layer.input[1:]:
            maker = self._makers.get(name)
            if maker is None:
                self.values[key_of(name)] = nn.Parameter(torch.from_numpy(self._stored[name].copy()))
                continue
            integers, scale = (self._stored[part] for part in maker.input[:2])
            shape = [-1] + [1] * (integers.ndim - 1)
            value = integers.astype(np.float32) * (scale.reshape(shape) if scale.ndim else scale)
            if integers.dtype == np.int8:
                value = self._floats.get(maker.input[0].removesuffix("_quantized"), value)
                self.factors[key_of(maker.input[1])] = nn.Parameter(torch.ones(scale.shape))
            self.values[key_of(name)] = nn.Parameter(torch.from_numpy(np.array(value, np.float32)))

    def step(self, scale: str) -> Tensor:
        """Return the size of a step, or of one per channel, by the name of its scale in the file."""
        calibrated: Tensor = getattr(self, key_of(scale))
        key = key_of(scale)
        return calibrated * self.factors[key].clamp_min(SMALLEST_FACTOR) if key in self.factors else calibrated

    def forward(self, images: Tensor) -> Tensor:
        """Return the logits, float32 (n, n_classes), for images as the file takes them."""
        graph = self._model.graph
        tensors = {graph.input[0].name: images}
        for node in graph.node:
            attributes = {item.name: helper.get_attribute_value(item) for item in node.attribute}
            if node.op_type == "QuantizeLinear":
                result = self._rounded(tensors[node.input[0]], node)
            elif node.op_type == "DequantizeLinear":
                if node.input[0] in self._stored:
                    continue
                result = tensors[node.input[0]]
            elif node.op_type in ("Conv", "Gemm"):
                result = LAYERS[node.op_type](attributes, tensors[node.input[0]], *self._weights(node))
            else:
                arguments = [
                    tensors[name] if name in tensors else getattr(self, key_of(name)) for name in node.input if name
                ]
                result = OPERATORS[node.op_type](attributes, *arguments)
            tensors[node.output[0]] = result
        return tensors[graph.output[0].name]

    def _rounded(self, values: Tensor, node: onnx.NodeProto) -> Tensor:
        scale = 1 / math.sqrt(values[0].numel() * ACTIVATION_LEVELS[1])
        zero_point = int(self._stored[node.input[2]])
        rounded: Tensor = Rounded.apply(values, self.step(node.input[1]), zero_point, ACTIVATION_LEVELS, scale)
        return rounded

    def _weights(self, layer: onnx.NodeProto) -> list[Tensor]:
        """Return the weights and the bias of a layer as its file will hold them."""
        maker = self._makers.get(layer.input[1])
        weight = self.values[key_of(layer.input[1])]
        rest = [self.values[key_of(name)] for name in layer.input[2:]]
        if maker is None:
            return [weight, *rest]
        step = self.step(maker.input[1])
        shaped = step.view(-1, *[1] * (weight.ndim - 1)) if step.ndim else step
        n_sharing = weight.numel() / max(1, step.numel())
        scale = 1 / math.sqrt(n_sharing * self._weight_levels[1])
        # A bias is stored in steps of the sums. It moves a value to the next level where that lies halfway.
        product = self.step(self._makers[layer.input[0]].input[1]).detach() * step.detach()
        rest = [bias + ((bias / product).round() * product - bias).detach() for bias in rest]
        return [Rounded.apply(weight, shaped, 0, self._weight_levels, scale), *rest]

    def learned(self) -> Learned:
        """Return what was learned as files; the network itself stays as it is."""
        quantized, source = onnx.ModelProto(), onnx.ModelProto()
        quantized.CopyFrom(self._model)
        source.CopyFrom(self._source)
        parts: dict[str, NDArray[Any]] = {}
        floats: dict[str, NDArray[Any]] = {}
        ranges = {}
        with torch.no_grad():
            for node in quantized.graph.node:
                if node.op_type == "QuantizeLinear":
                    step = self.step(node.input[1]).cpu().numpy()
                    parts[node.input[1]] = step
                    low, high = (level - int(self._stored[node.input[2]]) for level in ACTIVATION_LEVELS)
                    ranges[node.input[0].removesuffix(OF_OUTPUT)] = FixedRange(float(low * step), float(high * step))
            for layer in self._layers:
                self._write_layer(layer, parts, floats)
        store(quantized.graph, parts)
        store(source.graph, {name: value for name, value in floats.items() if name in self._floats})
        return Learned(quantized, source, ranges)

    def _write_layer(
        self, layer: onnx.NodeProto, parts: dict[str, NDArray[Any]], floats: dict[str, NDArray[Any]]
    ) -> None:
        source_layer = next((node for node in self._source.graph.node if node.name == layer.name), layer)
        names = dict(zip(layer.input[1:], source_layer.input[1:], strict=False))
        product = np.float32(1)
        for name in layer.input[1:]:
            value = self.values[key_of(name)].detach().cpu().numpy()
            floats[names.get(name, name)] = value
            maker = self._makers.get(name)
            if maker is None:
                parts[name] = value
            elif self._stored[maker.input[0]].dtype == np.int8:
                step = self.step(maker.input[1]).cpu().numpy()
                shaped = step.reshape(-1, *[1] * (value.ndim - 1)) if step.ndim else step
                levels = np.clip(np.rint(value / shaped), *self._weight_levels)
                parts |= {maker.input[0]: levels.astype(np.int8), maker.input[1]: step}
                inputs = self._makers[layer.input[0]]
                product = (self.step(inputs.input[1]).cpu().numpy() * step).astype(np.float32)
            else:
                # A float layer's bias keeps its scale, small enough to be exact.
                scale = product if np.ndim(product) else self._stored[maker.input[1]]
                limits = np.iinfo(np.int32)
                integers = np.clip(np.rint(value.astype(np.float64) / scale), limits.min, limits.max)
                parts |= {maker.input[0]: integers.astype(np.int32), maker.input[1]: np.asarray(scale, np.float32)}


def key_of(name: str) -> str:
    """Return a tensor's name as torch allows it for a parameter or a buffer."""
    return f"of:{name.replace('.', '/')}"


def untrainable_operators(quantized: onnx.ModelProto) -> list[str]:
    """Return the names of the file's operators that cannot be trained here, sorted."""
    known = {"QuantizeLinear", "DequantizeLinear", *LAYERS, *OPERATORS}
    return sorted({node.op_type for node in quantized.graph.node} - known)


def convolve(attributes: dict[str, Any], images: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """Return a Conv."""
    top, left, bottom, right = attributes.get("pads", [0, 0, 0, 0])
    padding: Any = (top, left)
    if (top, left) != (bottom, right):
        images, padding = functional.pad(images, (left, right, top, bottom)), 0
    return functional.conv2d(
        images,
        weight,
        bias,
        tuple(attributes.get("strides", (1, 1))),
        padding,
        tuple(attributes.get("dilations", (1, 1))),
        attributes.get("group", 1),
    )


def multiply(attributes: dict[str, Any], rows: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """Return a Gemm."""
    product = attributes.get("alpha", 1.0) * (rows @ (weight.T if attributes.get("transB") else weight))
    return product if bias is None else product + attributes.get("beta", 1.0) * bias


def pad(_: dict[str, Any], images: Tensor, pads: Tensor, value: Tensor) -> Tensor:
    """Return a Pad of images with a constant."""
    before, after = pads.view(2, -1).tolist()
    around = [edge for pair in zip(before[::-1], after[::-1], strict=True) for edge in pair]
    return functional.pad(images, around, value=float(value))


LAYERS: dict[str, Callable[..., Tensor]] = {"Conv": convolve, "Gemm": multiply}
OPERATORS: dict[str, Callable[..., Tensor]] = {
    "Add": lambda _, one, other: one + other,
    "Mul": lambda _, one, other: one * other,
    "Relu": lambda _, values: functional.relu(values),
    "Clip": lambda _, values, low=None, high=None: values.clamp(low, high),
    "Sigmoid": lambda _, values: values.sigmoid(),
    "GlobalAveragePool": lambda _, images: images.mean((2, 3), keepdim=True),
    "Flatten": lambda attributes, values: values.flatten(attributes.get("axis", 1)),
    "Concat": lambda attributes, *values: torch.cat(values, attributes["axis"]),
    "Identity": lambda _, values: values,
    "Pad": pad,
}
