"""Reading an ONNX file that anybody made: whole, or a sentence on what is wrong with it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import onnx
from google.protobuf.message import DecodeError
from onnx.external_data_helper import ExternalDataInfo, load_external_data_for_model, uses_external_data

from kinglet.errors import KingletError


def read_onnx(path: Path) -> onnx.ModelProto:
    """Return the model in an ONNX file, with the weights that lie in files beside it.

    Raises KingletError if there is no such file, if it is none of ONNX, or if files of weights are missing.
    """
    if path.is_dir():
        raise KingletError(f"{path} is a folder.", "Name the .onnx file in it.")
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        raise KingletError(f"{path} does not exist (looked in {Path.cwd()}).", "Name an .onnx file.") from None
    model = onnx.ModelProto()
    try:
        model.ParseFromString(content)
    except DecodeError:
        model.Clear()
    # Other formats may pass for an empty model: the format has no magic number.
    if not model.graph.node or not model.graph.output:
        raise KingletError(
            f"{path} is not an ONNX file, or one that was cut off.",
            "Export the network to ONNX first: torch.onnx.export, tf2onnx, or your framework's own exporter.",
        )
    _load_weights_beside(model, path)
    return model


def _load_weights_beside(model: onnx.ModelProto, path: Path) -> None:
    """Read the weights that the model keeps in other files into it."""
    names = _files_of_weights(model)
    missing = [name for name in names if not (path.parent / name).is_file()]
    if missing:
        raise KingletError(
            f"{path} keeps its weights in other files, and {', '.join(missing)} is not beside it.",
            f"Copy {'it' if len(missing) == 1 else 'them'} into {path.parent}, or save the model as one file.",
        )
    try:
        load_external_data_for_model(model, str(path.parent))
    except (onnx.checker.ValidationError, ValueError, OSError) as error:
        raise KingletError(
            f"{path}: its weights in {', '.join(names)} cannot be read: {' '.join(str(error).split())}",
            "Copy the files again, or save the model as one file.",
        ) from None
    for tensor in _tensors(model):
        tensor.ClearField("data_location")  # what says that the weights lie here, and is left out where they always did


def size_on_disk(path: Path) -> int:
    """Return the bytes of an ONNX file and of the files beside it that hold its weights."""
    model = onnx.load(path, load_external_data=False)
    return sum(file.stat().st_size for file in (path, *(path.parent / name for name in _files_of_weights(model))))


def _files_of_weights(model: onnx.ModelProto) -> list[str]:
    """Return the names of the files beside the model that hold its weights, sorted."""
    return sorted({ExternalDataInfo(tensor).location for tensor in _tensors(model) if uses_external_data(tensor)})


def _tensors(model: onnx.ModelProto) -> Iterator[onnx.TensorProto]:
    """Yield all tensors that are stored in the main graph."""
    yield from model.graph.initializer
    for node in model.graph.node:
        for attribute in node.attribute:
            if attribute.HasField("t"):
                yield attribute.t
            yield from attribute.tensors
