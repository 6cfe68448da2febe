"""What an int8 file loses on x86 processors without VNNI, where sums of two products saturate."""

from __future__ import annotations

from collections import Counter

import numpy as np
from numpy.typing import NDArray

from kinglet.compression.doctor.effects import Trials, difference, logits_of
from kinglet.compression.doctor.findings import CRITICAL, NOTE, WARNING, Finding, counted
from kinglet.compression.doctor.repairs import with_weights_per_channel
from kinglet.compression.doctor.subject import Subject
from kinglet.compression.saturation import Emulator, unknown_operators
from kinglet.runtime.vnni import products_saturate

# Emulating takes a hundred times as long as running.
IMAGES = 384
BATCH_SIZE = 32


def check_without_vnni(subject: Subject, trials: Trials, saturates: bool | None = None) -> list[Finding]:
    """Return a finding if the file answers worse where sums saturate, or if that cannot be told.

    saturates: whether this processor is such a one; None asks it.
    """
    obstacle = what_cannot_be_emulated(subject)
    if obstacle:
        return [
            Finding(
                "saturation-unknown",
                NOTE,
                (),
                f"What the file answers on x86 processors without VNNI was not computed: {obstacle}.",
                {},
                "Measure the file on such a processor if it is to run there.",
            )
        ]
    model = subject.graph.model
    saturates = products_saturate() if saturates is None else saturates
    emulator = Emulator(model)
    if not emulator.layers_at_risk:
        return []
    inputs, labels = trials.inputs[:IMAGES], trials.labels[:IMAGES]
    # A processor with VNNI gives the exact sums itself, much sooner.
    exact = _answers(emulator, inputs, saturate=False)[0] if saturates else logits_of(model, inputs)
    cut_off, pairs = _answers(emulator, inputs)
    layers = [name for name, count in pairs.most_common() if count]
    if not layers:
        return []
    loss = difference(cut_off, exact, labels)
    reduced = with_weights_per_channel(model, subject, layers, bits=7)
    answers, pairs_left = _answers(Emulator(reduced), inputs)
    kept = difference(answers, exact, labels)
    matters = loss.high < 0 and -loss.value > trials.tolerance
    severity = NOTE if not matters else CRITICAL if saturates else WARNING
    here = "this processor is one of them" if saturates else "this processor is none of them"
    return [
        Finding(
            "saturation",
            severity,
            tuple(layers),
            f"On x86 processors without VNNI sums saturate in {counted(len(layers), 'layer')}: "
            f"{100 * loss.value:+.2f} points ({100 * loss.low:+.2f} to {100 * loss.high:+.2f}) on {len(inputs)} "
            f"images; {here}.",
            {
                "accuracy_difference": loss.to_dict(),
                "with_7_bit_weights": kept.to_dict(),
                "saturated_pairs_with_7_bit_weights": pairs_left.total(),
                "images": len(inputs),
                "saturated_pairs": {name: count for name, count in pairs.most_common() if count},
            },
            f"For such processors: 7-bit weights (reduce_range=True) in these layers, {100 * kept.value:+.2f} points "
            "there against exact sums.",
        )
    ]


def what_cannot_be_emulated(subject: Subject) -> str:
    """Return a clause that says why the emulator does not apply to a file, "" if it does."""
    unknown = unknown_operators(subject.graph.model)
    if unknown:
        return f"the emulator knows no {', '.join(unknown)}"
    if not subject.quantized:
        return "no layer is quantized"
    if any(pair.grid.zero_point.dtype != np.uint8 for pair in subject.graph.pairs):
        return "it holds for uint8 activations only"
    if any(layer.weight is not None and layer.weight.values.dtype != np.int8 for layer in subject.quantized):
        return "it holds for int8 weights only"
    return ""


def _answers(
    emulator: Emulator, inputs: NDArray[np.float32], saturate: bool = True
) -> tuple[NDArray[np.float32], Counter[str]]:
    """Return the logits, and the saturated pairs by layer."""
    parts, pairs = [], Counter[str]()
    for start in range(0, len(inputs), BATCH_SIZE):
        logits, counted = emulator.run(inputs[start : start + BATCH_SIZE], saturate)
        parts.append(logits)
        pairs.update(counted)
    return np.concatenate(parts), pairs
