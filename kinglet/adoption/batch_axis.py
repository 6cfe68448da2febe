"""A batch axis of any length, for a graph that was exported with a fixed one."""

from __future__ import annotations

import numpy as np
import onnx
from onnx import numpy_helper

BATCH = "batch"


def free_batch_axis(model: onnx.ModelProto) -> None:
    """Let the first axis of the model's one input and one output have any length; in place.

    Shapes that the exporter wrote down as constants are freed where a Reshape or an Expand takes them. That is
    right for nearly every classifier and cannot be for all: whoever calls it compares the answers. Constants
    must be initializers. The shapes of all other tensors are forgotten.
    """
    value = model.graph.input[0]
    fixed = value.type.tensor_type.shape.dim[0].dim_value
    if fixed:
        shapes = _known_shapes(model)
        constants = {item.name: item for item in model.graph.initializer}
        for number, node in enumerate(model.graph.node):
            if node.op_type not in ("Reshape", "Expand") or node.input[1] not in constants:
                continue
            shape = numpy_helper.to_array(constants[node.input[1]]).tolist()
            if shape and shape[0] == fixed:
                shape[0] = _free_length(node, shape, fixed, shapes.get(node.input[0], []))
                # A copy: another node may share the constant.
                free = numpy_helper.from_array(np.array(shape, np.int64), f"{node.input[1]}.free_{number}")
                model.graph.initializer.append(free)
                node.input[1] = free.name
    del model.graph.value_info[:]
    for end in (value, model.graph.output[0]):
        if end.type.tensor_type.shape.dim:
            end.type.tensor_type.shape.dim[0].dim_param = BATCH


def _free_length(node: onnx.NodeProto, shape: list[int], fixed: int, known: list[int]) -> int:
    """Return what stands for the batch's length in the shape that a node takes."""
    if node.op_type == "Expand":
        return 1  # as long as the tensor itself
    takes_zero = any(item.name == "allowzero" and item.i for item in node.attribute)
    copies_input = not known or known[0] == fixed
    if copies_input and not takes_zero:
        return 0
    return fixed if -1 in shape else -1


def _known_shapes(model: onnx.ModelProto) -> dict[str, list[int]]:
    """Return the shapes of the tensors that can be told, by name; 0 for an axis of unknown length."""
    try:
        graph = onnx.shape_inference.infer_shapes(model).graph
    except onnx.shape_inference.InferenceError:
        return {}
    return {
        item.name: [dimension.dim_value for dimension in item.type.tensor_type.shape.dim]
        for item in (*graph.input, *graph.value_info)
    }
