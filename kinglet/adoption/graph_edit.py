"""Small changes to the main graph of an ONNX model, in place."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import onnx
from onnx import TensorProto

# Operators that change a tensor's shape and none of its values.
SHAPE_ONLY = ("Identity", "Flatten", "Reshape", "Squeeze", "Unsqueeze")


def rename(model: onnx.ModelProto, old: str, new: str) -> None:
    """Give a tensor another name; one that has the new name already gets a free one."""
    if old == new:
        return
    names = {name for node in model.graph.node for name in (*node.input, *node.output)}
    names |= {item.name for item in (*model.graph.initializer, *model.graph.input, *model.graph.output)}
    if new in names:
        aside = f"{new}.inner"
        while aside in names:
            aside += "_"
        _replace(model, new, aside)
    _replace(model, old, new)


def _replace(model: onnx.ModelProto, old: str, new: str) -> None:
    for node in model.graph.node:
        node.input[:] = [new if name == old else name for name in node.input]
        node.output[:] = [new if name == old else name for name in node.output]
    graph = model.graph
    for item in (*graph.initializer, *graph.input, *graph.output, *graph.value_info):
        if item.name == old:
            item.name = new


def put_first(model: onnx.ModelProto, op_type: str, **attributes: Any) -> None:
    """Put a node between the model's input and all that reads it."""
    name = model.graph.input[0].name
    after = f"{name}.{op_type.lower()}"
    for node in model.graph.node:
        node.input[:] = [after if item == name else item for item in node.input]
    model.graph.node.insert(0, onnx.helper.make_node(op_type, [name], [after], name=after, **attributes))


def skip_casts(model: onnx.ModelProto) -> bool:
    """Take out the conversions to float32 that are all that reads the input; return whether that is so."""
    return _skip_first(model, lambda node: node.op_type == "Cast" and _attribute(node, "to") == TensorProto.FLOAT)


def skip_transposes(model: onnx.ModelProto, order: list[int]) -> bool:
    """Take out the transpositions of this order that are all that reads the input; return whether that is so."""
    return _skip_first(model, lambda node: node.op_type == "Transpose" and _attribute(node, "perm") == order)


def _skip_first(model: onnx.ModelProto, is_skipped: Callable[[onnx.NodeProto], bool]) -> bool:
    name = model.graph.input[0].name
    readers = [node for node in model.graph.node if name in node.input]
    outputs = {item.name for item in model.graph.output}
    if not all(is_skipped(node) and node.output[0] not in outputs for node in readers):
        return False
    for node in readers:
        model.graph.node.remove(node)
        _replace_inputs(model, node.output[0], name)
    return True


def remove_softmax(model: onnx.ModelProto) -> bool:
    """Take out a softmax, or its logarithm, that ends the model; return whether there was one.

    Only what changes shapes may follow it.
    """
    makers = {name: node for node in model.graph.node for name in node.output}
    node = makers.get(model.graph.output[0].name)
    while node is not None and node.op_type in SHAPE_ONLY:
        node = makers.get(node.input[0])
    if node is None or node.op_type not in ("Softmax", "LogSoftmax"):
        return False
    if node.output[0] == model.graph.output[0].name:
        model.graph.output[0].name = node.input[0]
    _replace_inputs(model, node.output[0], node.input[0])
    model.graph.node.remove(node)
    return True


def _replace_inputs(model: onnx.ModelProto, old: str, new: str) -> None:
    for node in model.graph.node:
        node.input[:] = [new if name == old else name for name in node.input]


def _attribute(node: onnx.NodeProto, name: str) -> Any:
    return next((onnx.helper.get_attribute_value(item) for item in node.attribute if item.name == name), None)
