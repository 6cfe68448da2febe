"""ONNX Runtime as an engine: what every model is made for, and what it is always scored with."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from kinglet.runtime.detection import DETECTOR_OUTPUTS, finds_boxes, run_as_one
from kinglet.runtime.engines import Engine
from kinglet.runtime.preprocessing import InputTensor
from kinglet.runtime.sessions import FEATURES_NAME, OUTPUT_NAME, load_session, require_ends, takes_pixels
from kinglet.runtime.single_image import ImageRun


def open_model(file: Path, input_shape: tuple[int, int, int], threads: int | None = None) -> Engine:  # noqa: ARG001 (the file says its shape)
    """Return the model of an ONNX file, opened by ONNX Runtime as it is served; see `open_engine`."""
    session = load_session(file, threads, exact_sums=False)
    found = (FEATURES_NAME,) if gives_features(session) else (OUTPUT_NAME,)
    require_ends(session, file, DETECTOR_OUTPUTS if finds_boxes(session) else found)
    return engine_of(session)


def engine_of(session: onnxruntime.InferenceSession) -> Engine:
    """Return a session as an engine; that of a detector gives logits and boxes side by side, of a frame features."""
    edges = [int(edge) for edge in session.get_inputs()[0].shape[1:]]
    channels, height, width = (edges[2], *edges[:2]) if takes_pixels(session) else edges
    compute: Callable[[InputTensor], NDArray[np.float32]]
    if finds_boxes(session):
        compute = partial(run_as_one, session)
    else:
        compute = ImageRun(session, FEATURES_NAME if gives_features(session) else OUTPUT_NAME)
    return Engine(compute, (channels, height, width), takes_pixels(session))


def gives_features(session: onnxruntime.InferenceSession) -> bool:
    """Return whether a model is the part of a network over clips that sees single frames."""
    return [item.name for item in session.get_outputs()] == [FEATURES_NAME]


def version() -> str:
    """Return ONNX Runtime's version."""
    return str(onnxruntime.__version__)
