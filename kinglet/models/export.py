"""From a network to one self-contained ONNX file with the facts of its preprocessing inside."""

from __future__ import annotations

import copy
import io
import json
import warnings
from typing import Any

import onnx
import torch
from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

INPUT_NAME, OUTPUT_NAME = "images", "logits"
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


def to_onnx(network: nn.Module, input_size: int, channels: int, metadata: dict[str, Any]) -> onnx.ModelProto:
    """Return the ONNX model of `network`: "images" float32 (batch, channels, size, size) → "logits" (batch, classes).

    metadata: JSON-ready values, kept as metadata properties under "kinglet." names. The same network
    gives the same bytes.
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
            output_names=[OUTPUT_NAME],
            dynamic_axes={INPUT_NAME: {0: "batch"}, OUTPUT_NAME: {0: "batch"}},
            opset_version=OPSET,
            dynamo=False,
        )
    model = onnx.load_from_string(buffer.getvalue())
    constants_to_initializers(model)
    strip_origin(model)
    add_metadata(model, metadata)
    onnx.checker.check_model(model)
    return model


def add_metadata(model: onnx.ModelProto, metadata: dict[str, Any]) -> None:
    """Keep JSON-ready values as the model's metadata properties, under "kinglet." names."""
    del model.metadata_props[:]
    for key, value in sorted(metadata.items()):
        entry = model.metadata_props.add()
        entry.key, entry.value = f"kinglet.{key}", json.dumps(value, sort_keys=True)


def constants_to_initializers(model: onnx.ModelProto) -> None:
    """Turn Constant nodes into initializers, where graph optimizers and quantizers look for them."""
    kept = []
    for node in model.graph.node:
        if node.op_type == "Constant" and node.attribute[0].name == "value":
            initializer = model.graph.initializer.add()
            initializer.CopyFrom(node.attribute[0].t)
            initializer.name = node.output[0]
        else:
            kept.append(node)
    del model.graph.node[:]
    model.graph.node.extend(kept)


def strip_origin(model: onnx.ModelProto) -> None:
    """Remove what the exporter wrote about where the graph came from: source lines, paths, versions."""
    del model.metadata_props[:]
    del model.graph.metadata_props[:]
    model.graph.name = "kinglet"
    model.doc_string = model.graph.doc_string = ""
    for node in model.graph.node:
        del node.metadata_props[:]
        node.doc_string = ""
    for value in (*model.graph.value_info, *model.graph.input, *model.graph.output, *model.graph.initializer):
        del value.metadata_props[:]
        value.doc_string = ""
