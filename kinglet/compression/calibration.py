"""Ranges of activations for int8: histograms streamed over calibration images, one range per method.

All activations are never held at once (ONNX Runtime's own entropy and percentile calibrators do that,
onnxruntime#10503): one pass finds the extremes, a second fills a histogram per tensor.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection
from dataclasses import dataclass

import numpy as np
import onnx
import onnxruntime
from numpy.typing import NDArray

N_BINS = 2048
# Of a tensor of one image, more values than these say no more about where its values lie: then every second, third ...
# is counted. The extremes are those of all.
VALUES_PER_IMAGE = 2**17
LEVELS = 256
Range = tuple[float, float]


@dataclass(frozen=True)
class Histogram:
    """Counts of a tensor's values: `counts` float64 (N_BINS,) over equal bins from `low` to `high`."""

    low: float
    high: float
    counts: NDArray[np.float64]

    @property
    def centres(self) -> NDArray[np.float64]:
        """Middle of every bin."""
        width = (self.high - self.low) / len(self.counts)
        return self.low + width * (np.arange(len(self.counts), dtype=np.float64) + 0.5)


@dataclass(frozen=True)
class FixedRange:
    """The range of a tensor that is known without looking at values."""

    low: float
    high: float


Statistics = Histogram | FixedRange


def with_zero(low: float, high: float) -> Range:
    """Return the range widened to hold zero exactly, as padding and ReLU need, and never empty."""
    low, high = min(low, 0.0), max(high, 0.0)
    return (low, high) if high > low else (low, low + 1e-6)


def minmax_range(histogram: Histogram) -> Range:
    """Return everything that was seen."""
    return with_zero(histogram.low, histogram.high)


def percentile_range(histogram: Histogram, percentile: float = 99.99) -> Range:
    """Return the range between the lower and the upper percentile."""
    shares: NDArray[np.float64] = np.cumsum(histogram.counts) / histogram.counts.sum()
    tail = (100 - percentile) / 100
    centres = histogram.centres
    low = centres[int(np.searchsorted(shares, tail))]
    high = centres[min(int(np.searchsorted(shares, 1 - tail)), len(centres) - 1)]
    return with_zero(float(low), float(high))


def mse_range(histogram: Histogram) -> Range:
    """Return the range with the smallest mean squared error of rounding and clipping.

    Source: Banner et al. 2019, "Post Training 4-bit Quantization", section 3, searched instead of solved.
    """
    return _best_range(histogram, _squared_error)


def entropy_range(histogram: Histogram) -> Range:
    """Return the range with the smallest divergence of the quantized from the true distribution.

    Source: Migacz 2017, "8-bit Inference with TensorRT" (KL divergence calibration).
    """
    return _best_range(histogram, _divergence)


def _best_range(histogram: Histogram, cost: Callable[[Histogram, Range], float]) -> Range:
    full = with_zero(histogram.low, histogram.high)
    candidates = [(full[0] * share, full[1] * share) for share in np.linspace(1.0, 0.3, 36)]
    return min(candidates, key=lambda candidate: cost(histogram, candidate))


def _quantized_centres(histogram: Histogram, limits: Range) -> NDArray[np.float64]:
    scale = (limits[1] - limits[0]) / (LEVELS - 1)
    return np.rint((np.clip(histogram.centres, *limits) - limits[0]) / scale) * scale + limits[0]


def _squared_error(histogram: Histogram, limits: Range) -> float:
    errors = histogram.centres - _quantized_centres(histogram, limits)
    return float((histogram.counts * errors**2).sum())


def _divergence(histogram: Histogram, limits: Range) -> float:
    true = histogram.counts / histogram.counts.sum()
    _, level = np.unique(_quantized_centres(histogram, limits), return_inverse=True)
    filled = histogram.counts > 0
    # Every level's mass is spread evenly over the bins it stands for, as a decoder would see it.
    mass, members = np.bincount(level, true), np.bincount(level, filled)
    spread = np.where(filled, mass[level] / np.maximum(members[level], 1), 0.0)
    return float((true[filled] * np.log(true[filled] / np.maximum(spread[filled], 1e-12))).sum())


# A new method is a function and a line here; `quantize.methods` in params.yaml takes its names from the keys.
METHODS: dict[str, Callable[[Histogram], Range]] = {
    "minmax": minmax_range,
    "percentile": percentile_range,
    "mse": mse_range,
    "entropy": entropy_range,
}


def range_of(statistics: Statistics, method: str) -> Range:
    """Return the range of a tensor by a method, a key of `METHODS`, or the one that is fixed."""
    if isinstance(statistics, FixedRange):
        return statistics.low, statistics.high
    return METHODS[method](statistics)


def stream_histograms(
    model: onnx.ModelProto,
    inputs: NDArray[np.float32],
    batch_size: int = 32,
    tensors: Collection[str] | None = None,
) -> dict[str, Histogram]:
    """Return a histogram of every float32 tensor of `model`, its input included, over `inputs`.

    inputs: float32 (n, channels, height, width). tensors: the names of those to look at; None for all. Memory
    grows with the batch and the number of tensors, not with the number of images.
    """
    exposed = onnx.ModelProto()
    exposed.CopyFrom(model)
    input_name = model.graph.input[0].name
    known = {output.name for output in exposed.graph.output}
    for node in exposed.graph.node:
        for name in node.output:
            if name not in known and (tensors is None or name in tensors):
                exposed.graph.output.append(onnx.ValueInfoProto(name=name))
    options = onnxruntime.SessionOptions()
    # Fused nodes would hide the tensors between them.
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(exposed.SerializeToString(), options, providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs() if output.type == "tensor(float)"]
    batches = [inputs[start : start + batch_size] for start in range(0, len(inputs), batch_size)]
    extremes: dict[str, Range] = {input_name: (float(inputs.min()), float(inputs.max()))}
    for batch in batches:
        for name, value in zip(names, session.run(names, {input_name: batch}), strict=True):
            low, high = extremes.get(name, (np.inf, -np.inf))
            extremes[name] = min(low, float(value.min())), max(high, float(value.max()))
    counts = {name: np.zeros(N_BINS) for name in extremes}
    for batch in batches:
        values = dict(zip(names, session.run(names, {input_name: batch}), strict=True))
        for name, value in {input_name: batch, **values}.items():
            # Limits in float64: float32 may not have as many values between them as there are bins.
            low, high = _not_empty(*extremes[name])
            counts[name] += np.histogram(thinned(value), N_BINS, (np.float64(low), np.float64(high)))[0]
    return {name: Histogram(*_not_empty(*extremes[name]), counts[name]) for name in extremes}


def thinned(values: NDArray[np.float32], most: int = VALUES_PER_IMAGE) -> NDArray[np.float32]:
    """Return every k-th value of every image (n, ...), (n, m) with m at most `most`, k as small as that allows.

    Tensors with no axis beside the images' are returned as they are.
    k has no divisor in common with the last axis, so that the values come from everywhere in it.
    """
    if values.ndim < 2:
        return values
    rows = values.reshape(len(values), -1)
    step = math.ceil(rows.shape[1] / most)
    while math.gcd(step, values.shape[-1]) > 1:
        step += 1
    return rows[:, ::step]


def _not_empty(low: float, high: float) -> Range:
    return low, high if high > low else low + 1e-6 * max(1.0, abs(low))
