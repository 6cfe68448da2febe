"""Activations that the quantizer took out although the range that took their place does not cut off what they did."""

from __future__ import annotations

from functools import partial

import numpy as np

from kinglet.compression.calibration import Histogram, Range, minmax_range
from kinglet.compression.doctor.findings import WARNING, Finding, counted
from kinglet.compression.doctor.graph import Graph
from kinglet.compression.doctor.layers import Pair
from kinglet.compression.doctor.matching import IDENTITY, Activation
from kinglet.compression.doctor.repairs import with_ranges
from kinglet.compression.doctor.subject import Subject


def check_activations(subject: Subject) -> list[Finding]:
    """Return a finding if activations of the float file act nowhere in the int8 file.

    A quantizer may take a ReLU out where the range that its output is rounded to begins at 0. With int8 activations
    around 0 the range reaches as far below it, and the ReLU is lost (onnxruntime#9425, #11660). Needs the float file.
    """
    if subject.found is None:
        return []
    lost = lost_activations(subject)
    unrounded = _lost_without_a_pair(subject.graph, subject.found.activations)
    if not lost and not unrounded:
        return []
    reach = {name: -pair.grid.low for name, (pair, activation) in lost.items() if activation.low > pair.grid.low}
    ranges = {
        pair.quantize.name: _cut(subject.histograms[pair.quantize.output[0]], activation)
        for pair, activation in lost.values()
    }
    where = tuple(sorted(lost, key=lambda name: -reach.get(name, 0.0))) + tuple(unrounded)
    return [
        Finding(
            "dropped-activation",
            WARNING,
            where,
            f"The float file has a ReLU or Clip behind {counted(len(where), 'node')} that the int8 file has not, "
            "and no range in its place cuts off what it did.",
            {"activations": len(where), "furthest_below": round(max(reach.values(), default=0.0), 4)},
            "Quantize with uint8 activations, or asymmetric int8: a range that begins at 0 is a ReLU.",
            partial(with_ranges, ranges=ranges) if ranges else None,
        )
    ]


def lost_activations(subject: Subject) -> dict[str, tuple[Pair, Activation]]:
    """Return the nodes behind which an activation is lost, {name: (pair that should do its work, activation)}.

    Empty without the float file.
    """
    lost: dict[str, tuple[Pair, Activation]] = {}
    for pair in subject.graph.pairs:
        maker = subject.graph.makers.get(pair.tensor)
        if subject.found is None or maker is None or subject.graph.activation_after(maker) is not None:
            continue
        activation = subject.found.activations.get(maker.name, IDENTITY)
        if _lets_pass(pair, activation):
            lost[maker.name] = (pair, activation)
    return lost


def _lets_pass(pair: Pair, activation: Activation) -> bool:
    """Whether the range holds numbers that the activation would have cut off."""
    return pair.grid.low < activation.low - pair.grid.step or pair.grid.high > activation.high + pair.grid.step


def _lost_without_a_pair(graph: Graph, activations: dict[str, Activation]) -> list[str]:
    found = []
    for name, activation in activations.items():
        node = graph.by_name[name]
        rounded = graph.pair_on(node.output[0]) is not None
        if activation != IDENTITY and not rounded and graph.activation_after(node) is None:
            found.append(name)
    return sorted(found)


def _cut(histogram: Histogram, activation: Activation) -> Range:
    low, high = minmax_range(histogram)
    return max(low, activation.low), min(high, activation.high) if np.isfinite(activation.high) else high
