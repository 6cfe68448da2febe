"""From an ONNX file to OpenVINO's intermediate representation, weights in the precision that they have."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from kinglet.runtime.engines import RUNTIMES, refusal
from kinglet.runtime.engines.openvino import NAME, load


def convert_to_openvino(model: Path, folder: Path) -> None:
    """Write model.xml and model.bin for an ONNX file into a folder; the same file gives the same bytes.

    Raises KingletError if OpenVINO is not installed or cannot read the file.
    """
    openvino = load()
    try:
        # Not by openvino.convert_model, which keeps in the file what it was asked for.
        representation = openvino.Core().read_model(model)
    except RuntimeError as error:
        raise refusal(NAME, model, error) from error
    number_anew(representation)
    openvino.save_model(representation, folder / RUNTIMES[NAME].files[0], compress_to_fp16=False)


def number_anew(representation: Any) -> None:
    """Give the operations that have no name of their own one by their place in the graph.

    OpenVINO numbers them by how many this process has made before.
    """
    number = 0
    for operation in representation.get_ordered_ops():
        if re.fullmatch(rf"{operation.get_type_name()}_\d+", operation.get_friendly_name()):
            operation.set_friendly_name(f"{operation.get_type_name()}_{number}")
            number += 1
