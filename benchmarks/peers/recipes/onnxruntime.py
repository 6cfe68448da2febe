"""ONNX Runtime's own quantizer: static, QDQ, as its documentation advises for x86.

Pre-processing first, activations uint8, weights int8 per channel; every calibration method it has is
tried, and the 7-bit weights that it advises where 8-bit products saturate. Of large images it would keep all
activations in memory at once; `CalibStridedMinMax` lets it take them batch by batch.
Source: onnxruntime.ai/docs/performance/model-optimizations/quantization.html
"""

from __future__ import annotations

import itertools
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import onnxruntime
from onnxruntime.quantization import (
    CalibrationDataReader,
    CalibrationMethod,
    QuantFormat,
    QuantType,
    quantize_static,
)
from onnxruntime.quantization.shape_inference import quant_pre_process

from benchmarks.peers.recipes.task import Task, read_task

METHODS = (CalibrationMethod.MinMax, CalibrationMethod.Entropy, CalibrationMethod.Percentile)


class Reader(CalibrationDataReader):
    """The calibration images, batch by batch."""

    def __init__(self, task: Task, input_name: str) -> None:
        self.all = [{input_name: batch} for batch in task.batches("calibration")]
        self.feeds: Iterator[dict[str, Any]] = iter(self.all)

    def __len__(self) -> int:
        return len(self.all)

    def set_range(self, start_index: int, end_index: int) -> None:
        """Go on with these batches alone."""
        self.feeds = iter(self.all[start_index:end_index])

    def get_next(self) -> dict[str, Any] | None:
        """Return the next feed, None after the last."""
        return next(self.feeds, None)


def open_session(path: Path) -> onnxruntime.InferenceSession:
    """Return a session on the CPU."""
    return onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])


def accuracy_of(path: Path, task: Task) -> float:
    """Return a model's accuracy on the images set aside for choices."""
    session = open_session(path)
    input_name = session.get_inputs()[0].name
    return task.accuracy(lambda batch: session.run(None, {input_name: batch})[0])


def main() -> None:
    """Quantize in every way, keep the most accurate; of equals the first."""
    task = read_task()
    prepared = task.output / "prepared.onnx"
    quant_pre_process(str(task.model), str(prepared))
    input_name = open_session(prepared).get_inputs()[0].name
    tried = []
    for reduce_range, method in itertools.product((False, True), METHODS):
        path = task.output / f"{method.name}-{7 if reduce_range else 8}.onnx"
        quantize_static(
            str(prepared),
            str(path),
            Reader(task, input_name),
            quant_format=QuantFormat.QDQ,
            per_channel=True,
            reduce_range=reduce_range,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
            calibrate_method=method,
            extra_options={"CalibStridedMinMax": 1},
        )
        tried.append((accuracy_of(path, task), path))
        print(f"{path.stem}: {tried[-1][0]:.4f}", flush=True)
    accuracy, best = max(tried, key=lambda pair: pair[0])
    shutil.copyfile(best, task.output / "model.onnx")
    method_name, bits = best.stem.split("-")
    task.write_settings(
        f"static QDQ, int8 per channel, {method_name}, {bits}-bit weights",
        choice_accuracy=accuracy,
        tried={path.stem: found for found, path in tried},
    )


if __name__ == "__main__":
    main()
