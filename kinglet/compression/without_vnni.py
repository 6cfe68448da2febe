"""What a quantized model is worth on x86 processors without VNNI, and a file for them where that is too little."""

from __future__ import annotations

from typing import Any

import onnx

from kinglet.compression.ladder import Bench, Candidate, finished_like
from kinglet.compression.quantization import quantize_static
from kinglet.compression.saturation import unknown_operators
from kinglet.compression.saturation_variants import spare_saturating_layers
from kinglet.runtime.bundles import WITHOUT_VNNI


def judge_without_vnni(candidate: Candidate, bench: Bench) -> tuple[dict[str, Any], onnx.ModelProto | None]:
    """Return the notes on the candidate's model there, and a variant of it where it is worth too little, else None.

    Too little is less quality than the tolerance allows, or than the model has elsewhere if that is less already. The
    variant's weights of 7 bits are rounded and its biases corrected as the candidate's are. Its file is to be called
    `WITHOUT_VNNI`.
    """
    quantized = candidate.quantized
    if unknown := unknown_operators(quantized):
        return {"not_emulated": f"the emulator knows no {', '.join(unknown)}"}, None
    target = min(bench.reference_quality - bench.settings.tolerance, bench.quality(quantized))
    quality, saturated = bench.quality_without_vnni(quantized)
    notes: dict[str, Any] = {
        f"{bench.quality_name}_on_choice_images": quality,
        "saturated_pairs": dict(+saturated),
        "variant": None,
    }
    if quality >= target:
        return notes, None
    made = candidate.variant
    reduced = quantize_static(candidate.source, candidate.histograms, made.method, 7, made.float_layers)
    reduced = finished_like(candidate, reduced, bench)
    variant, model = spare_saturating_layers(quantized, reduced, saturated, bench.quality_without_vnni, target)
    notes["variant"] = {
        bench.quality_name: variant.quality,
        "layers": variant.layers,
        "file": WITHOUT_VNNI,
        "within_tolerance": variant.quality >= target,
    }
    return notes, model
