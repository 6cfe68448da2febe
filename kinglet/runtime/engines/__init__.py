"""The runtimes that can compute a model's answers, one file each: ONNX Runtime, and others where they are installed.

Nothing is imported before it is asked for: a process opens one runtime, and the others may be missing.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

from kinglet.errors import KingletError

if TYPE_CHECKING:  # the commands that only name runtimes need no numpy
    import numpy as np
    from numpy.typing import NDArray

    from kinglet.runtime.preprocessing import InputTensor

ONNXRUNTIME = "onnxruntime"


@dataclass(frozen=True)
class Runtime:
    """What is known of a runtime before it is opened.

    title: its name in words. module: what Python imports. files: those of a model; the first is the one to open.
    """

    title: str
    module: str
    files: tuple[str, ...]


RUNTIMES = {
    ONNXRUNTIME: Runtime("ONNX Runtime", "onnxruntime", ("model.onnx",)),
    "openvino": Runtime("OpenVINO", "openvino", ("model.xml", "model.bin")),
    "opencv": Runtime("OpenCV", "cv2", ("model.onnx",)),
    "litert": Runtime("LiteRT", "ai_edge_litert", ("model.tflite",)),
}


@dataclass(frozen=True)
class Engine:
    """A model that a runtime has opened.

    run: takes images as the model does, float32 (n, channels, height, width), or uint8 (n, height, width, channels)
    if it takes pixels; returns logits, float32 (n, n_classes), those of a segmenter's pixels, (n, n_classes, h, w),
    logits and boxes of a detector side by side, float32 (n, anchors, n_classes + 4), or features of the frames of
    clips, (n, feature_size); may be called from several threads. input_shape: (channels, height, width).
    """

    run: Callable[[InputTensor], NDArray[np.float32]]
    input_shape: tuple[int, int, int]
    takes_pixels: bool = False


def open_engine(name: str, file: Path, input_shape: tuple[int, int, int], threads: int | None = None) -> Engine:
    """Return a model opened by the runtime of this name, a key of `RUNTIMES`.

    file: the first of the runtime's files; the others lie beside it. input_shape: (channels, height, width).
    threads: what works on one batch; None takes every processor that is granted.
    Raises KingletError if the runtime is not installed or cannot read the file.
    """
    engine: Engine = module_of(name).open_model(file, input_shape, threads)
    return engine


def version_of(name: str) -> str:
    """Return the version of a runtime, which is imported for it; raises KingletError if it is not installed."""
    version: str = module_of(name).version()
    return version


def module_of(name: str) -> ModuleType:
    """Return the file of this package that holds a runtime's engine.

    Raises KingletError for a runtime that is no key of `RUNTIMES`.
    """
    if name not in RUNTIMES:
        raise KingletError(f"There is no runtime {name!r}; known: {', '.join(RUNTIMES)}.")
    return import_module(f"{__name__}.{name}")


def import_runtime(name: str, module: str | None = None) -> Any:
    """Return the module of a runtime, or another of its package.

    Raises KingletError, with the command that installs it, if it cannot be imported.
    """
    wanted = RUNTIMES[name].module
    try:
        return import_module(module or wanted)
    except ImportError as error:
        missing = isinstance(error, ModuleNotFoundError) and (error.name or "").split(".")[0] == wanted
        reason = "is not installed" if missing else f"cannot be imported ({error})"
        raise KingletError(f"{RUNTIMES[name].title} {reason}; `pip install 'kinglet[{name}]'` installs it.") from None


def refusal(name: str, file: Path, error: Exception) -> KingletError:
    """Return the error for a file that a runtime could not read, in one sentence."""
    said = " ".join(str(error).split())
    return KingletError(f"{file} cannot be loaded by {RUNTIMES[name].title}: {said.rstrip('.')}.")
