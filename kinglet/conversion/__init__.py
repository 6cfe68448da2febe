"""From an ONNX file to the files of another runtime, and whether these answer as it does."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

from kinglet.conversion.litert import convert_to_litert
from kinglet.conversion.openvino import convert_to_openvino
from kinglet.runtime.engines import RUNTIMES


def copy_for_opencv(model: Path, folder: Path) -> None:
    """Copy the ONNX file into a folder: OpenCV reads it itself."""
    shutil.copyfile(model, folder / RUNTIMES["opencv"].files[0])


# Each writes a runtime's files for an ONNX file into a folder; raises KingletError if they cannot be made.
CONVERTERS: dict[str, Callable[[Path, Path], None]] = {
    "openvino": convert_to_openvino,
    "opencv": copy_for_opencv,
    "litert": convert_to_litert,
}
