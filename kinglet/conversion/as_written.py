"""An ONNX file computed node by node as it is written: what a runtime's own way to compute is told apart from."""

from __future__ import annotations

from pathlib import Path

import onnxruntime

from kinglet.runtime.engines import Engine
from kinglet.runtime.engines.onnxruntime import engine_of


def open_as_written(model: Path) -> Engine:
    """Return an ONNX file opened by ONNX Runtime without any of its optimizations, on one thread.

    An int8 file is then computed in float32 between its roundings, no layer in integers.
    """
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.intra_op_num_threads = 1
    options.log_severity_level = 3
    return engine_of(onnxruntime.InferenceSession(model.read_bytes(), options, providers=["CPUExecutionProvider"]))
