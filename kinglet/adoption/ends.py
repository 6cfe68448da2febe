"""The two ends of a given model: its input, which must be a batch of images, and the output that names the classes."""

from __future__ import annotations

import onnx
from onnx import TensorProto

from kinglet.errors import KingletError


def the_image_input(inputs: list[onnx.ValueInfoProto], name: str) -> onnx.ValueInfoProto:
    """Return the model's only input; raises KingletError if it has several, or if it is no batch of images."""
    if len(inputs) != 1:
        listed = ", ".join(map(described, inputs)) or "none"
        raise KingletError(
            f"{name} has {len(inputs)} inputs ({listed}); an image classifier has one.",
            "Export the network with the image as its only input, and all else as constants.",
        )
    shape = shape_of(inputs[0])
    if len(shape) == 3 and (shape[0] in (1, 3) or shape[2] in (1, 3)):
        raise KingletError(
            f"{name} has no batch axis: its input is {described(inputs[0])}.",
            "Export it with inputs of shape (batch, channels, height, width).",
        )
    if len(shape) != 4 or (shape[1] not in (1, 3) and shape[3] not in (1, 3)):
        raise KingletError(
            f"{name} takes no images: its input is {described(inputs[0])}.",
            "A batch of images has shape (batch, channels, height, width) or (batch, height, width, channels), "
            "with 1 or 3 channels.",
        )
    return inputs[0]


def the_output(outputs: list[onnx.ValueInfoProto], wanted: str | None, name: str) -> onnx.ValueInfoProto:
    """Return the output of this name, or the only one; raises KingletError if that does not say which."""
    listed = ", ".join(map(described, outputs))
    if wanted is None and len(outputs) > 1:
        raise KingletError(
            f"{name} has {len(outputs)} outputs: {listed}.", "Say which holds the classes: --output-name NAME."
        )
    for item in outputs:
        if wanted in (None, item.name):
            return item
    raise KingletError(f"{name} has no output {wanted!r}.", f"It has {listed}.")


def shape_of(value: onnx.ValueInfoProto) -> list[int]:
    """Return the lengths of a tensor's axes, 0 for a free one; empty for a tensor of unknown shape."""
    return [dimension.dim_value for dimension in value.type.tensor_type.shape.dim]


def described(value: onnx.ValueInfoProto) -> str:
    """Return a tensor's name, type and shape in words."""
    kind = value.type.tensor_type
    dimensions = (str(item.dim_value or item.dim_param or "?") for item in kind.shape.dim)
    return f"{value.name}: {TensorProto.DataType.Name(kind.elem_type).lower()} ({', '.join(dimensions)})"


def set_shape(model: onnx.ModelProto, name: str, input_size: int | None) -> bool:
    """Fix height and width of the model's input, in place; return whether its pixels come last (NHWC).

    Raises KingletError for images that are not square, and where the size is free and not given, or the reverse.
    """
    value = model.graph.input[0]
    shape = shape_of(value)
    pixels_last = shape[1] not in (1, 3)
    edges = (1, 2) if pixels_last else (2, 3)
    known = {shape[axis] for axis in edges} - {0}
    if len(known) > 1:
        raise KingletError(
            f"{name} takes images of {shape[edges[1]]} x {shape[edges[0]]} pixels; Kinglet's are square.",
            "Export the network with square inputs.",
        )
    if not known and input_size is None:
        raise KingletError(
            f"{name} leaves height and width of its images open: its input is {described(value)}.",
            "Say for which size it was trained: --input-size 224, for one.",
        )
    size = known.pop() if known else input_size
    if input_size is not None and size != input_size:
        raise KingletError(
            f"{name} takes images of {size} pixels, not {input_size}: its axes are fixed.", "Leave out --input-size."
        )
    for axis in edges:
        value.type.tensor_type.shape.dim[axis].dim_value = size
    return pixels_last
