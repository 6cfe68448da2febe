"""A detector's ONNX file with the suppression of overlapping boxes inside, for runtimes that have no numpy beside them.

What `kinglet.runtime.detection` does in numpy, in operators of ONNX, one image at a time.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from kinglet.models.onnx_graph import DETECTOR_OUTPUTS

# The second input: where in its square the image lies, left, top, right, bottom in input pixels.
INSIDE = "inside"
# What comes out, the surest object first.
OUTPUTS = ("detected_boxes", "detected_labels", "detected_scores")
PREFIX = "suppression"


def with_suppression(model: onnx.ModelProto, score: float, iou: float, most: int) -> onnx.ModelProto:
    """Return a detector that answers with objects.

    model: with the outputs `logits` (n, places, classes) and `boxes` (n, places, 4). score: the lowest that counts.
    iou: of two boxes of a class that overlap more, the surer one stays. most: objects of an image.
    The result takes one image, and beside it `inside`, float32 (4,): boxes are cut off there before they are compared.
    It gives `detected_boxes` float32 (m, 4), input pixels, `detected_labels` int64 (m,) and `detected_scores`
    float32 (m,), descending, m at most `most`. To the pixels of the image, boxes go by `Placement.to_image`.
    Raises ValueError for a model with other outputs.
    """
    if tuple(output.name for output in model.graph.output) != DETECTOR_OUTPUTS:
        raise ValueError(f"a detector has the outputs {' and '.join(DETECTOR_OUTPUTS)}")
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    graph = copy.graph
    graph.input[0].type.tensor_type.shape.dim[0].Clear()
    graph.input[0].type.tensor_type.shape.dim[0].dim_value = 1
    graph.input.append(helper.make_tensor_value_info(INSIDE, TensorProto.FLOAT, [4]))
    constants: dict[str, Any] = {
        "nothing": np.float32(0),
        "least": np.float32(-1),
        # The operator wants more than its threshold: the number before it lets the threshold itself pass.
        "score": np.nextafter(np.float32(score), np.float32(-1)),
        "iou": np.float32(iou),
        "most": np.array([most], np.int64),
        "zero": np.array([0], np.int64),
        "one": np.array([1], np.int64),
        "two": np.array([2], np.int64),
        "three": np.array([3], np.int64),
        "four": np.array([4], np.int64),
        "label_column": np.int64(1),
        "place_column": np.int64(2),
    }
    graph.initializer.extend(
        numpy_helper.from_array(np.asarray(value), f"{PREFIX}.{name}") for name, value in constants.items()
    )
    logits, boxes = DETECTOR_OUTPUTS
    nodes: list[tuple[Any, ...]] = [
        # The part of every box that lies in the image, and whether there is any.
        ("Slice", ["@" + INSIDE, "zero", "two"], "upper_left"),
        ("Slice", ["@" + INSIDE, "two", "four"], "lower_right"),
        ("Concat", ["upper_left", "upper_left"], "lowest", {"axis": 0}),
        ("Concat", ["lower_right", "lower_right"], "highest", {"axis": 0}),
        ("Max", ["@" + boxes, "lowest"], "from_there"),
        ("Min", ["from_there", "highest"], "cut"),
        ("Slice", ["cut", "zero", "two", "two"], "starts"),
        ("Slice", ["cut", "two", "four", "two"], "ends"),
        ("Sub", ["ends", "starts"], "sides"),
        ("ReduceMin", ["sides", "two"], "shorter"),
        ("Greater", ["shorter", "nothing"], "has_area"),
        # The surest of each class first, those that overlap it go.
        ("Sigmoid", ["@" + logits], "all_scores"),
        ("Where", ["has_area", "all_scores", "least"], "counted_scores"),
        ("Transpose", ["counted_scores"], "by_class", {"perm": [0, 2, 1]}),
        ("NonMaxSuppression", ["cut", "by_class", "most", "iou", "score"], "chosen"),
        # The surest of all classes.
        ("Slice", ["chosen", "one", "three", "one"], "class_and_place"),
        ("Squeeze", ["by_class", "zero"], "class_scores"),
        ("GatherND", ["class_scores", "class_and_place"], "scores"),
        ("Shape", ["scores"], "found"),
        ("Min", ["found", "most"], "count"),
        ("TopK", ["scores", "count"], ["@" + OUTPUTS[2], "order"]),
        ("Gather", ["chosen", "label_column"], "labels", {"axis": 1}),
        ("Gather", ["labels", "order"], "@" + OUTPUTS[1]),
        ("Gather", ["chosen", "place_column"], "places", {"axis": 1}),
        ("Gather", ["places", "order"], "ordered_places"),
        ("Squeeze", ["cut", "zero"], "cut_boxes"),
        ("Gather", ["cut_boxes", "ordered_places"], "@" + OUTPUTS[0]),
    ]
    for operator, inputs, made, *attributes in nodes:
        graph.node.append(node_of(operator, inputs, [made] if isinstance(made, str) else made, *attributes))
    del graph.output[:]
    kinds = (TensorProto.FLOAT, TensorProto.INT64, TensorProto.FLOAT)
    graph.output.extend(
        helper.make_tensor_value_info(name, kind, ["objects", 4] if name == OUTPUTS[0] else ["objects"])
        for name, kind in zip(OUTPUTS, kinds, strict=True)
    )
    onnx.checker.check_model(copy)
    return copy


def node_of(
    operator: str, inputs: list[str], outputs: list[str], attributes: dict[str, Any] | None = None
) -> onnx.NodeProto:
    """Return a node among tensors of this file's own; names that begin with @ are taken as they are behind it."""
    inputs, outputs = (
        [name[1:] if name.startswith("@") else f"{PREFIX}.{name}" for name in names] for names in (inputs, outputs)
    )
    return helper.make_node(operator, inputs, outputs, name=f"{PREFIX}/{outputs[0]}", **(attributes or {}))
