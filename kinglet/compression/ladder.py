"""The ladder of int8: ways to quantize a model, the cheapest first, until the guard lets the result pass.

A step takes the candidate at hand and returns another; a new step is a function and a line in `STEPS`. Whoever can
train adds a last one that does (the stage `quantize`).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

from kinglet.compression.bias_correction import correct_biases
from kinglet.compression.calibration import FixedRange, Statistics, stream_histograms
from kinglet.compression.equalization import equalize
from kinglet.compression.guard import Verdict
from kinglet.compression.judge import Judge
from kinglet.compression.pixel_input import pixel_ranges, share_normalization
from kinglet.compression.quantization import Score, Variant, quantize_static, spare_layers, try_methods
from kinglet.compression.rounding import round_weights
from kinglet.reporting import Report
from kinglet.runtime.preprocessing import Preprocessing, normalize

# Calibration images that bias correction takes its means from.
CORRECTION_IMAGES = 64
# And those that rounding takes the second moments of a layer's inputs from.
ROUNDING_IMAGES = 256
# Calibration images whose tensors are in memory at once.
HISTOGRAM_IMAGES = 32
# What these numbers are for: images of up to so many pixels at the edge. Of larger ones fewer fit into the memory.
USUAL_EDGE = 224


@dataclass(frozen=True)
class Settings:
    """What is tried. methods: keys of `METHODS`. weight_bits: of 8 and 7. tolerance: what may be lost of the
    problem's score.
    """

    methods: Sequence[str]
    weight_bits: Sequence[int]
    tolerance: float
    max_float_layers: int


@dataclass(frozen=True)
class Candidate:
    """An int8 model, how it was made, and the float model and histograms it was made from."""

    quantized: onnx.ModelProto
    variant: Variant
    source: onnx.ModelProto
    histograms: Mapping[str, Statistics]
    is_rounded: bool = False
    is_corrected: bool = False


@dataclass(frozen=True)
class Bench:
    """What the steps work with: one float model, the images it is calibrated on, and the judgement on a candidate.

    calibration: float32 (n, channels, height, width). preprocessing: of the float model and of every candidate.
    score: agreement and divergence of an int8 model. verdict: that of the guard on it. quality, quality_without_vnni:
    as the judge's. reference_quality, quality_name: of the float model, and what it is called. warn: is told in a
    sentence what a user should know. takes_pixels: whether the int8 file is to take pixels in the end, for which the
    first layer was made (`share_normalization`).
    """

    name: str
    model: onnx.ModelProto
    calibration: NDArray[np.float32]
    preprocessing: Preprocessing
    settings: Settings
    report: Report
    warn: Callable[[str], None]
    score: Score
    verdict: Callable[[onnx.ModelProto], Verdict]
    quality: Callable[[onnx.ModelProto], float]
    quality_without_vnni: Callable[[onnx.ModelProto], tuple[float, Counter[str]]]
    reference_quality: float
    quality_name: str
    takes_pixels: bool = False


Step = Callable[[Candidate, Bench], Candidate | None]


def open_bench(
    name: str,
    model: onnx.ModelProto,
    calibration: NDArray[np.uint8],
    judge: Judge,
    preprocessing: Preprocessing,
    settings: Settings,
    report: Report,
    warn: Callable[[str], None],
    *,
    uint8_input: bool = False,
) -> Bench:
    """Return what the steps work with.

    model: of float32, with the input `images`; the one that the judge holds every candidate against. calibration:
    packed images, uint8 (n, size, size, channels). uint8_input: whether the int8 file is to take pixels, where the
    graph allows it.
    """
    shared = share_normalization(model, preprocessing) if uint8_input else None
    if shared is not None:
        model, preprocessing = shared
    return Bench(
        name,
        model,
        normalize(calibration, preprocessing),
        preprocessing,
        settings,
        report,
        warn,
        partial(judge.score, preprocessing=preprocessing),
        partial(judge.verdict, preprocessing=preprocessing, tolerance=settings.tolerance),
        partial(judge.quality, preprocessing=preprocessing),
        partial(judge.quality_without_vnni, preprocessing=preprocessing),
        judge.reference_quality,
        judge.quality_name,
        takes_pixels=shared is not None,
    )


def as_many(count: int, images: NDArray[np.float32]) -> int:
    """Return how many of these images take the memory of `count` usual ones, at least 1.

    images: float32 (n, channels, height, width).
    """
    edge = max(USUAL_EDGE, *images.shape[2:])
    return max(1, count * USUAL_EDGE**2 // edge**2)


def first_of(bench: Bench, count: int) -> NDArray[np.float32]:
    """Return the first `count` calibration images; as many as take the same memory, where they are large."""
    return bench.calibration[: as_many(count, bench.calibration)]


def climb(
    candidate: Candidate, bench: Bench, steps: Mapping[str, Step]
) -> tuple[Candidate, Verdict, list[dict[str, Any]]]:
    """Take the steps until the guard lets the model pass; return it, the verdict, and what every step did.

    What a step makes is kept if it is better, as `is_better` says.
    """
    verdict = bench.verdict(candidate.quantized)
    taken = [record("calibration", candidate, verdict, True)]
    for name, step in steps.items():
        # Bias correction takes a second and costs nothing afterwards: it is tried in any case.
        if verdict.is_enough and name != BIAS_CORRECTION:
            break
        made = step(candidate, bench)
        if made is None:
            continue
        found = bench.verdict(made.quantized)
        kept = is_better((made, found), (candidate, verdict))
        taken.append(record(name, made, found, kept))
        bench.report(1, 1, f"{name}, divergence {made.variant.divergence:.5f}, {'kept' if kept else 'not kept'}")
        if kept:
            candidate, verdict = made, found
    return candidate, verdict, taken


def is_better(made: tuple[Candidate, Verdict], before: tuple[Candidate, Verdict]) -> bool:
    """Return whether a step made a better model: one that passes the guard where the one before does not.

    Where both pass or neither does, the nearer one is better. It is the guard that knows whether a model is good
    enough: layers in float may bring the score back though the answers at places that count for nothing differ more,
    and what comes nearer may fail where its predecessor passed.
    """
    (candidate, verdict), (other, other_verdict) = made, before
    if verdict.is_enough != other_verdict.is_enough:
        return verdict.is_enough
    return candidate.variant.divergence < other.variant.divergence


def record(name: str, candidate: Candidate, verdict: Verdict, kept: bool) -> dict[str, Any]:
    """Return what a model's notes say about one step."""
    return {
        "step": name,
        "divergence": candidate.variant.divergence,
        "within_tolerance": verdict.is_enough,
        "kept": kept,
    }


