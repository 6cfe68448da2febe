"""OpenCV's DNN module as an engine: it reads the ONNX file itself."""

from __future__ import annotations

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
from kinglet.runtime.sessions import OUTPUT_NAME

NAME = "opencv"


def open_model(file: Path, input_shape: tuple[int, int, int], threads: int | None = None) -> Engine:
    """Return the model of an ONNX file, opened by OpenCV; see `open_engine`.

    The number of threads is one for all of OpenCV in this process: the last model to be opened sets it.
    """
    cv2 = load()
    cv2.setNumThreads(threads or available_processors())
    reasons = []
    with silence(cv2):
        # The new engine is faster; the classic one also knows files with Q/DQ pairs.
        for engine in (cv2.dnn.ENGINE_NEW, cv2.dnn.ENGINE_CLASSIC):
            try:
                net = Net(cv2.dnn.readNetFromONNX(str(file), engine))
                # Only now it says what it cannot compute.
                net.run(np.zeros((1, *input_shape), np.float32))
            except cv2.error as error:
                reasons.append(error)
            else:
                return Engine(net.run, input_shape)
    raise refusal(NAME, file, reasons[0])


@contextmanager
def silence(cv2: Any) -> Iterator[None]:
    """Let OpenCV print nothing of what it raises as well."""
    level = cv2.utils.logging.getLogLevel()
    cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)
    try:
        yield
    finally:
        cv2.utils.logging.setLogLevel(level)


def version() -> str:
    """Return OpenCV's version."""
    return str(load().__version__)


def load() -> Any:
    """Return the module `cv2`; raises KingletError if it is not installed."""
    return import_runtime(NAME)


class Net:
    """A network of OpenCV's; one call at a time."""

    def __init__(self, net: Any) -> None:
        self._net = net
        self._lock = Lock()

    def run(self, images: InputTensor) -> NDArray[np.float32]:
        """Return the logits of a batch: float32 (n, channels, height, width) in, float32 (n, n_classes) out."""
        with self._lock:
            self._net.setInput(images)
            return np.array(self._net.forward(OUTPUT_NAME), np.float32).reshape(len(images), -1)
