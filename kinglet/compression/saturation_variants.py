"""A variant of an int8 file for processors without VNNI: 7-bit weights in the layers that saturate."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import onnx

from kinglet.compression.quantization import weighted_layers

# Returns a model's quality without VNNI (a classifier's accuracy), and its saturated pairs by layer.
Emulate = Callable[[onnx.ModelProto], tuple[float, Counter[str]]]


@dataclass(frozen=True)
class WithoutVnni:
    """What became of a file on processors without VNNI.

    quality: there, [0, 1]; a classifier's accuracy. layers: those with 7-bit weights.
    """

    quality: float
    layers: tuple[str, ...]


def spare_saturating_layers(
    model: onnx.ModelProto,
    reduced: onnx.ModelProto,
    saturated: Counter[str],
    emulate: Emulate,
    target: float,
) -> tuple[WithoutVnni, onnx.ModelProto]:
    """Give 7-bit weights to as few layers as it takes, those first that saturate most often.

    model: the int8 model. reduced: from the same float model and ranges with 7-bit weights in all layers,
    which saturate nowhere. saturated: pairs by layer. 1, 2, 4, 8 ... and at last all layers are tried until
    the quality without VNNI reaches `target`; if it never does, the best attempt is returned.
    """
    order = [name for name, count in saturated.most_common() if count]
    counts = [2**power for power in range(len(order).bit_length()) if 2**power < len(order)]
    attempts = []
    for layers in [*(order[:count] for count in counts), weighted_layers(reduced)]:
        whole = len(layers) == len(weighted_layers(reduced))
        candidate = reduced if whole else with_layers_of(model, reduced, layers)
        attempts.append((WithoutVnni(emulate(candidate)[0], tuple(layers)), candidate))
        if attempts[-1][0].quality >= target:
            return attempts[-1]
    return max(attempts, key=lambda attempt: attempt[0].quality)


def with_layers_of(model: onnx.ModelProto, other: onnx.ModelProto, layers: Sequence[str]) -> onnx.ModelProto:
    """Return `model` with the stored weights and biases of these layers taken from `other`.

    Both were quantized from the same float model with the same ranges, so that their names agree.
    """
    stored = {item.name: item for item in other.graph.initializer}
    makers = {name: node for node in model.graph.node for name in node.output}
    replaced = {
        name
        for node in model.graph.node
        if node.name in layers
        for source in node.input[1:]
        for name in (makers[source].input if source in makers else ())
    }
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    for item in copy.graph.initializer:
        if item.name in replaced:
            item.CopyFrom(stored[item.name])
    return copy
