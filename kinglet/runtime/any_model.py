"""ONNX image models as anybody made them, of any names and types, run on random pixels to be measured."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from kinglet.errors import KingletError
from kinglet.runtime.sessions import load_session

NUMBERS: dict[str, type] = {
    "tensor(float)": np.float32,
    "tensor(float16)": np.float16,
    "tensor(double)": np.float64,
    "tensor(uint8)": np.uint8,
    "tensor(int8)": np.int8,
}


def action_of(model: Path, threads: int, batch_size: int = 1, input_size: int | None = None) -> Callable[[], Any]:
    """Return a call without arguments that runs a model once on one fixed batch of noise.

    input_size: edge length in pixels for a model whose height and width are free.
    Raises KingletError if onnxruntime cannot load the file, or if its input cannot be filled.
    """
    session = load_session(model, threads, exact_sums=False)
    feed = noise_for(session, batch_size, input_size, str(model))
    return lambda: session.run(None, feed)


def noise_for(
    session: onnxruntime.InferenceSession, batch_size: int, input_size: int | None, name: str
) -> dict[str, NDArray[Any]]:
    """Return {input: random pixels} for a model with one input of images. name: what errors call the model.

    Raises KingletError if there are several inputs, another rank or type, an axis of unknown length that is neither
    the batch's nor fixed by `input_size`, or a batch axis of another fixed length.
    """
    inputs = session.get_inputs()
    if len(inputs) != 1:
        names = ", ".join(item.name for item in inputs) or "none"
        raise KingletError(f"{name} has {len(inputs)} inputs ({names}); a model of images with one can be measured.")
    number = NUMBERS.get(inputs[0].type)
    if number is None or len(inputs[0].shape) != 4:
        raise KingletError(f"{name} takes no batch of images: its input is {inputs[0].type} {inputs[0].shape}.")
    fixed, *rest = (edge if isinstance(edge, int) else 0 for edge in inputs[0].shape)
    if fixed not in (0, batch_size):
        raise KingletError(
            f"{name} takes batches of {fixed} only, not of {batch_size}.",
            f"Measure with --batch-size {fixed}, or export the model with a free batch axis.",
        )
    channels_last = rest[0] not in (1, 3) and rest[2] in (1, 3)
    if rest[2 if channels_last else 0] == 0 or (input_size is None and 0 in rest):
        raise KingletError(
            f"{name} leaves axes of its images open: its input is {inputs[0].shape}.",
            "Say for which edge length in pixels: --input-size 224, for one.",
        )
    shape = [batch_size, *(edge or input_size or 0 for edge in rest)]
    generator = np.random.default_rng(0)
    # The values do not matter for the time, except zeros and denormals.
    if np.issubdtype(number, np.integer):
        return {inputs[0].name: generator.integers(0, 127, shape).astype(number)}
    return {inputs[0].name: generator.standard_normal(shape).astype(number)}
