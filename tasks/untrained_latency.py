"""How long a network would take before anything is trained: measured, in fp32 and int8, and remembered."""

from __future__ import annotations

import copy
import hashlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from kinglet.compression.calibration import stream_histograms
from kinglet.compression.latency import Latency
from kinglet.compression.quantization import quantize_static
from kinglet.models.export import to_onnx
from kinglet.models.registry import output_names
from kinglet.runtime.device import this_device
from kinglet.runtime.engines import Engine
from kinglet.runtime.engines.onnxruntime import engine_of
from kinglet.runtime.latency import Timing, measure
from kinglet.runtime.latency_table import recall_or_measure, table_path
from kinglet.runtime.sessions import load_session
from tasks.benchmark import conditions_of, latency_numbers

# A third of what `benchmark` takes: the interval says what that leaves open.
SECONDS_PER_MODEL = 0.3
# An interval wider than this share of the median is measured once more, three times as long.
STEADY = 0.1
CALIBRATION_IMAGES = 16
FP32, INT8 = "fp32", "int8"
PRECISIONS = (FP32, INT8)

# A network, and a few images as it takes them, float32 (n, channels, size, size), which set its int8 file's ranges.
Untrained = tuple[nn.Module, NDArray[np.float32]]


def untrained_latencies(
    subjects: Sequence[Untrained], threads: int, seed: int, precisions: Sequence[str] = PRECISIONS
) -> list[dict[str, Latency]]:
    """Return the latencies of networks at batch 1, {precision: latency} of each, all measured in turns.

    What is compared belongs into one call: what else the machine does then slows all of them alike. The networks
    are left as they are.
    """
    files = [files_of(network, images, seed, precisions) for network, images in subjects]
    digests = [{precision: hashlib.sha256(content).hexdigest() for precision, content in of.items()} for of in files]
    contents = {
        digest: of[precision] for of, named in zip(files, digests, strict=True) for precision, digest in named.items()
    }
    found = measured(contents, threads)
    return [
        {
            precision: Latency.of_row(found[digest], precision, len(contents[digest]))
            for precision, digest in named.items()
        }
        for named in digests
    ]


def fastest(latencies: dict[str, Latency]) -> Latency:
    """Return the latency in the precision that is faster."""
    return min(latencies.values(), key=lambda latency: latency.value)


def files_of(network: nn.Module, images: NDArray[np.float32], seed: int, precisions: Sequence[str]) -> dict[str, bytes]:
    """Return a network as ONNX files in these of `PRECISIONS`, {precision: content}."""
    network = copy.deepcopy(network)
    unlike_biases(network, seed)
    model = to_onnx(network, images.shape[2], images.shape[1], {}, output_names(network))
    files = {}
    if FP32 in precisions:
        files[FP32] = model.SerializeToString()
    if INT8 in precisions:
        histograms = stream_histograms(model, images[:CALIBRATION_IMAGES])
        files[INT8] = quantize_static(model, histograms, "minmax").SerializeToString()
    return files


def unlike_biases(network: nn.Module, seed: int) -> None:
    """Give every bias of the batch normalizations another value, in place.

    Those of a network that has learnt nothing are all zero: the exporter shares them between layers, and
    ONNX Runtime then neither fuses nor quantizes what it would in the trained file.
    """
    generator = torch.Generator().manual_seed(seed)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.bias, -0.1, 0.1, generator=generator)


def opened(content: bytes, threads: int) -> Engine:
    """Return a network's file as it is served."""
    return engine_of(load_session(content, threads, exact_sums=False))


def measured(
    contents: dict[str, bytes], threads: int, opened: Callable[[bytes, int], Engine] = opened
) -> dict[str, dict[str, Any]]:
    """Return the latency of each of these ONNX files, by digest, measured in turns. opened: a file as it is served."""
    conditions = conditions_of(this_device(), threads, [1], SECONDS_PER_MODEL)

    def time_them() -> dict[str, dict[str, Any]]:
        engines = {digest: opened(content, threads) for digest, content in contents.items()}
        timings = measure(engines, 1, SECONDS_PER_MODEL)
        if any(timing.p50_high_ms - timing.p50_low_ms > STEADY * timing.p50_ms for timing in timings.values()):
            timings = measure(engines, 1, three_times_as_long(timings))
        return {digest: latency_numbers(timing) for digest, timing in timings.items()}

    return recall_or_measure(table_path(), conditions, sorted(contents), time_them)


def three_times_as_long(timings: Mapping[str, Timing]) -> float:
    """Return the seconds per model of a measurement with three times the rounds.

    Networks of tens of milliseconds take longer than `SECONDS_PER_MODEL`: the rounds that `measure` has at least.
    """
    spent = [(timing.runs + timing.rounds) * timing.p50_ms / 1000 for timing in timings.values()]
    return 3 * max(SECONDS_PER_MODEL, sum(spent) / len(spent))
