"""How long a clip classifier takes for a frame: its frame part and one step of its recurrent part."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from kinglet.runtime.engines import Engine
from kinglet.runtime.engines.onnxruntime import open_model
from kinglet.runtime.latency import measure
from kinglet.runtime.preprocessing import InputTensor
from kinglet.runtime.recurrence import Recurrence, open_recurrence

SECONDS_PER_PART = 0.3


def open_both_parts(files: list[Path], input_shape: tuple[int, int, int], threads: int) -> Engine:
    """Return both files as an engine that takes one frame of each of n streams, and answers each.

    The state is that after no frame: its numbers do not matter for the time.
    """
    frame_part = open_model(files[0], input_shape, threads)
    recurrence = open_recurrence(files[1], threads, exact_sums=False)

    def answer(frames: InputTensor) -> NDArray[np.float32]:
        return step_of(recurrence, frame_part.run(frames))

    return Engine(answer, frame_part.input_shape, frame_part.takes_pixels)


def open_step(model: Path | bytes, threads: int) -> Engine:
    """Return a recurrent part as an engine that takes features as images (n, 1, 1, feature_size)."""
    recurrence = open_recurrence(model, threads, exact_sums=False)

    def answer(features: InputTensor) -> NDArray[np.float32]:
        return step_of(recurrence, np.asarray(features, np.float32).reshape(len(features), -1))

    return Engine(answer, (1, 1, recurrence.feature_size))


def times_of_parts(files: list[Path], input_shape: tuple[int, int, int]) -> dict[str, float]:
    """Return how long either part takes for one frame on one thread, the median in milliseconds, measured in turns."""
    engines = {
        "frame_part_p50_ms": open_model(files[0], input_shape, threads=1),
        "recurrent_part_p50_ms": open_step(files[1], threads=1),
    }
    return {name: round(timing.p50_ms, 4) for name, timing in measure(engines, 1, SECONDS_PER_PART).items()}


def step_of(recurrence: Recurrence, features: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return the logits of n streams after a frame, (n, n_classes)."""
    logits, _ = recurrence.step(features, np.ones((len(features), recurrence.state_size), np.float32))
    return logits
