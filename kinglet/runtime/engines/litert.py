"""LiteRT, once TensorFlow Lite, as an engine."""

from __future__ import annotations

from importlib.metadata import version as version_of_package
from pathlib import Path
from threading import Lock
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kinglet.runtime.engines import Engine, import_runtime, refusal
from kinglet.runtime.preprocessing import InputTensor
from kinglet.runtime.processors import available_processors

NAME = "litert"


def open_model(file: Path, input_shape: tuple[int, int, int], threads: int | None = None) -> Engine:
    """Return the model of a .tflite file, opened by LiteRT on the CPU; see `open_engine`.

    The file takes channels last, as its format does; the engine takes channels first, as all engines do.
    """
    interpreters = import_runtime(NAME, "ai_edge_litert.interpreter")
    try:
        interpreter = interpreters.Interpreter(model_path=str(file), num_threads=threads or available_processors())
        model = Interpreted(interpreter, input_shape)
    except (ValueError, RuntimeError) as error:
        raise refusal(NAME, file, error) from error
    return Engine(model.run, input_shape)


def version() -> str:
    """Return LiteRT's version."""
    import_runtime(NAME)
    return version_of_package("ai-edge-litert")


class Interpreted:
    """An interpreter and the batch size that its memory is laid out for; one call at a time."""

    def __init__(self, interpreter: Any, input_shape: tuple[int, int, int]) -> None:
        self._interpreter = interpreter
        self._input = interpreter.get_input_details()[0]["index"]
        self._output = interpreter.get_output_details()[0]["index"]
        channels, height, width = input_shape
        self._image = (height, width, channels)
        self._lock = Lock()
        self._lay_out(1)

    def run(self, images: InputTensor) -> NDArray[np.float32]:
        """Return the logits of a batch: float32 (n, channels, height, width) in, float32 (n, n_classes) out."""
        with self._lock:
            if len(images) != self._batch_size:
                self._lay_out(len(images))
            self._interpreter.set_tensor(self._input, images.transpose(0, 2, 3, 1))
            self._interpreter.invoke()
            logits: NDArray[np.float32] = self._interpreter.get_tensor(self._output)
            return logits

    def _lay_out(self, batch_size: int) -> None:
        self._interpreter.resize_tensor_input(self._input, (batch_size, *self._image))
        self._interpreter.allocate_tensors()
        self._batch_size = batch_size
