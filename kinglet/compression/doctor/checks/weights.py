"""Weights stored with one scale for all channels where every channel needs its own."""

from __future__ import annotations

from functools import partial

import numpy as np
from numpy.typing import NDArray

from kinglet.compression.doctor.findings import WARNING, Finding, counted
from kinglet.compression.doctor.layers import Layer
from kinglet.compression.doctor.repairs import with_weights_per_channel
from kinglet.compression.doctor.subject import Subject, names_of

# 6 dB are one bit. A layer whose noise falls by this much is worth a line.
LEAST_GAIN = 6.0
# A channel that uses fewer levels than 4 bits have.
FEW_LEVELS = 16


def check_weights(subject: Subject) -> list[Finding]:
    """Return a finding if scales per channel would lower the noise of weights by 6 dB or more."""
    gains = {layer.name: gain_per_channel(layer) for layer in subject.quantized if is_per_tensor(layer)}
    worth = sorted((name for name in gains if gains[name] >= LEAST_GAIN), key=lambda name: -gains[name])
    if not worth:
        return []
    layers = [subject.graph.layer[name] for name in worth]
    mendable = names_of(layer for layer in layers if subject.knows_weights(layer))
    few = {layer.name: int((levels_used(layer) < FEW_LEVELS).sum()) for layer in layers}
    n_channels = sum(len(layer.by_channel(layer.weights)) for layer in layers)
    known = "" if mendable else " What the weights were before rounding is not known without the float file."
    return [
        Finding(
            "per-tensor-weights",
            WARNING,
            tuple(worth),
            f"One scale for all channels in {counted(len(worth), 'layer')}: {sum(few.values())} of their {n_channels} "
            f"channels are left fewer than {FEW_LEVELS} of 255 levels.",
            {
                "layers": len(worth),
                "noise_gain_db": {name: round(gains[name], 1) for name in worth},
                "channels_with_few_levels": few,
            },
            f"Quantize the weights per channel (per_channel=True).{known}",
            partial(with_weights_per_channel, subject=subject, names=mendable) if mendable else None,
        )
    ]


def is_per_tensor(layer: Layer) -> bool:
    """Whether a layer of several channels stores its weights with one scale."""
    assert layer.weight is not None
    return not layer.weight.grid.per_channel and layer.weights.shape[layer.channel_axis] > 1


def gain_per_channel(layer: Layer) -> float:
    """Return by how many dB scales per channel would lower the noise of the layer's weights, at least 0.

    The noise of rounding is a twelfth of the step squared. A channel's own step is its largest weight over 127; the
    mean over channels is that of the ratios in dB, so that channels count alike, however small their weights are.
    """
    assert layer.weight is not None
    largest = np.abs(layer.by_channel(layer.weights)).max(1).astype(np.float64)
    alive = largest > 0
    own = largest[alive] / 127
    return max(0.0, float(np.mean(20 * np.log10(layer.weight.grid.step / own)))) if alive.any() else 0.0


def levels_used(layer: Layer) -> NDArray[np.int64]:
    """Return between how many integers the weights of every channel lie, int64 (channels,)."""
    assert layer.weight is not None
    rows = layer.by_channel(layer.weight.values).astype(np.int64)
    zero = int(layer.weight.grid.zero_point.ravel()[0])
    return np.asarray(2 * np.abs(rows - zero).max(1) + 1, np.int64)
