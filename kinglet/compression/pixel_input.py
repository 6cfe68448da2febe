"""int8 files that take pixels as they are: uint8, channels last, the normalization folded into the first layer.

A pixel is a uint8 already. With one scale and one whole zero point for all channels, QuantizeLinear of a normalized
pixel gives the pixel back, so that it can go, and with it the conversion to float before it. Channels are brought to
one scale and zero point in the float model, where only weights change:

    W_c (p_c - m_c) / s_c  =  W_c s / s_c (p_c - z) / s  +  W_c (z - m_c) / s_c

with s_c and m_c in pixels, s and z those that all channels share. What is added last is a bias. The layer's own
padding would then be z, and has to be m_c: where that is more than half a pixel apart, a frame is laid around the
pixels before, of each channel's own colour.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from kinglet.compression.calibration import Range
from kinglet.compression.qdq import keep_in_float
from kinglet.models.onnx_graph import add_metadata, read_metadata
from kinglet.runtime.preprocessing import Preprocessing
from kinglet.runtime.sessions import INPUT_NAME

LARGEST_PIXEL = 255
# Half a pixel is what rounding a zero point costs in any case.
LARGEST_SHIFT = 0.5
# Tensors, and the nodes that make them: the images with zeros around them, with a frame around them, as uint8.
WIDENED, FRAMED, STORED = f"{INPUT_NAME}_widened", f"{INPUT_NAME}_framed", f"{INPUT_NAME}_uint8"
# What the nodes above read beside tensors.
PADS, ZERO, FRAME = f"{WIDENED}.pads", f"{WIDENED}.zero", f"{FRAMED}.frame"
CHANNELS_FIRST = (0, 3, 1, 2)
# The name of the preprocessing in a model's metadata.
PREPROCESSING = "preprocessing"


@dataclass(frozen=True)
class Grid:
    """Where whole pixels lie after normalization: the pixel that becomes 0, and the step from one to the next."""

    zero_point: int
    step: float

    @classmethod
    def of(cls, preprocessing: Preprocessing) -> Grid:
        """Return the grid of images whose channels are normalized alike."""
        mean, deviation = preprocessing.mean[0], preprocessing.std[0]
        return cls(round(LARGEST_PIXEL * mean), 1 / (LARGEST_PIXEL * deviation))

    @property
    def range(self) -> Range:
        """The lowest and the highest value."""
        return -self.zero_point * self.step, (LARGEST_PIXEL - self.zero_point) * self.step


@dataclass(frozen=True)
class Frame:
    """What is laid around the pixels of an image.

    pads: pixels at the top, left, bottom, right. colours: a pixel value per channel. size: the image's edge.
    """

    pads: tuple[int, ...]
    colours: tuple[int, ...]
    size: int

    def around(self, inside: int) -> NDArray[np.int64]:
        """Return a framed image whose inner pixels have this value, (height, width, channels)."""
        top, left, bottom, right = self.pads
        image = np.full((top + self.size + bottom, left + self.size + right, len(self.colours)), self.colours)
        image[top : top + self.size, left : left + self.size] = inside
        return image


def share_normalization(
    model: onnx.ModelProto, preprocessing: Preprocessing
) -> tuple[onnx.ModelProto, Preprocessing] | None:
    """Return a float model that does the same on images whose channels are normalized alike, and this normalization.

    The same, that is, up to half a pixel in the padding, and float rounding elsewhere. None where the graph does not
    allow it: the images have to go into one convolution with stored weights, and nowhere else; or where a mean is no
    colour that a pixel can have.
    """
    means = LARGEST_PIXEL * np.asarray(preprocessing.mean, np.float64)
    if first_convolution(model) is None or np.abs(means - np.clip(means, 0, LARGEST_PIXEL)).max() > LARGEST_SHIFT:
        return None
    deviations = LARGEST_PIXEL * np.asarray(preprocessing.std, np.float64)
    deviation = float(deviations.mean())
    zero_point = int(np.rint(means.mean()))
    shared = replace(
        preprocessing,
        mean=(zero_point / LARGEST_PIXEL,) * preprocessing.channels,
        std=(deviation / LARGEST_PIXEL,) * preprocessing.channels,
    )
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    layer = first_convolution(copy)
    assert layer is not None
    stored = {item.name: numpy_helper.to_array(item) for item in copy.graph.initializer}
    weights = stored[layer.input[1]].astype(np.float64)
    bias = stored[layer.input[2]] if len(layer.input) > 2 and layer.input[2] else np.float32(0)
    # Under other names: a tensor that another layer reads too must not change with it.
    parts = {
        f"{layer.input[1]}.of_pixels": weights * (deviation / deviations)[:, None, None],
        f"{layer.input[1]}.of_pixels.bias": bias + np.einsum("ochw,c->o", weights, (zero_point - means) / deviations),
    }
    store(copy.graph, {name: value.astype(np.float32) for name, value in parts.items()})
    layer.input[:] = [layer.input[0], *parts]
    pads = next((tuple(item.ints) for item in layer.attribute if item.name == "pads"), (0, 0, 0, 0))
    if any(pads) and np.abs(zero_point - means).max() > LARGEST_SHIFT:
        frame = Frame(pads, tuple(int(mean) for mean in np.rint(means)), preprocessing.input_size)
        put_first(copy.graph, frame_for_floats(copy.graph, frame, Grid.of(shared)))
        layer = next(node for node in copy.graph.node if INPUT_NAME in node.input and node.op_type == "Conv")
        layer.input[0] = FRAMED
        next(item for item in layer.attribute if item.name == "pads").ints[:] = [0, 0, 0, 0]
    return finished(copy), shared


def first_convolution(model: onnx.ModelProto) -> onnx.NodeProto | None:
    """Return the convolution that alone reads the images, with stored weights in one group; None without one."""
    readers = [node for node in model.graph.node if INPUT_NAME in node.input]
    stored = {item.name: item.data_type for item in model.graph.initializer}
    if len(readers) != 1 or readers[0].op_type != "Conv":
        return None
    attributes = {item.name: helper.get_attribute_value(item) for item in readers[0].attribute}
    parts = [name for name in readers[0].input[1:] if name]
    in_one_group = attributes.get("group", 1) == 1 and attributes.get("auto_pad", b"NOTSET") == b"NOTSET"
    if not in_one_group or any(stored.get(name) != TensorProto.FLOAT for name in parts):
        return None
    return readers[0]


def pixel_ranges(preprocessing: Preprocessing) -> dict[str, Range]:
    """Return the ranges that whole pixels need, by tensor, of images whose channels are normalized alike."""
    whole = Grid.of(preprocessing).range
    return {INPUT_NAME: whole, FRAMED: whole}


def take_pixels(quantized: onnx.ModelProto, preprocessing: Preprocessing) -> onnx.ModelProto:
    """Return the int8 model with pixels as its input: uint8 (batch, size, size, channels).

    quantized: made from a model of `share_normalization`, with `pixel_ranges`. preprocessing: the normalization that
    goes with it. The integers after its input are those of the model that takes floats.
    """
    copy = onnx.ModelProto()
    copy.CopyFrom(quantized)
    graph, grid = copy.graph, Grid.of(preprocessing)
    frame = frame_in(graph, preprocessing.input_size, grid)
    nodes = frame_for_pixels(graph, frame) if frame else []
    source = FRAMED if frame else INPUT_NAME
    # Beside the layer's own: ONNX Runtime computes with channels last, and drops both.
    nodes.append(helper.make_node("Transpose", [source], [STORED], name=STORED, perm=CHANNELS_FIRST))
    kept = [copy_of(node) for node in graph.node if node.name not in (WIDENED, FRAMED)]
    readers, float_readers = [node for node in kept if source in node.input], set()
    if [node.op_type for node in readers] == ["QuantizeLinear"]:
        kept.remove(readers[0])
        rename_input(kept, readers[0].output[0], STORED)
    else:  # the first layer was left in float, and is to stay there
        float_readers = {node.name for node in readers}
        floats = f"{STORED}.dequantized"
        nodes.append(helper.make_node("DequantizeLinear", [STORED, *store_grid(graph, grid)], [floats], name=floats))
        rename_input(kept, source, floats)
    del graph.node[:]
    graph.node.extend([*nodes, *kept])
    keep_in_float(copy, float_readers)
    put_first(graph, [graph.node.pop() for _ in range(len(graph.node) - len(nodes) - len(kept))])
    set_input(graph, TensorProto.UINT8, (preprocessing.input_size, preprocessing.input_size, preprocessing.channels))
    return finished(copy)


def take_floats(model: onnx.ModelProto) -> onnx.ModelProto:
    """Return a model with normalized floats as its input: as it is, or as it was before `take_pixels`.

    Its metadata say how images are prepared for it. For runtimes and tools that know no other inputs.
    """
    written = read_metadata(model)
    preprocessing = Preprocessing.from_dict(written[PREPROCESSING]) if PREPROCESSING in written else None
    if preprocessing is None or not preprocessing.takes_pixels:
        return model
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    graph, grid = copy.graph, Grid.of(preprocessing)
    frame = frame_in(graph, preprocessing.input_size, grid)
    nodes = frame_for_floats(graph, frame, grid) if frame else []
    source = FRAMED if frame else INPUT_NAME
    nodes.append(helper.make_node("QuantizeLinear", [source, *store_grid(graph, grid)], [STORED], name=STORED))
    kept = [copy_of(node) for node in graph.node if node.name not in (WIDENED, FRAMED, STORED)]
    del graph.node[:]
    graph.node.extend([*nodes, *kept])
    set_input(graph, TensorProto.FLOAT, (preprocessing.channels, preprocessing.input_size, preprocessing.input_size))
    plain = replace(preprocessing, takes_pixels=False)
    add_metadata(copy, {**written, PREPROCESSING: plain.to_dict()})
    return finished(copy)


def frame_for_floats(graph: onnx.GraphProto, frame: Frame, grid: Grid) -> list[onnx.NodeProto]:
    """Return the nodes that frame normalized images, channels first."""
    image = (frame.around(grid.zero_point) - grid.zero_point) * grid.step
    return frame_nodes(graph, "Add", frame.pads, np.float32(0), image.astype(np.float32).transpose(2, 0, 1), axis=2)


def frame_for_pixels(graph: onnx.GraphProto, frame: Frame) -> list[onnx.NodeProto]:
    """Return the nodes that frame pixels, channels last."""
    # Either of the two is 0 everywhere. ONNX Runtime adds no uint8 numbers.
    return frame_nodes(graph, "BitwiseOr", frame.pads, np.uint8(0), frame.around(0).astype(np.uint8), axis=1)


def frame_nodes(
    graph: onnx.GraphProto, operator: str, pads: tuple[int, ...], zero: np.generic, image: NDArray[Any], axis: int
) -> list[onnx.NodeProto]:
    """Store what frames images, and return the nodes that do it; axis: where their height lies."""
    around = np.zeros((2, 4), np.int64)
    around[:, axis : axis + 2] = np.reshape(pads, (2, 2))
    store(graph, {PADS: around.ravel(), ZERO: zero, FRAME: image[None]})
    return [
        helper.make_node("Pad", [INPUT_NAME, PADS, ZERO], [WIDENED], name=WIDENED),
        helper.make_node(operator, [WIDENED, FRAME], [FRAMED], name=FRAMED),
    ]


def frame_in(graph: onnx.GraphProto, size: int, grid: Grid) -> Frame | None:
    """Return the frame that a graph lays around its images; None without one."""
    stored = {item.name: numpy_helper.to_array(item) for item in graph.initializer}
    if FRAME not in stored:
        return None
    image, around = stored[FRAME][0], stored[PADS].reshape(2, 4)
    is_float = image.dtype == np.float32
    height = 2 if is_float else 1
    pads = tuple(int(edge) for edge in around[:, height : height + 2].ravel())
    pixels = np.rint(image / grid.step).transpose(1, 2, 0) + grid.zero_point if is_float else image
    # The corner that the frame reaches to.
    corner = -1 if any(pads[2:]) else 0
    colours = pixels[corner, corner]
    return Frame(pads, tuple(int(colour) for colour in colours), size)


def set_input(graph: onnx.GraphProto, kind: int, shape: tuple[int, ...]) -> None:
    """Say what the graph takes: numbers of this kind, images of this shape."""
    batch = graph.input[0].type.tensor_type.shape.dim[0].dim_param or "batch"
    graph.input[0].CopyFrom(helper.make_tensor_value_info(INPUT_NAME, kind, [batch, *shape]))
    del graph.value_info[:]  # those of the other input would contradict it


def finished(model: onnx.ModelProto) -> onnx.ModelProto:
    """Return the model without tensors that no node reads, checked."""
    used = {name for node in model.graph.node for name in node.input}
    kept = [item for item in model.graph.initializer if item.name in used]
    del model.graph.initializer[:]
    model.graph.initializer.extend(kept)
    onnx.checker.check_model(model)
    return model


def copy_of(node: onnx.NodeProto) -> onnx.NodeProto:
    """Return a node that is not part of the graph: what is taken out of a graph is gone."""
    copy = onnx.NodeProto()
    copy.CopyFrom(node)
    return copy


def put_first(graph: onnx.GraphProto, nodes: list[onnx.NodeProto]) -> None:
    """Put nodes before all others."""
    kept = [copy_of(node) for node in graph.node]
    del graph.node[:]
    graph.node.extend([*nodes, *kept])


def store_grid(graph: onnx.GraphProto, grid: Grid) -> list[str]:
    """Store scale and zero point of the pixels; return their names."""
    parts = {f"{STORED}.scale": np.float32(grid.step), f"{STORED}.zero_point": np.uint8(grid.zero_point)}
    store(graph, parts)
    return list(parts)


def store(graph: onnx.GraphProto, parts: Mapping[str, Any]) -> None:
    """Store tensors by name, in place of others of these names."""
    kept = [item for item in graph.initializer if item.name not in parts]
    del graph.initializer[:]
    graph.initializer.extend(kept)
    graph.initializer.extend(numpy_helper.from_array(np.asarray(item), name) for name, item in parts.items())


def rename_input(nodes: Iterable[onnx.NodeProto], old: str, new: str) -> None:
    """Let all nodes that read `old` read `new`."""
    for node in nodes:
        for place, name in enumerate(node.input):
            if name == old:
                node.input[place] = new
