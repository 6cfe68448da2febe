"""What a quantized model is worth on x86 processors without VNNI, and a file for them where that is too little."""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict
from functools import partial
from typing import Any

import onnx

from kinglet.compression.ladder import Bench, Candidate
from kinglet.compression.quantization import quantize_static
from kinglet.compression.saturation import emulated_logits, unknown_operators
from kinglet.compression.saturation_variants import spare_saturating_layers
from kinglet.runtime.bundles import WITHOUT_VNNI
from kinglet.runtime.processors import available_processors


def judge_without_vnni(candidate: Candidate, bench: Bench) -> tuple[dict[str, Any], onnx.ModelProto | None]:
    """Return the notes on the candidate's model there, and a variant of it where it is worth too little, else None.

    Too little is less than the tolerance allows, or than the model has elsewhere if that is less already. The
    variant's file is to be called `WITHOUT_VNNI`.
    """
    quantized = candidate.quantized
    if unknown := unknown_operators(quantized):
        return {"not_emulated": f"the emulator knows no {', '.join(unknown)}"}, None
    target = min(
        accuracy_on_choice(bench.model, bench) - bench.settings.tolerance, accuracy_on_choice(quantized, bench)
    )
    accuracy, saturated = emulated_accuracy(quantized, bench)
    notes: dict[str, Any] = {
        "accuracy_on_choice_images": accuracy,
        "saturated_pairs": dict(+saturated),
        "variant": None,
    }
    if accuracy >= target:
        return notes, None
    reduced = quantize_static(candidate.source, candidate.histograms, candidate.variant.method, 7)
    emulate = partial(emulated_accuracy, bench=bench)
    variant, model = spare_saturating_layers(quantized, reduced, saturated, emulate, target)
    notes["variant"] = {**asdict(variant), "file": WITHOUT_VNNI, "within_tolerance": variant.accuracy >= target}
    return notes, model


def accuracy_on_choice(model: onnx.ModelProto, bench: Bench) -> float:
    """Return the accuracy of a model on the images that decide between variants."""
    return float((bench.predict(model).argmax(1) == bench.choice.labels).mean())


def emulated_accuracy(model: onnx.ModelProto, bench: Bench) -> tuple[float, Counter[str]]:
    """Return the accuracy that a model has there on processors without VNNI, and its saturated pairs by layer."""
    packed, rows = bench.choice.packed, bench.choice.rows
    logits, saturated = emulated_logits(model, packed, rows, bench.preprocessing, available_processors())
    return float((logits.argmax(1) == bench.choice.labels).mean()), saturated
