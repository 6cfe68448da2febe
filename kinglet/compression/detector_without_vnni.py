"""How an int8 detector computes on x86 processors without VNNI, where sums of 8-bit products saturate."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import numpy as np
import onnx
from numpy.typing import NDArray

from kinglet.compression.saturation import Emulator
from kinglet.runtime.detection import DETECTOR_OUTPUTS, run_detector
from kinglet.runtime.preprocessing import InputTensor
from kinglet.runtime.sessions import open_session
from kinglet.runtime.vnni import products_saturate

EMULATED_BATCH_SIZE = 2

# Takes a batch as `model_input` makes it, gives logits and boxes.
Compute = Callable[[InputTensor], tuple[NDArray[np.float32], NDArray[np.float32]]]


def detector_without_vnni(model: onnx.ModelProto) -> Compute:
    """Return what computes a detector as such a processor does: ONNX Runtime on one, the emulation elsewhere."""
    if products_saturate():
        content = model.SerializeToString()
        return partial(run_detector, open_session(content, threads=1, outputs=DETECTOR_OUTPUTS, exact_sums=False))
    emulator = Emulator(model)

    def emulate(inputs: InputTensor) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        starts = range(0, len(inputs), EMULATED_BATCH_SIZE)
        parts = [emulator.run_all(inputs[start : start + EMULATED_BATCH_SIZE])[0] for start in starts]
        logits, boxes = (np.concatenate(outputs) for outputs in zip(*parts, strict=True))
        return logits, boxes

    return emulate
