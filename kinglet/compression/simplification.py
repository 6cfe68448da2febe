"""A float graph of any exporter written with the operators that the quantizer and the emulation know.

Constants are folded, batch normalizations go into their convolutions, additions into their matrix products; padding
is written out in numbers. The function stays the same up to the order of sums in float32.
"""

from __future__ import annotations

import numpy as np
import onnx
import onnxruntime
from onnx import numpy_helper

from kinglet.compression.fusion import optimized
from kinglet.models.onnx_graph import constants_to_initializers

BASIC = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_BASIC
SPATIAL = {2, 3}
Shapes = dict[str, list[int]]


def simplify(model: onnx.ModelProto) -> onnx.ModelProto:
    """Return the float `model` in simpler operators, with its metadata; the given one is not changed.

    model: as `kinglet.adoption.adopt` returns it. What has no simpler form stays as it is.
    """
    simple = optimized(model, BASIC)
    constants_to_initializers(simple)
    shapes = _known_shapes(simple)
    for node in list(simple.graph.node):
        if node.op_type == "Conv":
            _write_out_padding(simple, node, shapes)
        elif node.op_type == "ReduceMean":
            _as_global_pooling(simple, node, shapes)
        elif node.op_type == "MatMul":
            _as_gemm(simple, node, shapes)
    for node in simple.graph.node:
        if node.op_type == "Gemm":
            _with_rows_of_outputs(simple, node)
    _drop_what_is_unused(simple)
    del simple.metadata_props[:]
    simple.metadata_props.MergeFrom(model.metadata_props)
    return simple


def _write_out_padding(model: onnx.ModelProto, node: onnx.NodeProto, shapes: Shapes) -> None:
    """Replace `auto_pad` by numbers: the emulation of other processors reads these."""
    attributes = {item.name: onnx.helper.get_attribute_value(item) for item in node.attribute}
    kind = attributes.get("auto_pad", b"NOTSET")
    edges = shapes.get(node.input[0], [])[2:]
    weight = next((item for item in model.graph.initializer if item.name == node.input[1]), None)
    if kind == b"NOTSET" or weight is None or (kind != b"VALID" and (not edges or 0 in edges)):
        return
    before, after = [0] * len(weight.dims[2:]), [0] * len(weight.dims[2:])
    if kind != b"VALID":
        steps = attributes.get("strides", [1] * len(edges))
        spread = attributes.get("dilations", [1] * len(edges))
        for axis, (edge, size) in enumerate(zip(edges, weight.dims[2:], strict=True)):
            reach = (-(-edge // steps[axis]) - 1) * steps[axis] + (size - 1) * spread[axis] + 1
            total = max(reach - edge, 0)
            less, more = total // 2, total - total // 2
            before[axis], after[axis] = (less, more) if kind == b"SAME_UPPER" else (more, less)
    kept = [item for item in node.attribute if item.name not in ("auto_pad", "pads")]
    del node.attribute[:]
    node.attribute.extend([*kept, onnx.helper.make_attribute("pads", [*before, *after])])


def _as_global_pooling(model: onnx.ModelProto, node: onnx.NodeProto, shapes: Shapes) -> None:
    """Turn a mean over height and width into GlobalAveragePool, which the runtime computes in integers."""
    attributes = {item.name: onnx.helper.get_attribute_value(item) for item in node.attribute}
    axes = attributes.get("axes")
    if axes is None and len(node.input) > 1:
        stored = next((item for item in model.graph.initializer if item.name == node.input[1]), None)
        axes = None if stored is None else numpy_helper.to_array(stored).tolist()
    if axes is None or {axis % 4 for axis in axes} != SPATIAL or len(shapes.get(node.input[0], [])) != 4:
        return
    pooled = node.output[0] if attributes.get("keepdims", 1) else f"{node.output[0]}.pooled"
    place = list(model.graph.node).index(node)
    source, output, name = node.input[0], node.output[0], node.name
    model.graph.node.remove(node)
    if pooled != output:
        model.graph.node.insert(place, onnx.helper.make_node("Flatten", [pooled], [output], name=f"{name}.flat"))
    model.graph.node.insert(place, onnx.helper.make_node("GlobalAveragePool", [source], [pooled], name=name))


def _as_gemm(model: onnx.ModelProto, node: onnx.NodeProto, shapes: Shapes) -> None:
    """Turn a product of rows with a stored matrix into Gemm, which takes a bias."""
    stored = next((item for item in model.graph.initializer if item.name == node.input[1]), None)
    if stored is not None and len(stored.dims) == 2 and len(shapes.get(node.input[0], [])) == 2:
        node.op_type = "Gemm"


def _with_rows_of_outputs(model: onnx.ModelProto, node: onnx.NodeProto) -> None:
    """Store the weights of a Gemm with one row per output, which rounding by layer reads."""
    attributes = {item.name: onnx.helper.get_attribute_value(item) for item in node.attribute}
    stored = next((item for item in model.graph.initializer if item.name == node.input[1]), None)
    readers = [other for other in model.graph.node if node.input[1] in other.input]
    if stored is None or attributes.get("transB") or len(readers) > 1:
        return
    kept = [item for item in node.attribute if item.name != "transB"]
    del node.attribute[:]
    node.attribute.extend([*kept, onnx.helper.make_attribute("transB", 1)])
    rows = np.ascontiguousarray(numpy_helper.to_array(stored).T)
    stored.CopyFrom(numpy_helper.from_array(rows, stored.name))


def _drop_what_is_unused(model: onnx.ModelProto) -> None:
    """Forget stored tensors that nothing reads, shapes, and the operator sets that the runtime lists all of."""
    read = {name for node in model.graph.node for name in node.input}
    stored = [item for item in model.graph.initializer if item.name in read]
    del model.graph.initializer[:], model.graph.value_info[:]
    model.graph.initializer.extend(stored)
    domains = {node.domain for node in model.graph.node} | {""}
    sets = [item for item in model.opset_import if item.domain in domains]
    del model.opset_import[:]
    model.opset_import.extend(sets)


def _known_shapes(model: onnx.ModelProto) -> Shapes:
    """Return the shapes of all tensors that can be told, by name; 0 for an axis of any length."""
    graph = onnx.shape_inference.infer_shapes(model).graph
    return {
        item.name: [dimension.dim_value for dimension in item.type.tensor_type.shape.dim]
        for item in (*graph.input, *graph.value_info, *graph.output)
    }
