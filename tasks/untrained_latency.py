"""How long a network would take before anything is trained: measured, in fp32 and int8, and remembered."""

from __future__ import annotations

import copy
import hashlib
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from kinglet.compression.calibration import stream_histograms
from kinglet.compression.quantization import quantize_static
from kinglet.compression.search import Latency
from kinglet.models.export import to_onnx
from kinglet.runtime.device import this_device
from kinglet.runtime.engines.onnxruntime import engine_of
from kinglet.runtime.latency import measure
from kinglet.runtime.latency_table import recall_or_measure, table_path
from kinglet.runtime.sessions import open_session
from tasks.benchmark import conditions_of, latency_numbers

# A third of what `benchmark` takes: the interval says what that leaves open.
SECONDS_PER_MODEL = 0.3
# An interval wider than this share of the median is measured once more, for longer.
STEADY = 0.1
CALIBRATION_IMAGES = 16


def untrained_latency(network: nn.Module, images: NDArray[np.float32], threads: int, seed: int) -> Latency:
    """Return a network's latency at batch 1 in the precision that is faster; the network is left as it is.

    images: as the network takes them, float32 (n, channels, size, size); a few of them set the int8 file's ranges.
    """
    network = copy.deepcopy(network)
    unlike_biases(network, seed)
    model = to_onnx(network, images.shape[2], images.shape[1], {})
    histograms = stream_histograms(model, images[:CALIBRATION_IMAGES])
    files = {
        "fp32": model.SerializeToString(),
        "int8": quantize_static(model, histograms, "minmax").SerializeToString(),
    }
    return min(measured(files, threads), key=lambda latency: latency.value)


def unlike_biases(network: nn.Module, seed: int) -> None:
    """Give every bias of the batch normalizations another value, in place.

    Those of a network that has learnt nothing are all zero: the exporter shares them between layers, and
    ONNX Runtime then neither fuses nor quantizes what it would in the trained file.
    """
    generator = torch.Generator().manual_seed(seed)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.bias, -0.1, 0.1, generator=generator)


def measured(files: dict[str, bytes], threads: int) -> list[Latency]:
    """Return the latency of each of these ONNX files, {precision: content}, measured in turns."""
    names = {hashlib.sha256(content).hexdigest(): precision for precision, content in files.items()}
    conditions = conditions_of(this_device(), threads, [1], SECONDS_PER_MODEL)

    def time_them() -> dict[str, dict[str, Any]]:
        engines = {name: engine_of(open_session(files[precision], threads)) for name, precision in names.items()}
        timings = measure(engines, 1, SECONDS_PER_MODEL)
        if any(timing.p50_high_ms - timing.p50_low_ms > STEADY * timing.p50_ms for timing in timings.values()):
            timings = measure(engines, 1, 3 * SECONDS_PER_MODEL)
        return {name: latency_numbers(timing) for name, timing in timings.items()}

    found = recall_or_measure(table_path(), conditions, sorted(names), time_them)
    return [
        Latency(found[name]["p50_ms"], found[name]["p50_low_ms"], found[name]["p50_high_ms"], precision)
        for name, precision in names.items()
    ]
