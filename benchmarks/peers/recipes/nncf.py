"""NNCF, run in OpenVINO: post-training quantization with full bias correction.

Both presets are tried, each with the fast and the full bias correction; the most accurate is kept.
Source: docs.openvino.ai, "Basic Quantization Flow".
"""

from __future__ import annotations

import itertools
from typing import Any

import nncf
import openvino

from benchmarks.peers.recipes.openvino import settings_of
from benchmarks.peers.recipes.task import Task, read_task

PRESETS = (nncf.QuantizationPreset.PERFORMANCE, nncf.QuantizationPreset.MIXED)


def accuracy_of(model: Any, task: Task) -> float:
    """Return a model's accuracy on the images set aside for choices."""
    compiled = openvino.Core().compile_model(model, "CPU", settings_of(task.facts["threads"]))
    return task.accuracy(lambda batch: compiled(batch)[compiled.outputs[0]])


def main() -> None:
    """Quantize in every way, keep the most accurate; of equals the first."""
    task = read_task()
    teacher = openvino.convert_model(str(task.model))
    images = task.batches("calibration", 1)
    tried: dict[str, tuple[float, Any]] = {}
    for preset, fast in itertools.product(PRESETS, (True, False)):
        quantized = nncf.quantize(
            teacher,
            nncf.Dataset(images),
            preset=preset,
            target_device=nncf.TargetDevice.CPU,
            subset_size=len(images),
            fast_bias_correction=fast,
        )
        name = f"preset {preset.value}, {'fast' if fast else 'full'} bias correction"
        tried[name] = accuracy_of(quantized, task), quantized
        print(f"{name}: {tried[name][0]:.4f}", flush=True)
    best = max(tried, key=lambda name: tried[name][0])
    openvino.save_model(tried[best][1], str(task.output / "model.xml"))
    task.write_settings(
        best, choice_accuracy=tried[best][0], tried={name: accuracy for name, (accuracy, _) in tried.items()}
    )


if __name__ == "__main__":
    main()
