"""Intel Neural Compressor on the ONNX file: static quantization with its accuracy-aware tuning.

`eval_func` scores each of its tries on the images set aside for choices; the tuning ends at the first
that loses at most 0.3 % of the accuracy, or keeps operators in float until one does.
Version 2.6 is the last that quantizes ONNX files; from 3.0 on there is no ONNX Runtime backend.
Source: intel/neural-compressor 2.6, docs/source/quantization.md and tuning_strategies.md
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import onnx
import onnxruntime
from neural_compressor import PostTrainingQuantConfig, quantization
from neural_compressor.config import AccuracyCriterion, TuningCriterion

from benchmarks.peers.recipes.task import Task, read_task

TOLERABLE_LOSS = 0.003
MAX_TRIALS = 30


class Calibration:
    """The calibration images as (batch, labels that nobody reads)."""

    def __init__(self, task: Task) -> None:
        self.batches = task.batches("calibration")
        self.batch_size = len(self.batches[0])

    def __iter__(self) -> Iterator[tuple[Any, Any]]:
        return ((batch, [0] * len(batch)) for batch in self.batches)


def main() -> None:
    """Quantize with the tuning, write the model."""
    task = read_task()

    def accuracy_of(model: onnx.ModelProto) -> float:
        session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
        input_name = session.get_inputs()[0].name
        accuracy = task.accuracy(lambda batch: session.run(None, {input_name: batch})[0])
        print(f"accuracy {accuracy:.4f}", flush=True)
        return accuracy

    calibration = Calibration(task)
    config = PostTrainingQuantConfig(
        approach="static",
        quant_format="QDQ",
        calibration_sampling_size=[sum(len(batch) for batch in calibration.batches)],
        accuracy_criterion=AccuracyCriterion(tolerable_loss=TOLERABLE_LOSS),
        tuning_criterion=TuningCriterion(max_trials=MAX_TRIALS),
    )
    model = quantization.fit(onnx.load(task.model), config, calib_dataloader=calibration, eval_func=accuracy_of)
    if model is None:
        raise SystemExit(f"Intel Neural Compressor found no model within {TOLERABLE_LOSS:.1%} in {MAX_TRIALS} trials.")
    model.save(str(task.output / "model.onnx"))
    accuracy = accuracy_of(onnx.load(task.output / "model.onnx"))
    task.write_settings("static QDQ, accuracy-aware tuning", choice_accuracy=accuracy)


if __name__ == "__main__":
    main()
