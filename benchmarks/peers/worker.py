"""One model in one process, in the environment that runs it; answers requests line by line.

Needs numpy and the runtime that the model's file asks for: onnxruntime for .onnx, OpenVINO for .xml. Reads
one JSON request per line from stdin and writes one JSON answer per line to stdout:

    {"do": "answer", "images": FILE.npy, "into": FILE.npy}     logits of all images, in batches
    {"do": "open", "batch_size": 1, "threads": 1, "shape": [3, 64, 64], "dtype": "float32"}
                                                               → {"runs": 40, ...}: warm, so many runs fill a block
    {"do": "block", "runs": 40}                                → {"ms": [...]}: after one run that is not counted

    python -m benchmarks.peers.worker MODEL
"""

from __future__ import annotations

import itertools
import json
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

SCORING_BATCH = 64
BLOCK_SECONDS = 0.1
WARM_UP_SECONDS = 0.3
WARM_UP_RUNS = 5

Predict = Callable[[Any], Any]


def open_onnx(path: Path, threads: int, batch_size: int | None) -> tuple[Predict, dict[str, str]]:
    """Return a function from images to logits, in ONNX Runtime as Kinglet serves models."""
    import onnxruntime

    del batch_size  # the same session takes batches of any size
    onnxruntime.disable_telemetry_events()
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    input_name, output_name = session.get_inputs()[0].name, session.get_outputs()[0].name
    facts = {"runtime": f"onnxruntime {onnxruntime.__version__}"}
    return lambda images: session.run([output_name], {input_name: images})[0], facts


def open_openvino(path: Path, threads: int, batch_size: int | None) -> tuple[Predict, dict[str, str]]:
    """Return a function from images to logits, in OpenVINO: one request at a time, no copies, fixed batch to time."""
    import openvino

    core = openvino.Core()
    model = core.read_model(path)
    if batch_size is not None:
        shape = model.inputs[0].get_partial_shape()
        shape[0] = batch_size
        model.reshape(shape)
    settings = {"PERFORMANCE_HINT": "LATENCY", "INFERENCE_NUM_THREADS": threads, "NUM_STREAMS": 1}
    compiled = core.compile_model(model, "CPU", settings)
    request = compiled.create_infer_request()
    facts = {
        "runtime": f"openvino {openvino.__version__.partition('-')[0]}",
        "float_precision": str(compiled.get_property("INFERENCE_PRECISION_HINT").get_type_name()),
    }
    return lambda images: request.infer([images], share_inputs=True, share_outputs=True)[0], facts


RUNTIMES = {".onnx": open_onnx, ".xml": open_openvino}


class Model:
    """A model file and the function that runs it at the batch size and threads that were asked for last."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.action: Callable[[], Any] = lambda: None

    def answer(self, images: str, into: str) -> dict[str, Any]:
        """Write the logits of the images in a file to another."""
        predict, facts = RUNTIMES[self.path.suffix](self.path, len(os.sched_getaffinity(0)), None)
        inputs = np.load(images, mmap_mode="r")
        starts = range(0, len(inputs), SCORING_BATCH)
        # Copies: a runtime may give its own memory, which the next batch overwrites.
        logits = [np.array(predict(np.array(inputs[start : start + SCORING_BATCH]))) for start in starts]
        np.save(into, np.concatenate(logits))
        return facts

    def open(self, batch_size: int, threads: int, shape: list[int], dtype: str) -> dict[str, Any]:
        """Prepare a fixed batch of noise of this shape and dtype, warm up, count the runs of a block."""
        predict, facts = RUNTIMES[self.path.suffix](self.path, threads, batch_size)
        # The values do not matter for the time, except zeros and denormals.
        generator = np.random.default_rng(0)
        if dtype == "uint8":
            images = generator.integers(0, 256, (batch_size, *shape), np.uint8)
        else:
            images = generator.standard_normal((batch_size, *shape), dtype=np.float32)
        self.action = lambda: predict(images)
        started, runs = time.perf_counter(), 0
        while runs < WARM_UP_RUNS or time.perf_counter() - started < WARM_UP_SECONDS:
            self.action()
            runs += 1
        seconds = (time.perf_counter() - started) / runs
        return {**facts, "runs": max(1, round(BLOCK_SECONDS / seconds))}

    def block(self, runs: int) -> dict[str, Any]:
        """Return the milliseconds of each of these runs, after one that is not counted."""
        self.action()
        marks = [time.perf_counter_ns()]
        for _ in range(runs):
            self.action()
            marks.append(time.perf_counter_ns())
        return {"ms": [(after - before) / 1e6 for before, after in itertools.pairwise(marks)]}


def main() -> None:
    """Answer requests until stdin ends."""
    # What a library prints must not come between the answers.
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    model = Model(Path(sys.argv[1]))
    actions: dict[str, Callable[..., dict[str, Any]]] = {
        "answer": model.answer,
        "open": model.open,
        "block": model.block,
    }
    for line in sys.stdin:
        request = json.loads(line)
        print(json.dumps(actions[request.pop("do")](**request)), file=answers, flush=True)


if __name__ == "__main__":
    main()
