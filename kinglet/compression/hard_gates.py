"""Hard sigmoid and hard swish, for which ONNX Runtime has no integer kernel, written as what it has one for.

hard_sigmoid(x) = clip(alpha x + beta, 0, 1) is a depthwise convolution of one pixel whose uint8 result ends at 0 and 1:
one node in integers, and one rounding, instead of a conversion to float, the function, and a conversion back.

Source: Howard et al. 2019, "Searching for MobileNetV3", section 5.2 (the functions).
"""

from __future__ import annotations

import numpy as np
import onnx
from onnx import numpy_helper

GATES = ("HardSigmoid", "HardSwish")
LINE = ".hard-gate-line"


def write_hard_gates_as_convolutions(model: onnx.ModelProto) -> None:
    """Replace the hard sigmoids and hard swishes of convolutions' results, in place; the function stays the same.

    model: of float32, all nodes with names, opset 13 or newer. A convolution is called as the gate was, a product
    after it gets a name of its own. Gates after anything else stay.
    """
    graph = model.graph
    weights = {item.name: item for item in graph.initializer}
    channels = {
        node.output[0]: weights[node.input[1]].dims[0]
        for node in graph.node
        if node.op_type == "Conv" and node.input[1] in weights and len(weights[node.input[1]].dims) == 4
    }
    nodes: list[onnx.NodeProto] = []
    for node in graph.node:
        if node.op_type in GATES and node.input[0] in channels:
            nodes += _as_convolution(graph, node, channels[node.input[0]])
        else:
            nodes.append(node)
    del graph.node[:]
    graph.node.extend(nodes)


def gates_of(model: onnx.ModelProto) -> list[str]:
    """Return the names of what the convolutions written here give, before and after clipping: wanted in [0, 1]."""
    clips = [node for node in model.graph.node if node.op_type == "Clip" and node.input[0].endswith(LINE)]
    return [name for node in clips for name in (node.input[0], node.output[0])]


def _as_convolution(graph: onnx.GraphProto, node: onnx.NodeProto, n_channels: int) -> list[onnx.NodeProto]:
    attributes = {item.name: item.f for item in node.attribute}
    is_swish = node.op_type == "HardSwish"
    slope, shift = (1 / 6, 0.5) if is_swish else (attributes.get("alpha", 0.2), attributes.get("beta", 0.5))
    parts = {
        f"{node.name}.slopes": np.full((n_channels, 1, 1, 1), slope, np.float32),
        f"{node.name}.shifts": np.full(n_channels, shift, np.float32),
        f"{node.name}.zero": np.float32(0),
        f"{node.name}.one": np.float32(1),
    }
    graph.initializer.extend(numpy_helper.from_array(np.asarray(value), name) for name, value in parts.items())
    slopes, shifts, zero, one = parts
    source, output = node.input[0], node.output[0]
    gate, line = f"{node.name}.gate" if is_swish else output, f"{node.name}{LINE}"
    made = [
        onnx.helper.make_node("Conv", [source, slopes, shifts], [line], name=node.name, group=n_channels),
        onnx.helper.make_node("Clip", [line, zero, one], [gate], name=f"{node.name}.clip"),
    ]
    if is_swish:
        made.append(onnx.helper.make_node("Mul", [source, gate], [output], name=f"{node.name}.product"))
    return made
