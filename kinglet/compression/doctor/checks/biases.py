"""Biases that int32 cannot hold, or whose steps no integer kernel has."""

from __future__ import annotations

from functools import partial

import numpy as np

from kinglet.compression.doctor.findings import WARNING, Finding, counted
from kinglet.compression.doctor.layers import Layer
from kinglet.compression.doctor.repairs import with_biases, with_weights_per_channel
from kinglet.compression.doctor.subject import Subject

INT32 = np.iinfo(np.int32)
# Steps that differ by less are the same number, rounded to float32 in another order.
SAME_STEP = 1e-3


def check_bias_overflow(subject: Subject) -> list[Finding]:
    """Return a finding if biases lie outside of what int32 holds in their steps (onnxruntime#22020).

    A step is the input's scale times the weight's. Where the weights of a channel are tiny its step is, too, and
    the bias is cut off or wraps round. With the float file every such bias is found, without it those at the limit.
    """
    found = {layer.name: share for layer in subject.quantized if (share := overflow(subject, layer)) > 0}
    if not found:
        return []
    names = sorted(found, key=lambda name: -found[name])
    mendable = [name for name in names if subject.knows_weights(subject.graph.layer[name])]
    return [
        Finding(
            "bias-overflow",
            WARNING,
            tuple(names),
            f"Biases of {counted(len(names), 'layer')} do not fit into int32: the weights of these channels are so "
            "small that the steps are, too.",
            {"channels_share": {name: round(found[name], 4) for name in names}},
            "Give such channels larger steps for their weights, or leave these layers in float."
            + ("" if mendable else " The true biases are not known without the float file."),
            partial(with_weights_per_channel, subject=subject, names=mendable, float_biases=True) if mendable else None,
        )
    ]


def overflow(subject: Subject, layer: Layer) -> float:
    """Return the share of a layer's channels whose bias int32 does not hold, [0, 1]."""
    if layer.bias is None or layer.bias.values.dtype != np.int32:
        return 0.0
    stored = layer.bias.values.astype(np.int64)
    outside = (stored >= INT32.max - 1) | (stored <= INT32.min + 1)
    if subject.knows_weights(layer):
        biases = subject.float_weights(layer.name)[1]
        if biases is not None and layer.weight is not None and layer.source is not None:
            outside |= np.abs(biases / (layer.source.scale.astype(np.float64) * layer.weight.grid.scale)) > INT32.max
    return float(outside.mean())


def check_bias_scales(subject: Subject) -> list[Finding]:
    """Return a finding if biases are stored in other steps than input scale times weight scale.

    The format allows any. The integers are added to sums of products, which have that step: an integer kernel has no
    other, so ONNX Runtime 1.32 computes such a layer in float.
    """
    ratios = {layer.name: ratio for layer in subject.quantized if (ratio := step_ratio(layer)) > 1 + SAME_STEP}
    if not ratios:
        return []
    names = sorted(ratios, key=lambda name: -ratios[name])
    layers = subject.graph.layer
    biases = {name: layers[name].biases for name in names}
    for name in names:
        if subject.knows_weights(layers[name]) and subject.float_weights(name)[1] is not None:
            biases[name] = subject.float_weights(name)[1]
    return [
        Finding(
            "bias-scale",
            WARNING,
            tuple(names),
            f"Biases of {counted(len(names), 'layer')} are stored in other steps than input scale times weight scale: "
            "no integer kernel can add them to its sums.",
            {"step_ratio": {name: round(ratios[name], 4) for name in names}},
            "Store them in steps of input scale times weight scale.",
            partial(with_biases, biases={name: values for name, values in biases.items() if values is not None}),
        )
    ]


def step_ratio(layer: Layer) -> float:
    """Return the largest factor between the steps a bias is stored in and those of the layer's sums; 1 if all agree."""
    if layer.bias is None or layer.weight is None or layer.source is None or layer.bias.values.dtype != np.int32:
        return 1.0
    of_sums = layer.source.scale.astype(np.float64) * layer.weight.grid.scale
    ratio = layer.bias.grid.scale.astype(np.float64) / of_sums
    # Where nothing is stored no step matters.
    used = np.broadcast_to(layer.bias.values != 0, np.broadcast_shapes(ratio.shape, layer.bias.values.shape))
    ratio = np.broadcast_to(ratio, used.shape)[used]
    return float(np.maximum(ratio, 1 / ratio).max()) if ratio.size else 1.0
