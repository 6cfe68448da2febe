"""A quantized file in one form: pairs of QuantizeLinear and DequantizeLinear around float operators (QDQ).

ONNX Runtime's quantizer writes integer operators too (QOperator), NNCF and Neural Compressor write float
weights behind a QuantizeLinear. Everything else here reads one form only.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper, numpy_helper

from kinglet.compression.quantization import node_name
from kinglet.models.onnx_graph import constants_to_initializers, keep_only_needed
from kinglet.runtime.sessions import open_as_written

# Per-channel scales need it.
OPSET = 13
INTEGERS = ("QuantizeLinear", "DequantizeLinear")
# Nodes that quantize while they run: their scales are in no file.
DYNAMIC = ("DynamicQuantizeLinear", "ConvInteger", "MatMulInteger", "DynamicQuantizeMatMul", "MatMulIntegerToFloat")
# Operators on constants that may stand between a stored weight and its layer.
REARRANGING = ("Transpose", "Reshape", "Squeeze", "Unsqueeze", "Flatten", "Identity")


@dataclass(frozen=True)
class Operands:
    """How an integer operator is read: what is dequantized, what stays, and how the output is quantized.

    data: places of (integers, scale, zero point) triples. output: places of the output's scale and zero point.
    bias: place of an int32 bias in steps of the first two scales, None without one.
    """

    float_operator: str
    data: tuple[tuple[int, int, int], ...]
    output: tuple[int, int]
    bias: int | None = None


X, AB = ((0, 1, 2),), ((0, 1, 2), (3, 4, 5))
QOPERATORS = {
    "QLinearConv": Operands("Conv", AB, (6, 7), 8),
    "QLinearMatMul": Operands("MatMul", AB, (6, 7)),
    "QGemm": Operands("Gemm", AB, (7, 8), 6),
    "QLinearAdd": Operands("Add", AB, (6, 7)),
    "QLinearMul": Operands("Mul", AB, (6, 7)),
    "QLinearGlobalAveragePool": Operands("GlobalAveragePool", X, (3, 4)),
    "QLinearAveragePool": Operands("AveragePool", X, (3, 4)),
    "QLinearLeakyRelu": Operands("LeakyRelu", X, (3, 4)),
    "QLinearSigmoid": Operands("Sigmoid", X, (3, 4)),
    "QLinearSoftmax": Operands("Softmax", X, (3, 4)),
}
# What only the integer operator knows.
FOREIGN_ATTRIBUTES = ("channels_last", "opset")


def is_quantized(model: onnx.ModelProto) -> bool:
    """Return whether the file holds any operator that quantizes or computes in integers."""
    names = {*INTEGERS, *DYNAMIC, *QOPERATORS, "QLinearConcat"}
    return any(node.op_type in names for node in model.graph.node)


def dynamic_nodes(model: onnx.ModelProto) -> list[str]:
    """Return the names of nodes that choose their scales while they run."""
    return [node_name(node, index) for index, node in enumerate(model.graph.node) if node.op_type in DYNAMIC]


def to_qdq(model: onnx.ModelProto) -> onnx.ModelProto:
    """Return a copy in QDQ form, every node with a name of its own and every stored weight an integer initializer.

    A QOperator file becomes the same network in QDQ form: ONNX Runtime makes the same kernels of it.
    """
    copy = with_names(model)
    constants_to_initializers(copy)
    if any(node.op_type in QOPERATORS or node.op_type == "QLinearConcat" for node in copy.graph.node):
        _replace_integer_operators(copy)
    _fold_stored_weights(copy)
    return copy


def with_names(model: onnx.ModelProto) -> onnx.ModelProto:
    """Return a copy in which every node has a name of its own: the file's, or its operator and its place."""
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    taken: set[str] = set()
    for index, node in enumerate(copy.graph.node):
        name = node_name(node, index)
        node.name = name if name not in taken else f"{name}_{index}"
        taken.add(node.name)
    return copy


def _replace_integer_operators(model: onnx.ModelProto) -> None:
    constants = {item.name: numpy_helper.to_array(item) for item in model.graph.initializer}
    nodes: list[onnx.NodeProto] = []
    added: list[onnx.TensorProto] = []
    for node in model.graph.node:
        if node.op_type == "QLinearConcat":
            nodes += _concat_in_qdq(node)
        elif node.op_type in QOPERATORS:
            nodes += _in_qdq(node, QOPERATORS[node.op_type], constants, added)
        else:
            nodes.append(node)
    del model.graph.node[:]
    model.graph.node.extend(nodes)
    model.graph.initializer.extend(added)
    main = next(item for item in model.opset_import if item.domain in ("", "ai.onnx"))
    if main.version < OPSET:
        raised = onnx.version_converter.convert_version(model, OPSET)
        model.CopyFrom(raised)


