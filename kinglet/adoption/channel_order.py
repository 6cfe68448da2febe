"""The order of the colours, for networks that were trained on images with blue first."""

from __future__ import annotations

import copy

import numpy as np
import onnx
from onnx import numpy_helper

from kinglet.adoption.graph_edit import put_first

REVERSED = "channels_reversed"


def red_first(model: onnx.ModelProto) -> onnx.ModelProto:
    """Return an adopted model of blue-first pixels as one of red-first pixels; the given one is not changed.

    The first convolution's weights are turned around where it alone reads the image, which costs nothing;
    otherwise a node turns the image around.
    """
    turned = copy.deepcopy(model)
    graph = turned.graph
    readers = [node for node in graph.node if graph.input[0].name in node.input]
    stored = {item.name: item for item in graph.initializer}
    weights = {node.input[1] for node in readers if node.op_type == "Conv"}
    shared = [node for node in graph.node if weights & set(node.input) and node not in readers]
    plain = all(node.op_type == "Conv" and stored.get(node.input[1]) and _is_dense(node) for node in readers)
    if plain and not shared:
        for name in sorted(weights):
            values = np.ascontiguousarray(numpy_helper.to_array(stored[name])[:, ::-1])
            stored[name].CopyFrom(numpy_helper.from_array(values, name))
        return turned
    put_first(turned, "Gather", axis=1)
    graph.node[0].input.append(REVERSED)
    graph.initializer.append(numpy_helper.from_array(np.array([2, 1, 0], np.int64), REVERSED))
    return turned


def _is_dense(node: onnx.NodeProto) -> bool:
    """Return whether every output of a convolution reads all channels."""
    return all(item.i == 1 for item in node.attribute if item.name == "group")
