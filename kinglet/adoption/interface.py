"""Any ONNX image classifier brought into the form that the rest of Kinglet knows.

One input `images`, float32 (batch, channels, size, size); one output `logits`, float32 (batch, n_classes); weights
in float32. Its answers stay what they were: the adopted graph and the given one are run on the same batches.
"""

from __future__ import annotations

import copy
from collections import Counter
from dataclasses import dataclass

import onnx
from onnx import TensorProto

from kinglet.adoption.agreement import compare_answers, widths_of
from kinglet.adoption.batch_axis import BATCH, free_batch_axis
from kinglet.adoption.ends import set_shape, the_image_input, the_output
from kinglet.adoption.graph_edit import (
    put_first,
    remove_softmax,
    rename,
    skip_casts,
    skip_transposes,
)
from kinglet.adoption.single_precision import has_halves, to_single_precision
from kinglet.errors import KingletError
from kinglet.models.onnx_graph import (
    INPUT_NAME,
    OUTPUT_NAME,
    add_metadata,
    constants_to_initializers,
    keep_only_needed,
    read_metadata,
    strip_origin,
)

# Quantization per channel needs the axis that DequantizeLinear has since then.
LOWEST_OPSET = 13
LOWEST_IR = 8  # what onnx writes for opset 13 to 18
QUANTIZED = (
    "QLinear",
    "QGemm",
    "QAttention",
    "QuantizeLinear",
    "DequantizeLinear",
    "DynamicQuantize",
    "Integer",
    "NBits",
)
CONTROL_FLOW = ("If", "Loop", "Scan")
FROM_PIXELS_LAST, TO_PIXELS_LAST = [0, 3, 1, 2], [0, 2, 3, 1]


@dataclass(frozen=True)
class Facts:
    """What an adopted model takes and gives: channels and edge length in pixels of its input, number of classes."""

    channels: int
    input_size: int
    n_classes: int


def facts_of(model: onnx.ModelProto) -> Facts:
    """Return the facts about a model that `adopt` returned."""
    _, channels, height, _ = (item.dim_value for item in model.graph.input[0].type.tensor_type.shape.dim)
    return Facts(channels, height, model.graph.output[0].type.tensor_type.shape.dim[1].dim_value)


def adopt(
    model: onnx.ModelProto,
    name: str,
    *,
    output: str | None = None,
    input_size: int | None = None,
    allow_quantized: bool = False,
) -> onnx.ModelProto:
    """Return the model as one that Kinglet knows, with the metadata that Kinglet put into it before, if any.

    name: what errors call it, its path. output: the name of the output to take where there are several. input_size:
    edge length in pixels for a model whose height and width are free. Pixels last (NHWC), float16, uint8 pixels,
    a fixed batch axis, a softmax at the end and an old opset are changed; a softmax left out changes no order
    of the classes.
    Raises KingletError for a model that takes no single image or does not give one number per class, that
    onnxruntime cannot run, that cannot be given a free batch axis, or that is quantized unless `allow_quantized`.
    """
    adopted = copy.deepcopy(model)
    refuse_unsuitable(adopted, name, allow_quantized)
    constants_to_initializers(adopted)
    stored = {item.name for item in adopted.graph.initializer}
    inputs = [item for item in adopted.graph.input if item.name not in stored]
    image = the_image_input(inputs, name)
    chosen = the_output(list(adopted.graph.output), output, name)
    del adopted.graph.input[:], adopted.graph.output[:]
    adopted.graph.input.append(image)
    adopted.graph.output.append(chosen)
    keep_only_needed(adopted)
    adopted.ir_version = max(adopted.ir_version, LOWEST_IR)
    pixels_last = set_shape(adopted, name, input_size)
    original = copy.deepcopy(adopted)
    halves = has_halves(adopted)
    take_floats(adopted, name)
    if pixels_last:
        take_channels_first(adopted)
    rename(adopted, adopted.graph.input[0].name, INPUT_NAME)
    free_batch_axis(adopted)
    has_softmax = remove_softmax(adopted)
    give_logits(adopted, widths_of(original, name))
    raise_opset(adopted, name)
    keep_only_needed(adopted)
    compare_answers(original, adopted, name, pixels_last=pixels_last, softmax=has_softmax, halves=halves)
    metadata = read_metadata(model)
    strip_origin(adopted)
    add_metadata(adopted, metadata)
    return adopted