def calibrated(bench: Bench) -> tuple[Candidate, list[Variant]]:
    """Return the best of all calibrations, and all of them."""
    histograms = statistics_of(bench.model, bench)
    methods, bits = bench.settings.methods, bench.settings.weight_bits
    tried, variant, quantized = try_methods(bench.model, histograms, methods, bits, bench.score)
    bench.report(1, 1, f"{variant.method}, {variant.weight_bits} bits, agreement {variant.agreement:.4f}")
    return Candidate(quantized, variant, bench.model, histograms), tried


def statistics_of(source: onnx.ModelProto, bench: Bench) -> dict[str, Statistics]:
    """Return the histograms of a float model's tensors, and the range of the pixels where the file is to take them."""
    at_once = as_many(HISTOGRAM_IMAGES, bench.calibration)
    histograms: dict[str, Statistics] = {**stream_histograms(source, bench.calibration, at_once)}
    if bench.takes_pixels:
        fixed = pixel_ranges(bench.preprocessing)
        histograms |= {name: FixedRange(*fixed[name]) for name in fixed if name in histograms}
    return histograms


def corrected(candidate: Candidate, bench: Bench) -> Candidate:
    """Return the candidate with the means of its layers' outputs brought back."""
    images = first_of(bench, CORRECTION_IMAGES)
    correction = correct_biases(candidate.source, candidate.quantized, images)
    if correction.refused:
        names = ", ".join(correction.refused)
        bench.warn(f"{bench.name}: the biases of {names} have no room for a correction.")
    return scored(replace(candidate, quantized=correction.model, is_corrected=True), bench)


def equalized(candidate: Candidate, bench: Bench) -> Candidate | None:
    """Return the candidate made anew from equalized weights; None if no two layers can be equalized."""
    source, n_pairs = equalize(candidate.source)
    return made_from(source, candidate, bench) if n_pairs else None


def rounded(candidate: Candidate, bench: Bench) -> Candidate:
    """Return the candidate made anew with weights rounded by what their layers give, with or without correction."""
    variant = candidate.variant
    again = quantize_static(
        candidate.source, candidate.histograms, variant.method, variant.weight_bits, variant.float_layers
    )
    quantized = round_weights(candidate.source, again, first_of(bench, ROUNDING_IMAGES))
    plain = scored(replace(candidate, quantized=quantized, is_rounded=True, is_corrected=False), bench)
    return min(plain, corrected(plain, bench), key=lambda item: item.variant.divergence)


def partly_in_float(candidate: Candidate, bench: Bench) -> Candidate | None:
    """Return the candidate with layers left in float."""
    if not bench.settings.max_float_layers:
        return None

    variant, quantized = spare_layers(
        candidate.source,
        candidate.histograms,
        candidate.variant,
        bench.settings.max_float_layers,
        lambda spared: bench.verdict(spared).is_enough,
        bench.score,
        lambda spared: finished_like(candidate, spared, bench),
        bench.report,
    )
    return replace(candidate, quantized=quantized, variant=variant)


def finished_like(candidate: Candidate, quantized: onnx.ModelProto, bench: Bench) -> onnx.ModelProto:
    """Return another int8 model of the candidate's float model, rounded and corrected as the candidate is."""
    if candidate.is_rounded:
        quantized = round_weights(candidate.source, quantized, first_of(bench, ROUNDING_IMAGES))
    if candidate.is_corrected:
        quantized = correct_biases(candidate.source, quantized, first_of(bench, CORRECTION_IMAGES)).model
    return quantized


def made_from(source: onnx.ModelProto, candidate: Candidate, bench: Bench) -> Candidate:
    """Return an int8 model of another float model, made as the candidate was, with or without correction."""
    histograms = statistics_of(source, bench)
    variant = candidate.variant
    quantized = quantize_static(source, histograms, variant.method, variant.weight_bits, variant.float_layers)
    plain = scored(Candidate(quantized, variant, source, histograms), bench)
    return min(plain, corrected(plain, bench), key=lambda item: item.variant.divergence)


def scored(candidate: Candidate, bench: Bench) -> Candidate:
    """Return the candidate with the agreement and divergence of its own model."""
    agreement, divergence = bench.score(candidate.quantized)
    return replace(candidate, variant=replace(candidate.variant, agreement=agreement, divergence=divergence))


# The cheapest first: what costs a second, what costs a calibration, what costs latency.
BIAS_CORRECTION = "bias correction"
STEPS: dict[str, Step] = {
    BIAS_CORRECTION: corrected,
    "cross-layer equalization": equalized,
    "rounding by layer": rounded,
    "layers in float": partly_in_float,
}
