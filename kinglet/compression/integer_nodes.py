"""Which nodes of a float graph go to int8: the layers, and what stands between them where that is integers anyway.

ONNX Runtime has integer kernels for few operators. A node that has one is worth nothing in int8 between two that
have none: it then costs two conversions and rounds what was exact. So a node follows the tensors that reach it.
"""

from __future__ import annotations

import numpy as np
import onnx

# Computed in integers if their weights are stored. A matrix product's result stays in float: what follows it in a
# transformer is float, and a bias added to it afterwards would be rounded to 8 bits otherwise.
LAYERS = ("Conv", "Gemm", "MatMul")
FLOAT_RESULT = ("MatMul",)
# Computed in integers if what reaches them is integers: arithmetic, with a range of its own for the result ...
ARITHMETIC = ("Add", "Mul", "Sigmoid", "LeakyRelu", "AveragePool", "GlobalAveragePool", "Concat", "Clip", "Relu")
# ... and what only moves numbers, in the range of its input; Resize where it takes the nearest.
MOVES = ("Flatten", "MaxPool", "Reshape", "Transpose", "Squeeze", "Unsqueeze", "Resize")
OPERATORS = (*LAYERS, *ARITHMETIC, *MOVES)
# Activations without an integer kernel. Around them stand integers, so that what they make is brought to integers
# again, and whatever reads it can be computed so too.
POINTWISE = ("HardSigmoid", "HardSwish", "Elu", "Selu", "Celu", "Gelu", "Mish", "Swish", "Tanh", "Softplus", "PRelu")


def quantized_layers(model: onnx.ModelProto) -> list[onnx.NodeProto]:
    """Return the nodes with stored weights, float or quantized, that can be computed in integers, in graph order."""
    stored = stored_tensors(model)
    return [node for node in model.graph.node if is_layer(node, stored)]


def stored_tensors(model: onnx.ModelProto) -> set[str]:
    """Return the names of the tensors that a model stores, as they are or in integers with their scale."""
    stored = {item.name for item in model.graph.initializer}
    dequantized = (node for node in model.graph.node if node.op_type == "DequantizeLinear")
    return stored | {node.output[0] for node in dequantized if node.input[0] in stored}


def is_layer(node: onnx.NodeProto, stored: set[str]) -> bool:
    """Return whether a node is a layer with weights of its own. stored: what the model stores."""
    return node.op_type in LAYERS and node.input[1] in stored and node.input[0] not in stored


def nodes_left_in_float(model: onnx.ModelProto) -> list[onnx.NodeProto]:
    """Return the nodes of `OPERATORS` that stay in float, in graph order.

    For what reaches them or what they hold; or, in a model with several outputs, because no layer follows: there
    boxes are put together out of what the layers say, and 8 bits of one scale are too few for that.
    """
    stored = {item.name: item for item in model.graph.initializer}
    # Tensors that are integers, or are brought to integers, where a layer reads them.
    integers = {model.graph.input[0].name}
    left = []
    decodes = len(model.graph.output) > 1
    before_layers = tensors_before_layers(model, set(stored)) if decodes else set()
    for node in model.graph.node:
        if is_layer(node, set(stored)):
            if node.op_type not in FLOAT_RESULT:
                integers.update(node.output)
        elif decodes and not before_layers.intersection(node.output):
            left += [node] * (node.op_type in OPERATORS)
        elif node.op_type in LAYERS or node.op_type not in OPERATORS:
            if node.op_type in POINTWISE and node.input[0] in integers:
                integers.update(node.output)
            elif node.op_type in LAYERS:
                left.append(node)
        elif _reads_integers(node, integers, stored):
            integers.update(node.output)
        else:
            left.append(node)
    return left


def tensors_before_layers(model: onnx.ModelProto, stored: set[str]) -> set[str]:
    """Return the names of the tensors that the result of some layer depends on. stored: what the model stores."""
    found: set[str] = set()
    for node in reversed(model.graph.node):
        if is_layer(node, stored) or found.intersection(node.output):
            found.update(node.input)
    return found


def _reads_integers(node: onnx.NodeProto, integers: set[str], stored: dict[str, onnx.TensorProto]) -> bool:
    attributes = {item.name: onnx.helper.get_attribute_value(item) for item in node.attribute}
    if node.op_type == "Resize" and attributes.get("mode", b"nearest") != b"nearest":
        return False
    if node.op_type in MOVES or node.op_type in ("Clip", "Relu", "LeakyRelu", "Sigmoid"):
        return node.input[0] in integers
    if node.op_type == "AveragePool" and attributes.get("ceil_mode") and attributes.get("count_include_pad"):
        # The integer kernel of ONNX Runtime 1.32 divides by the whole window where it reaches beyond the padding,
        # the float kernel by the part inside.
        return False
    for name in node.input:
        # One scale for a vector of constants costs those of its numbers that are small.
        if name in stored and np.prod(stored[name].dims) > 1:
            return False
        if name and name not in stored and name not in integers:
            return False
    return True