def refuse_unsuitable(model: onnx.ModelProto, name: str, allow_quantized: bool) -> None:
    """Raise KingletError for a model that is quantized already, unless allowed, or that holds control flow."""
    counts = Counter(node.op_type for node in model.graph.node)
    quantized = {kind: count for kind, count in sorted(counts.items()) if any(word in kind for word in QUANTIZED)}
    if quantized and not allow_quantized:
        first = next(node for node in model.graph.node if node.op_type in quantized)
        listed = ", ".join(f"{count} {kind}" for kind, count in quantized.items())
        raise KingletError(
            f"{name} is quantized already: it holds {listed} (the first: {first.name or first.output[0]!r}).",
            "Name the float model it was made from; `kinglet doctor` says what ails a quantized one.",
        )
    flow = sorted(counts.keys() & set(CONTROL_FLOW))
    if flow:
        raise KingletError(
            f"{name} holds control flow ({', '.join(flow)}), which cannot be quantized.",
            "Export the network for one fixed input size, in evaluation mode.",
        )


def take_floats(model: onnx.ModelProto, name: str) -> None:
    """Let the model take float32 instead of float16 or uint8, in place; raises KingletError for other types."""
    if has_halves(model):
        to_single_precision(model)
    kind = model.graph.input[0].type.tensor_type
    if kind.elem_type == TensorProto.UINT8:
        kind.elem_type = TensorProto.FLOAT
        # Most such graphs begin with a conversion to floats, and are given the floats themselves.
        if not skip_casts(model):
            put_first(model, "Cast", to=TensorProto.UINT8)
            put_first(model, "Round")
    if kind.elem_type != TensorProto.FLOAT:
        raise KingletError(
            f"{name} takes {TensorProto.DataType.Name(kind.elem_type).lower()} numbers; float32, float16 and uint8 are "
            "supported.",
            "Export the network with a float32 input.",
        )


def take_channels_first(model: onnx.ModelProto) -> None:
    """Let the model take NCHW instead of NHWC, in place: without the exporter's own Transpose where it has one."""
    shape = model.graph.input[0].type.tensor_type.shape
    dimensions = [copy.deepcopy(shape.dim[axis]) for axis in FROM_PIXELS_LAST]
    if not skip_transposes(model, FROM_PIXELS_LAST):
        put_first(model, "Transpose", perm=TO_PIXELS_LAST)
    del shape.dim[:]
    shape.dim.extend(dimensions)


def give_logits(model: onnx.ModelProto, widths: tuple[int, ...]) -> None:
    """Name the output `logits` and give it two axes, in place. widths: of the output's axes after the first."""
    graph = model.graph
    n_classes = max(widths)
    if len(widths) > 1:
        flat = f"{graph.output[0].name}.flat"
        graph.node.append(onnx.helper.make_node("Flatten", [graph.output[0].name], [flat], name=flat, axis=1))
        graph.output[0].name = flat
    rename(model, graph.output[0].name, OUTPUT_NAME)
    graph.output[0].CopyFrom(onnx.helper.make_tensor_value_info(OUTPUT_NAME, TensorProto.FLOAT, [BATCH, n_classes]))


def raise_opset(model: onnx.ModelProto, name: str) -> None:
    """Bring an old model to the lowest opset that can be quantized, in place; raises KingletError if that fails."""
    version = next((item.version for item in model.opset_import if item.domain in ("", "ai.onnx")), LOWEST_OPSET)
    if version >= LOWEST_OPSET:
        return
    try:
        model.CopyFrom(onnx.version_converter.convert_version(model, LOWEST_OPSET))
    except (RuntimeError, onnx.checker.ValidationError) as error:
        raise KingletError(
            f"{name} has opset {version} and cannot be brought to {LOWEST_OPSET}: {' '.join(str(error).split())}",
            "Export the network again, with opset 17 or newer.",
        ) from None
