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
from kinglet.models.recurrent_step import RecurrentStep
from kinglet.runtime.recurrence import INPUTS, OUTPUTS

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
    examples = {INPUT_NAME: torch.zeros(2, channels, input_size, input_size)}
    return _exported(folded, examples, outputs, metadata)


def step_to_onnx(step: RecurrentStep, metadata: dict[str, Any]) -> onnx.ModelProto:
    """Return the ONNX model of a recurrent step: "features" and "state" → "logits" and "next_state".

    All are float32 (batch, ...), as `RecurrentStep` says. metadata: as for `to_onnx`.
    """
    widths = zip(INPUTS, (step.feature_size, step.state_size), strict=True)
    examples = {name: torch.zeros(2, width) for name, width in widths}
    return _exported(step.eval(), examples, OUTPUTS, metadata)


def _exported(
    network: nn.Module, examples: dict[str, torch.Tensor], outputs: Sequence[str], metadata: dict[str, Any]
) -> onnx.ModelProto:
    buffer = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        # The TorchScript exporter takes 1.4 s for EfficientNet-Lite0 and leaves Conv, Clip, Add; the
        # torch.export one takes 23 s (2 cores) and leaves shape arithmetic that the quantizer stumbles on.
        torch.onnx.export(
            network,
            tuple(examples.values()),
            buffer,  # type: ignore[arg-type]  # the TorchScript exporter writes to files as well
            input_names=list(examples),
            output_names=list(outputs),
            dynamic_axes={name: {0: "batch"} for name in (*examples, *outputs)},
            opset_version=OPSET,
            dynamo=False,
        )
    model = onnx.load_from_string(buffer.getvalue())
    constants_to_initializers(model)
    strip_origin(model)
    _say_shapes(model, network, tuple(examples.values()))
    add_metadata(model, metadata)
    onnx.checker.check_model(model)
    return model


def _say_shapes(model: onnx.ModelProto, network: nn.Module, examples: Sequence[torch.Tensor]) -> None:
    """Write down the shapes of outputs of which the exporter knows no more than that they have dimensions."""
    shapes = [output.type.tensor_type.shape.dim for output in model.graph.output]
    if all(dimension.dim_value for shape in shapes for dimension in shape[1:]):
        return
    with torch.inference_mode():
        results = network(*examples)
    for shape, result in zip(shapes, results, strict=True):
        for dimension, length in zip(shape[1:], result.shape[1:], strict=True):
            dimension.dim_value = length
