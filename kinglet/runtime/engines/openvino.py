"""OpenVINO as an engine: float32 kept as float32, one stream, no report home."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Lock
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kinglet.runtime.engines import Engine, import_runtime, refusal
from kinglet.runtime.preprocessing import InputTensor
from kinglet.runtime.processors import available_processors

NAME = "openvino"
TELEMETRY = "openvino_telemetry"
SETTINGS = {
    # Left alone, it computes float models in bfloat16 on processors that have it (docs/runtimes.md has the figures).
    "INFERENCE_PRECISION_HINT": "f32",
    "PERFORMANCE_HINT": "LATENCY",
    "NUM_STREAMS": 1,
    # Every process would bind itself to the same first cores of a machine that several share.
    "ENABLE_CPU_PINNING": False,
}


def open_model(file: Path, input_shape: tuple[int, int, int], threads: int | None = None) -> Engine:
    """Return the model of an IR (model.xml, with model.bin beside it) or ONNX file, opened by OpenVINO on the CPU.

    See `open_engine`.
    """
    openvino = load()
    core = openvino.Core()
    try:
        model = core.read_model(file)
        compiled = CompiledModel(core, model, input_shape, threads or available_processors())
    except RuntimeError as error:
        raise refusal(NAME, file, error) from error
    return Engine(compiled.run, input_shape)


def version() -> str:
    """Return OpenVINO's version."""
    return str(load().__version__.partition("-")[0])


def load() -> Any:
    """Return the module `openvino`, imported without its telemetry; raises KingletError if it is not installed."""
    with without_telemetry():
        return import_runtime(NAME)


@contextmanager
def without_telemetry() -> Iterator[None]:
    """Let no import find the module by which OpenVINO reports home: importing OpenVINO sends its first event."""
    kept = sys.modules.get(TELEMETRY)
    sys.modules[TELEMETRY] = None  # type: ignore[assignment]  # what Python reads as "there is none"
    try:
        yield
    finally:
        if kept is None:
            del sys.modules[TELEMETRY]
        else:
            sys.modules[TELEMETRY] = kept


class CompiledModel:
    """A model compiled for single images and, when the first come, for batches of any size; one call at a time."""

    def __init__(self, core: Any, model: Any, input_shape: tuple[int, int, int], threads: int) -> None:
        self._core, self._model = core, model
        self._input_shape = input_shape
        self._settings = {**SETTINGS, "INFERENCE_NUM_THREADS": threads}
        self._lock = Lock()
        # A fixed shape spares OpenVINO the inference of shapes at every call.
        self._single = self._request(1)
        self._batch: Any = None

    def run(self, images: InputTensor) -> NDArray[np.float32]:
        """Return the logits of a batch: float32 (n, channels, height, width) in, float32 (n, n_classes) out."""
        with self._lock:
            if len(images) == 1:
                # Faster than handing the array over, which OpenVINO's Python looks at from all sides.
                self._single.get_input_tensor().data[:] = images
                self._single.infer()
                return np.array(self._single.get_output_tensor().data, np.float32)
            if self._batch is None:
                self._batch = self._request(-1)
            return np.array(self._batch.infer([images])[0], np.float32)

    def _request(self, batch_size: int) -> Any:
        model = self._model.clone()
        model.reshape([batch_size, *self._input_shape])
        return self._core.compile_model(model, "CPU", self._settings).create_infer_request()
