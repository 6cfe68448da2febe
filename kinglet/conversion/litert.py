"""From an ONNX file to a .tflite file that LiteRT, once TensorFlow Lite, computes with the same numbers.

Written directly, node by node, and not through litert-torch or onnx2tf: the first converts PyTorch networks, of
which an int8 file is none, and the second binds itself to other versions of numpy, ONNX and ONNX Runtime and to a
newer Python. Here every weight, scale and zero point of the ONNX file stays what it is: an activation of uint8 becomes
int8 with a zero point 128 lower, which stands for the same number.

Source: the operators' meaning, tensorflow.org/lite/performance/quantization_spec and tensorflow/lite/kernels.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx

from kinglet.conversion.convolution_window import Window
from kinglet.conversion.litert_graph import LiteRtGraph, Quantization
from kinglet.conversion.onnx_reading import OnnxReader
from kinglet.errors import KingletError
from kinglet.runtime.engines import RUNTIMES

UNSIGNED_TO_SIGNED = 128
# Versions of operators that first computed int8; 1 is that of float32.
INT8_VERSIONS = {"CONV_2D": 3, "DEPTHWISE_CONV_2D": 3, "FULLY_CONNECTED": 4, "ADD": 2, "MEAN": 2, "PAD": 2}


def convert_to_litert(model: Path, folder: Path) -> None:
    """Write model.tflite for an ONNX file into a folder; the same file gives the same bytes.

    It takes images as its format does, float32 (n, height, width, channels), and gives logits (n, n_classes).
    Raises KingletError if LiteRT is not installed, or names the first node that cannot be converted.
    """
    content = Converter(onnx.load(model), str(model)).convert()
    (folder / RUNTIMES["litert"].files[0]).write_bytes(content)


class Converter:
    """The graphs on both sides, and which tensor holds which of ONNX's values, in float32 or in integers."""

    def __init__(self, model: onnx.ModelProto, name: str) -> None:
        self.name = name
        self.onnx = OnnxReader(model)
        self.graph = LiteRtGraph()
        self.shapes: dict[str, tuple[int, ...]] = {}  # (1, height, width, channels), or (1, features)
        self.floats: dict[str, int] = {}
        self.integers: dict[str, int] = {}
        self.quantizations: dict[str, Quantization] = {}

    def convert(self) -> bytes:
        """Return the content of the .tflite file."""
        images, logits = self.onnx.graph.input[0], self.onnx.graph.output[0].name
        channels, height, width = (axis.dim_value for axis in images.type.tensor_type.shape.dim[1:])
        if not channels * height * width:
            raise KingletError(f"{self.name} cannot be converted for LiteRT: its input has no fixed size.")
        self.shapes[images.name] = (1, height, width, channels)
        self.floats[images.name] = model_input = self.graph.tensor(images.name, self.shapes[images.name], "float32")
        for node in self.onnx.graph.node:
            # Constants are read where they are needed; what was fused is there already.
            if node.output[0] not in self.shapes and not self.onnx.is_constant(node.output[0]):
                self._node(node)
        return self.graph.to_bytes(model_input, self._float(logits))

    def _node(self, node: onnx.NodeProto) -> None:
        convert = NODES.get(node.op_type)
        if convert is None:
            raise self._refusal(node, "LiteRT's file is written for " + ", ".join(NODES) + " only")
        rank = RANKS.get(node.op_type)
        if rank is not None and len(self.shapes[node.input[0]]) != rank:
            raise self._refusal(node, f"it works on {'images' if rank == 4 else 'features'} only")
        convert(self, node)

    def _refusal(self, node: onnx.NodeProto, reason: str) -> KingletError:
        return KingletError(f"{self.name} cannot be converted for LiteRT: node {node.name} ({node.op_type}): {reason}.")

    def _float(self, value: str) -> int:
        """Return the tensor that holds a value in float32, dequantized if it is there in integers only."""
        if value not in self.floats:
            self.floats[value] = self.graph.tensor(f"{value}.float32", self.shapes[value], "float32")
            self.graph.operator("DEQUANTIZE", [self.integers[value]], self.floats[value], version=2)
        return self.floats[value]

    def _outcome(self, node: onnx.NodeProto, shape: tuple[int, ...], in_integers: bool) -> tuple[int, str]:
        """Return the tensor that a node's result goes to, and the activation that is computed with it.

        Whatever is fused into the node counts as computed.
        """
        value, activation, fused = self.onnx.activation_after(node.output[0])
        for name in (node.output[0], *fused):
            self.shapes[name] = shape
        if in_integers:
            quantize = self.onnx.only_consumer(value)
            assert quantize is not None
            value = quantize.output[0]
            return self._integer_tensor(quantize, value, shape), activation
        self.floats[value] = self.graph.tensor(value, shape, "float32")
        return self.floats[value], activation

    def _integer_tensor(self, quantize: onnx.NodeProto, value: str, shape: tuple[int, ...]) -> int:
        scale, zero_point = self.onnx.scale_of(quantize)
        if zero_point.dtype != np.uint8:
            raise self._refusal(quantize, f"activations of {zero_point.dtype} are not of uint8")
        quantization = Quantization(scale.reshape(1), int(zero_point) - UNSIGNED_TO_SIGNED)
        tensor = self.graph.tensor(value, shape, "int8", quantization)
        for name in (value, *self.onnx.dequantized(value)):
            self.integers[name], self.shapes[name], self.quantizations[name] = tensor, shape, quantization
        return tensor

    def _computes_in_integers(self, node: onnx.NodeProto) -> bool:
        """Return whether all that a node reads and writes is quantized."""
        constants = [name for name in node.input if self.onnx.is_constant(name)]
        activations = [name for name in node.input if name not in constants]
        value, _, _ = self.onnx.activation_after(node.output[0])
        follower = self.onnx.only_consumer(value)
        return (
            all(name in self.integers for name in activations)
            and all(self.onnx.is_quantized_constant(name) for name in constants)
            and follower is not None
            and follower.op_type == "QuantizeLinear"
        )

    def quantize(self, node: onnx.NodeProto) -> None:
        """QuantizeLinear whose input was not computed in integers."""
        value, result = node.input[0], node.output[0]
        source = self.integers[value] if value in self.integers else self._float(value)
        scale, zero_point = self.onnx.scale_of(node)
        known = self.quantizations.get(value)
        if known and (known.scales[0], known.zero_point) == (scale, int(zero_point) - UNSIGNED_TO_SIGNED):
            for name in (result, *self.onnx.dequantized(result)):
                self.integers[name], self.shapes[name], self.quantizations[name] = source, self.shapes[value], known
            return
        tensor = self._integer_tensor(node, result, self.shapes[value])
        self.graph.operator("QUANTIZE", [source], tensor)

    def convolve(self, node: onnx.NodeProto) -> None:
        """Conv, whole or depthwise."""
        attributes = self.onnx.attributes(node)
        weights = self.onnx.constant(node.input[1])
        group, n_outputs = attributes.get("group", 1), weights.shape[0]
        _, height, width, channels = self.shapes[node.input[0]]
        depthwise = group == channels and group > 1
        if weights.ndim != 4 or not (group == 1 or depthwise) or attributes.get("auto_pad", b"NOTSET") != b"NOTSET":
            raise self._refusal(node, "only plain and depthwise convolutions of images with explicit padding are known")
        in_integers = self._computes_in_integers(node)
        window = Window(weights.shape[2:], attributes)
        shape = (1, *window.output_size(height, width), n_outputs)
        images, padding = self._pad(node.input[0], window, (height, width), in_integers)
        # From (outputs, inputs, height, width): depthwise filters lie beside each other along the last axis.
        axes, axis = ((1, 2, 3, 0), 3) if depthwise else ((0, 2, 3, 1), 0)
        inputs = [images, *self._weights_and_bias(node, axes, axis, in_integers)]
        output, activation = self._outcome(node, shape, in_integers)
        fields = {
            "padding": getattr(self.graph.schema.Padding, padding),
            "strideH": window.strides[0],
            "strideW": window.strides[1],
            "dilationHFactor": window.dilations[0],
            "dilationWFactor": window.dilations[1],
            "fusedActivationFunction": getattr(self.graph.schema.ActivationFunctionType, activation),
        }
        if depthwise:
            fields["depthMultiplier"] = n_outputs // channels
        name, options = ("DEPTHWISE_CONV_2D", "DepthwiseConv2DOptions") if depthwise else ("CONV_2D", "Conv2DOptions")
        self.graph.operator(name, inputs, output, version_of(name, in_integers), options, **fields)

    def _pad(self, value: str, window: Window, size: tuple[int, int], in_integers: bool) -> tuple[int, str]:
        """Return the tensor to convolve and the format's padding: "SAME" where that is what ONNX asks for."""
        tensor = self.integers[value] if in_integers else self._float(value)
        if not any(window.pads):
            return tensor, "VALID"
        if window.is_same(size):
            return tensor, "SAME"
        top, left, bottom, right = window.pads
        amounts = self.graph.constant(
            f"{value}.pads", np.array([[0, 0], [top, bottom], [left, right], [0, 0]], np.int32)
        )
        _, height, width, channels = self.shapes[value]
        shape = (1, height + top + bottom, width + left + right, channels)
        quantization = self.quantizations[value] if in_integers else None
        padded = self.graph.tensor(f"{value}.padded", shape, "int8" if in_integers else "float32", quantization)
        self.graph.operator("PAD", [tensor, amounts], padded, version_of("PAD", in_integers), "PadOptions")
        return padded, "VALID"

    def _weights_and_bias(
        self, node: onnx.NodeProto, axes: tuple[int, ...], axis: int, in_integers: bool
    ) -> tuple[int, int]:
        """Return the tensors of a layer's weights, their axes in this order, and of its bias."""
        if not in_integers:
            floats = self.onnx.constant(node.input[1]).transpose(axes)
            offsets = self.onnx.constant(node.input[2]) if len(node.input) > 2 else np.zeros(floats.shape[axis])
            return (
                self.graph.constant(node.input[1], floats.astype(np.float32)),
                self.graph.constant(f"{node.output[0]}.bias", offsets.astype(np.float32)),
            )
        stored, scales, zero_points = self.onnx.quantized_constant(node.input[1])
        if stored.dtype != np.int8 or zero_points.any():
            raise self._refusal(node, "weights must be of int8 around zero")
        weights = self.graph.constant(
            node.input[1], stored.transpose(axes), Quantization(scales.reshape(-1), axis=axis)
        )
        n_outputs = stored.transpose(axes).shape[axis]
        steps = (self.quantizations[node.input[0]].scales * scales.reshape(-1)).astype(np.float32)
        bias = np.zeros(n_outputs, np.int32)
        if len(node.input) > 2:
            integers, own_steps, _ = self.onnx.quantized_constant(node.input[2])
            if integers.dtype != np.int32 or not np.allclose(own_steps, steps, rtol=1e-6, atol=0):
                raise self._refusal(node, "the steps of its bias are not those of its sums")
            bias = integers
        return weights, self.graph.constant(f"{node.output[0]}.bias", bias, Quantization(steps))

    def multiply(self, node: onnx.NodeProto) -> None:
        """Gemm, the classifier."""
        attributes = self.onnx.attributes(node)
        if attributes.get("alpha", 1) != 1 or attributes.get("beta", 1) != 1 or attributes.get("transA", 0):
            raise self._refusal(node, "only the product of rows and weights plus a bias is known")
        axes = (0, 1) if attributes.get("transB", 0) else (1, 0)
        in_integers = self._computes_in_integers(node)
        rows = self.integers[node.input[0]] if in_integers else self._float(node.input[0])
        inputs = [rows, *self._weights_and_bias(node, axes, 0, in_integers)]
        n_outputs = self.onnx.constant(node.input[1]).transpose(axes).shape[0]
        output, activation = self._outcome(node, (1, n_outputs), in_integers)
        name = "FULLY_CONNECTED"
        self.graph.operator(
            name,
            inputs,
            output,
            version_of(name, in_integers),
            "FullyConnectedOptions",
            fusedActivationFunction=getattr(self.graph.schema.ActivationFunctionType, activation),
        )

    def add(self, node: onnx.NodeProto) -> None:
        """Add of two activations of one shape."""
        one, other = node.input
        if one not in self.shapes or self.shapes[one] != self.shapes.get(other):
            raise self._refusal(node, "only sums of two activations of one shape are known")
        in_integers = self._computes_in_integers(node)
        inputs = [self.integers[name] if in_integers else self._float(name) for name in node.input]
        output, activation = self._outcome(node, self.shapes[one], in_integers)
        function = getattr(self.graph.schema.ActivationFunctionType, activation)
        version = version_of("ADD", in_integers)
        self.graph.operator("ADD", inputs, output, version, "AddOptions", fusedActivationFunction=function)

    def pool(self, node: onnx.NodeProto) -> None:
        """GlobalAveragePool; the axes of the image are gone afterwards, as a Flatten would have it."""
        in_integers = self._computes_in_integers(node)
        images = self.integers[node.input[0]] if in_integers else self._float(node.input[0])
        axes = self.graph.constant(f"{node.output[0]}.axes", np.array([1, 2], np.int32))
        shape = (1, self.shapes[node.input[0]][-1])
        output, activation = self._outcome(node, shape, in_integers)
        if activation != "NONE":
            raise self._refusal(node, "no activation right after it is known")
        self.graph.operator("MEAN", [images, axes], output, version_of("MEAN", in_integers), "ReducerOptions")

    def flatten(self, node: onnx.NodeProto) -> None:
        """Flatten of what is flat already: another name for the same tensor."""
        value, result = node.input[0], node.output[0]
        if len(self.shapes[value]) != 2 or self.onnx.attributes(node).get("axis", 1) != 1:
            raise self._refusal(node, "only what a GlobalAveragePool has flattened is known")
        for known in (self.floats, self.integers, self.shapes, self.quantizations):
            if value in known:
                known[result] = known[value]  # type: ignore[assignment]

    def activate(self, node: onnx.NodeProto) -> None:
        """Relu, or Clip from 0 to 6, that follows no node that could compute it."""
        activation = self.onnx.activation_of(node)
        if activation is None:
            raise self._refusal(node, "only the bounds 0 and 6 are known")
        value = node.input[0]
        self.shapes[node.output[0]] = self.shapes[value]
        self.floats[node.output[0]] = self.graph.tensor(node.output[0], self.shapes[value], "float32")
        self.graph.operator(activation, [self._float(value)], self.floats[node.output[0]])


NODES: dict[str, Any] = {
    "QuantizeLinear": Converter.quantize,
    "Conv": Converter.convolve,
    "Gemm": Converter.multiply,
    "Add": Converter.add,
    "GlobalAveragePool": Converter.pool,
    "Flatten": Converter.flatten,
    "Relu": Converter.activate,
    "Clip": Converter.activate,
}


# How many axes the input of a node must have here: GlobalAveragePool leaves two, which not every node can go on with.
RANKS = {"Conv": 4, "GlobalAveragePool": 4, "Gemm": 2}


def version_of(operator: str, in_integers: bool) -> int:
    """Return the version of an operator that first computed what is asked for."""
    return INT8_VERSIONS[operator] if in_integers else 1
