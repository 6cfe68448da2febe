"""What an ONNX graph carries beside its function: metadata, constants as nodes, what nobody reads, traces."""

from __future__ import annotations

import json
from typing import Any

import onnx

from kinglet.errors import KingletError

# What the graphs of Kinglet's models call their input and their output.
INPUT_NAME, OUTPUT_NAME = "images", "logits"
# What those of detectors call theirs.
DETECTOR_OUTPUTS = (OUTPUT_NAME, "boxes")
PREFIX = "kinglet."
# The name of a model's problem in its metadata; a classifier's say nothing of it.
PROBLEM = "problem"


def add_metadata(model: onnx.ModelProto, metadata: dict[str, Any]) -> None:
    """Keep JSON-ready values as the model's metadata properties, under "kinglet." names."""
    del model.metadata_props[:]
    for key, value in sorted(metadata.items()):
        entry = model.metadata_props.add()
        entry.key, entry.value = f"{PREFIX}{key}", json.dumps(value, sort_keys=True)


def read_metadata(model: onnx.ModelProto) -> dict[str, Any]:
    """Return what `add_metadata` kept in the model, by name without "kinglet."; empty for other models.

    Raises KingletError for an entry that somebody damaged.
    """
    metadata = {}
    for item in model.metadata_props:
        if item.key.startswith(PREFIX):
            try:
                metadata[item.key.removeprefix(PREFIX)] = json.loads(item.value)
            except ValueError:
                raise KingletError(f"The model's metadata are damaged: {item.key} is not JSON.") from None
    return metadata


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


def keep_only_needed(model: onnx.ModelProto) -> None:
    """Remove the nodes and the stored tensors that no output needs."""
    graph = model.graph
    needed = {item.name for item in graph.output}
    kept = []
    for node in reversed(graph.node):
        if needed & set(node.output):
            kept.append(node)
            needed |= set(node.input)
    stored = [item for item in graph.initializer if item.name in needed]
    nodes = kept[::-1]
    del graph.node[:], graph.initializer[:]
    graph.node.extend(nodes)
    graph.initializer.extend(stored)


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
