"""What every peer is given, read in the peer's environment: needs numpy and nothing of Kinglet."""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

BATCH_SIZE = 32


@dataclass(frozen=True)
class Task:
    """The folder of a task, the folder for its result, and the fp32 model to make small and fast.

    facts: input_size, channels, mean, std, n_classes, seed, threads, training_seconds.
    """

    folder: Path
    output: Path
    model: Path
    facts: dict[str, Any]

    def array(self, name: str) -> NDArray[Any]:
        """Return an array of the task, memory-mapped."""
        array: NDArray[Any] = np.load(self.folder / f"{name}.npy", mmap_mode="r")
        return array

    def batches(self, name: str, batch_size: int = BATCH_SIZE) -> list[NDArray[np.float32]]:
        """Return float32 images (n, channels, height, width), "calibration" or "choice", in batches."""
        images = self.array(name)
        return [np.array(images[start : start + batch_size]) for start in range(0, len(images), batch_size)]

    def accuracy(self, logits_of: Callable[[NDArray[np.float32]], Any]) -> float:
        """Return the accuracy on the images set aside for choices of a function from a batch to its logits."""
        predicted = [np.asarray(logits_of(batch)).argmax(axis=1) for batch in self.batches("choice")]
        return float((np.concatenate(predicted) == self.array("choice_labels")).mean())

    def write_settings(self, settings: str, **facts: Any) -> None:
        """Say in words what was set, beside the model."""
        content = json.dumps({"settings": settings, **facts}, indent=2, sort_keys=True)
        (self.output / "settings.json").write_text(content + "\n", encoding="utf-8")


def read_task() -> Task:
    """Return the task that the command line names."""
    parser = argparse.ArgumentParser()
    parser.add_argument("task", type=Path)
    parser.add_argument("output", type=Path)
    parser.add_argument("--model", type=Path, help="start from this ONNX file (default: the teacher)")
    options = parser.parse_args()
    options.output.mkdir(parents=True, exist_ok=True)
    facts = json.loads((options.task / "task.json").read_text(encoding="utf-8"))
    return Task(options.task, options.output, options.model or options.task / "teacher.onnx", facts)