def _in_qdq(
    node: onnx.NodeProto,
    operands: Operands,
    constants: dict[str, NDArray[np.generic]],
    added: list[onnx.TensorProto],
) -> Iterator[onnx.NodeProto]:
    """Yield the nodes that stand for one integer operator."""
    inputs = []
    for place in operands.data:
        values, scale, zero_point = (node.input[index] for index in place)
        name = f"{node.name}.input_{place[0]}"
        axis = _weight_axis(node) if np.size(constants.get(scale, 0)) > 1 else None
        yield _dequantize([values, scale, zero_point], name, axis)
        inputs.append(name)
    if operands.bias is not None and len(node.input) > operands.bias and node.input[operands.bias]:
        name = f"{node.name}.bias"
        steps = np.ravel(constants[node.input[operands.data[0][1]]]) * np.ravel(
            constants[node.input[operands.data[1][1]]]
        )
        steps = np.asarray(steps if steps.size > 1 else steps[0], np.float32)
        added.append(numpy_helper.from_array(steps, f"{name}_scale"))
        stored = [node.input[operands.bias], f"{name}_scale"]
        yield _dequantize(stored, name, 0 if steps.ndim else None)
        inputs.append(name)
    attributes = {
        item.name: helper.get_attribute_value(item) for item in node.attribute if item.name not in FOREIGN_ATTRIBUTES
    }
    grid = [node.input[index] for index in operands.output if index < len(node.input) and node.input[index]]
    output = f"{node.name}.output" if grid else node.output[0]
    yield helper.make_node(operands.float_operator, inputs, [output], name=node.name, **attributes)
    if grid:
        yield helper.make_node("QuantizeLinear", [output, *grid], [node.output[0]], name=f"{node.name}.quantize")


def _weight_axis(node: onnx.NodeProto) -> int:
    """Return the axis of the output channels in the stored weight of an integer operator."""
    transposed = any(item.name == "transB" and item.i for item in node.attribute)
    return 0 if node.op_type == "QLinearConv" or transposed else 1


def _dequantize(inputs: list[str], output: str, axis: int | None) -> onnx.NodeProto:
    attributes: dict[str, Any] = {} if axis is None else {"axis": axis}
    return helper.make_node("DequantizeLinear", inputs, [output], name=f"{output}.dequantize", **attributes)


def _concat_in_qdq(node: onnx.NodeProto) -> Iterator[onnx.NodeProto]:
    names = []
    for place in range(2, len(node.input), 3):
        names.append(f"{node.name}.input_{place}")
        yield _dequantize(list(node.input[place : place + 3]), names[-1], None)
    axis = next(item.i for item in node.attribute if item.name == "axis")
    yield helper.make_node("Concat", names, [f"{node.name}.output"], name=node.name, axis=axis)
    grid = [f"{node.name}.output", node.input[0], node.input[1]]
    yield helper.make_node("QuantizeLinear", grid, [node.output[0]], name=f"{node.name}.quantize")


def _fold_stored_weights(model: onnx.ModelProto) -> None:
    """Compute what depends on constants only, up to the DequantizeLinear of a stored weight."""
    constants = {item.name: item for item in model.graph.initializer}
    kept = []
    for node in model.graph.node:
        # A weight that is dequantized stays as it is: its integers are what is looked at.
        foldable = node.op_type == "QuantizeLinear" or node.op_type in REARRANGING
        if foldable and all(name in constants for name in node.input if name):
            constants[node.output[0]] = numpy_helper.from_array(_computed(model, node, constants), node.output[0])
            model.graph.initializer.append(constants[node.output[0]])
        else:
            kept.append(node)
    del model.graph.node[:]
    model.graph.node.extend(kept)
    keep_only_needed(model)


def _computed(
    model: onnx.ModelProto, node: onnx.NodeProto, constants: dict[str, onnx.TensorProto]
) -> NDArray[np.generic]:
    graph = helper.make_graph(
        [node],
        "constant",
        [],
        [onnx.ValueInfoProto(name=node.output[0])],
        [constants[name] for name in dict.fromkeys(node.input) if name],
    )
    alone = helper.make_model(graph, opset_imports=model.opset_import, ir_version=model.ir_version)
    return np.asarray(open_as_written(alone.SerializeToString()).run(None, {})[0])
