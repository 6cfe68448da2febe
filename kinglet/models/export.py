"""From a network to one self-contained ONNX file with the facts of its preprocessing inside."""

from __future__ import annotations

import copy
import io
import warnings
from collections.abc import Sequence
from typing import Any

import onnx
import torch
from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from kinglet.models.onnx_graph import (
    INPUT_NAME,
    OUTPUT_NAME,
    add_metadata,
    constants_to_initializers,
    strip_origin,
)

OPSET = 18


def fold_batch_norms(network: nn.Module) -> nn.Module:
    """Return a copy of a network in evaluation mode with every batch normalization inside its convolution."""
    folded = copy.deepcopy(network).eval()
    for module in folded.modules():
        previous: tuple[str, nn.Conv2d] | None = None
        for name, child in list(module.named_children()):
            if isinstance(child, nn.BatchNorm2d) and previous:
                setattr(module, previous[0], fuse_conv_bn_eval(previous[1], child))
                setattr(module, name, nn.Identity())
            previous = (name, child) if isinstance(child, nn.Conv2d) else None
    return folded


def to_onnx(
    network: nn.Module,
    input_size: int,
    channels: int,
    metadata: dict[str, Any],
    outputs: Sequence[str] = (OUTPUT_NAME,),
) -> onnx.ModelProto:
    """Return the ONNX model of `network`: "images" float32 (batch, channels, size, size) → "logits" (batch, classes).

    metadata: JSON-ready values, kept as metadata properties under "kinglet." names. outputs: the names of what the
    network returns, if that is more than logits. The same network gives the same bytes.
    """
    folded = fold_batch_norms(network)
    example = torch.zeros(2, channels, input_size, input_size)
    buffer = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        # The TorchScript exporter takes 1.4 s for EfficientNet-Lite0 and leaves Conv, Clip, Add; the
        # torch.export one takes 23 s (2 cores) and leaves shape arithmetic that the quantizer stumbles on.
        torch.onnx.export(
            folded,
            (example,),
            buffer,  # type: ignore[arg-type]  # the TorchScript exporter writes to files as well
            input_names=[INPUT_NAME],
            output_names=list(outputs),
            dynamic_axes={name: {0: "batch"} for name in (INPUT_NAME, *outputs)},
            opset_version=OPSET,
            dynamo=False,
        )
    model = onnx.load_from_string(buffer.getvalue())
    constants_to_initializers(model)
    strip_origin(model)
    _say_shapes(model, folded, example)
    add_metadata(model, metadata)
    onnx.checker.check_model(model)
    return model


def _say_shapes(model: onnx.ModelProto, network: nn.Module, example: torch.Tensor) -> None:
    """Write down the shapes of outputs of which the exporter knows no more than that they have dimensions."""
    shapes = [output.type.tensor_type.shape.dim for output in model.graph.output]
    if all(dimension.dim_value for shape in shapes for dimension in shape[1:]):
        return
    with torch.inference_mode():
        results = network(example)
    for shape, result in zip(shapes, results, strict=True):
        for dimension, length in zip(shape[1:], result.shape[1:], strict=True):
            dimension.dim_value = length
