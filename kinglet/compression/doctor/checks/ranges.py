"""Ranges of activations that cut off what occurs, or that leave most of their levels unused."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

import numpy as np
import onnx

from kinglet.compression.calibration import Histogram, minmax_range, mse_range, with_zero
from kinglet.compression.doctor.checks.activations import lost_activations
from kinglet.compression.doctor.findings import WARNING, Finding, counted
from kinglet.compression.doctor.layers import Grid, Pair
from kinglet.compression.doctor.repairs import with_ranges
from kinglet.compression.doctor.subject import Subject

# 6 dB are one bit: a range in which a tensor loses as much against the best one is worth a line.
LEAST_GAIN = 5.5
# Share of what is lost that has to come from cutting off for a range to be called too narrow.
CLIPPING_SHARE = 0.5
# Values this many times further out than all but one in ten thousand are outliers.
OUTLYING = 3.0


@dataclass(frozen=True)
class RangeFault:
    """A range that loses more than the best one would.

    node: what makes the tensor. gain_db: what the best range would take off the noise. clipped: share of values
    outside. used: share of the range between the smallest and the largest value. code: what is wrong with it.
    """

    node: str
    pair: Pair
    code: str
    gain_db: float
    clipped: float
    used: float


# {code: (what is wrong with a tensor's range, what to do)}
FAULTS = {
    "clipped-range": (
        "the range cuts off values that occur",
        "Calibrate with images like those of the data set, with the same preprocessing, or with a wider method.",
    ),
    "wide-range": (
        "the range is far wider than what occurs, so that most levels are never used",
        "Calibrate with images like those of the data set, with the same preprocessing.",
    ),
    "symmetric-range": (
        "the range lies around 0 although the values lie on one side of it, so that half of the levels are never used",
        "Quantize activations asymmetrically (ActivationSymmetric=False).",
    ),
    "outliers": (
        "the range is stretched by a few values far outside the others",
        "Calibrate by mean squared error or percentile instead of by the extremes.",
    ),
}


def check_ranges(subject: Subject) -> list[Finding]:
    """Return a finding for every kind of fault that ranges of activations have, the input's own aside.

    A range that should have cut off what a lost activation did is not named a second time.
    """
    source = subject.original.graph.input[0].name
    named = {pair.tensor for pair, _ in lost_activations(subject).values()}
    faults = [
        fault
        for pair in subject.graph.pairs
        if pair.tensor not in {source, *named} and (fault := fault_of(subject, pair)) is not None
    ]
    return [
        _finding(subject, code, [fault for fault in faults if fault.code == code])
        for code in FAULTS
        if any(fault.code == code for fault in faults)
    ]


def check_input_range(subject: Subject) -> list[Finding]:
    """Return a finding if the range of the file's input does not fit the images as they are prepared here.

    It shows the preprocessing that the file was calibrated with, whatever its documentation says.
    """
    source = subject.original.graph.input[0].name
    for pair in subject.graph.pairs:
        fault = fault_of(subject, pair) if pair.tensor == source else None
        if fault is not None:
            low, high = minmax_range(subject.histograms[pair.quantize.output[0]])
            return [
                Finding(
                    "input-range",
                    WARNING,
                    (pair.quantize.name,),
                    f"The file was calibrated on inputs from {pair.grid.low:.3g} to {pair.grid.high:.3g}; the images "
                    f"as they are prepared here lie between {low:.3g} and {high:.3g}.",
                    {
                        "calibrated": [round(pair.grid.low, 4), round(pair.grid.high, 4)],
                        "seen": [round(low, 4), round(high, 4)],
                        "clipped_share": round(fault.clipped, 6),
                        "noise_gain_db": round(fault.gain_db, 1),
                    },
                    "Calibrate with the preprocessing that the file is served with.",
                    _mend(subject, [fault]),
                )
            ]
    return []


def fault_of(subject: Subject, pair: Pair) -> RangeFault | None:
    """Return what is wrong with the range of a pair; None if the best range is not much better."""
    histogram = subject.histograms.get(pair.quantize.output[0])
    if histogram is None or pair.grid.per_channel or histogram.high == histogram.low:
        return None
    now, clipping = noise(histogram, pair.grid.low, pair.grid.high, pair.grid.levels)
    best, _ = noise(histogram, *mse_range(histogram), pair.grid.levels)
    gain = 10 * float(np.log10(now / best)) if best > 0 and now > 0 else 0.0
    if gain < LEAST_GAIN:
        return None
    outside = (histogram.centres < pair.grid.low - pair.grid.step) | (
        histogram.centres > pair.grid.high + pair.grid.step
    )
    clipped = float(histogram.counts[outside].sum() / histogram.counts.sum())
    low, high = minmax_range(histogram)
    used = (min(high, pair.grid.high) - max(low, pair.grid.low)) / (pair.grid.high - pair.grid.low)
    code = _code(histogram, pair.grid, clipping / now)
    maker = subject.graph.makers.get(pair.tensor)
    return RangeFault(pair.tensor if maker is None else maker.name, pair, code, gain, clipped, max(0.0, used))


def _code(histogram: Histogram, grid: Grid, clipping_share: float) -> str:
    if clipping_share > CLIPPING_SHARE:
        return "clipped-range"
    one_sided = histogram.low >= -grid.step or histogram.high <= grid.step
    if one_sided and min(-grid.low, grid.high) > 0.9 * max(-grid.low, grid.high):
        return "symmetric-range"
    shares = np.cumsum(histogram.counts) / histogram.counts.sum()
    first, last = (int(place) for place in np.searchsorted(shares, [5e-5, 1 - 5e-5]))
    centres = histogram.centres
    low, high = with_zero(float(centres[first]), float(centres[min(last, len(centres) - 1)]))
    return "outliers" if histogram.high - histogram.low > OUTLYING * (high - low) else "wide-range"


def noise(histogram: Histogram, low: float, high: float, levels: int) -> tuple[float, float]:
    """Return the mean squared error of rounding to a range and cutting off outside, and the part of cutting off.

    The part of rounding is a twelfth of the step squared for what lies inside.
    """
    shares = histogram.counts / histogram.counts.sum()
    beyond = histogram.centres - np.clip(histogram.centres, low, high)
    step = (high - low) / (levels - 1)
    clipping = float((shares * beyond**2).sum())
    return clipping + step**2 / 12 * float(shares[beyond == 0].sum()), clipping


def _finding(subject: Subject, code: str, faults: list[RangeFault]) -> Finding:
    what, repair = FAULTS[code]
    faults = sorted(faults, key=lambda fault: -fault.gain_db)
    worst = faults[0]
    return Finding(
        code,
        WARNING,
        tuple(fault.node for fault in faults),
        f"In {counted(len(faults), 'tensor')} {what}; the worst behind {worst.node}: {worst.pair.grid.low:.3g} to "
        f"{worst.pair.grid.high:.3g}, {worst.clipped:.2%} of the values outside, {worst.used:.0%} of it used.",
        {
            fault.node: {
                "range": [round(fault.pair.grid.low, 4), round(fault.pair.grid.high, 4)],
                "clipped_share": round(fault.clipped, 6),
                "used_share": round(fault.used, 4),
                "noise_gain_db": round(fault.gain_db, 1),
            }
            for fault in faults
        },
        repair,
        _mend(subject, faults),
    )


def _mend(subject: Subject, faults: list[RangeFault]) -> partial[onnx.ModelProto]:
    ranges = {
        fault.pair.quantize.name: mse_range(subject.histograms[fault.pair.quantize.output[0]]) for fault in faults
    }
    return partial(with_ranges, ranges=ranges)
