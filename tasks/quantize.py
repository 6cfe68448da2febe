"""Bring every model to int8, the cheapest way first, and keep what stays as good."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from torch import Tensor

from kinglet.atomic import write_bytes
from kinglet.compression.bias_correction import correct_biases
from kinglet.compression.calibration import Histogram, stream_histograms
from kinglet.compression.equalization import equalize
from kinglet.compression.fusion import fusions_of
from kinglet.compression.guard import Verdict, judge, set_aside
from kinglet.compression.quantization import Predict, Variant, compare, quantize_static, spare_layers, try_methods
from kinglet.compression.quantization_aware_training import simulate_int8, train_simulated, without_simulation
from kinglet.compression.rounding import round_weights
from kinglet.compression.saturation import emulated_logits, unknown_operators
from kinglet.compression.saturation_variants import spare_saturating_layers
from kinglet.data.batches import gather, shuffled_batches, standardize
from kinglet.errors import KingletError
from kinglet.models.export import add_metadata, to_onnx
from kinglet.reporting import Report
from kinglet.runtime.bundles import MODEL, WITHOUT_VNNI
from kinglet.runtime.preprocessing import Preprocessing, normalize
from kinglet.runtime.processors import available_processors
from kinglet.runtime.sessions import logits_of, open_session
from kinglet.training.devices import pick_device
from kinglet.training.loop import ImageSet
from tasks.artifacts import DISTILL, FINETUNE, PRUNE, QUANTIZE, ModelCard, model_folders, write_card
from tasks.models import image_set, load_model, prepare_training, read_manifest
from tasks.parameters import Parameters, Quantize
from tasks.progress import progress
from tasks.stage import run_stage

# Training images that no calibration and no training of this step sees. All of them judge whether a model is good
# enough; the first of them choose between variants by divergence, which needs fewer images than counting errors.
CHOICE_IMAGES = 6000
DIVERGENCE_IMAGES = 2000
# Calibration images that bias correction takes its means from.
CORRECTION_IMAGES = 64
# And those that rounding takes the second moments of a layer's inputs from.
ROUNDING_IMAGES = 256
QAT_BATCH = 64


@dataclass(frozen=True)
class Candidate:
    """An int8 model, how it was made, and the float model and histograms it was made from."""

    quantized: onnx.ModelProto
    variant: Variant
    source: onnx.ModelProto
    histograms: dict[str, Histogram]
    is_rounded: bool = False
    is_corrected: bool = False


@dataclass(frozen=True)
class Bench:
    """What the steps work with: one float model, its images for each role, and the judgement on a candidate.

    calibration: float32 (n, channels, height, width). training: the images of quantization-aware training.
    choice: those that decide between variants. predict: a model's logits for them.
    score: agreement and divergence of an int8 model. judge: the verdict on it.
    """

    network: torch.nn.Module
    card: ModelCard
    model: onnx.ModelProto
    calibration: NDArray[np.float32]
    training: ImageSet
    choice: ImageSet
    preprocessing: Preprocessing
    settings: Quantize
    seed: int
    report: Report
    predict: Predict
    score: Callable[[onnx.ModelProto], tuple[float, float]]
    judge: Callable[[onnx.ModelProto], Verdict]


def run(parameters: Parameters) -> None:
    """Quantize the models that the settings name; all of them where they name none."""
    settings = parameters.quantize
    prepare_training(parameters.seed)
    folders = {folder.name: folder for folder in model_folders(FINETUNE, DISTILL, PRUNE)}
    if not folders:
        raise KingletError(f"{FINETUNE} holds no model.", "Run `dvc repro`, which runs what is missing first.")
    unknown = [name for name in settings.models if name not in folders]
    if unknown:
        raise KingletError(f"params.yaml: quantize.models names {', '.join(unknown)}; known: {', '.join(folders)}.")
    manifest = read_manifest()
    QUANTIZE.mkdir(parents=True, exist_ok=True)
    for name in settings.models or folders:
        quantize_model(folders[name], manifest, settings, parameters.seed)


def quantize_model(folder: Path, manifest: Any, settings: Quantize, seed: int) -> None:
    """Quantize one model, the cheapest way first, until the guard lets it pass."""
    network, card = load_model(folder)
    preprocessing = Preprocessing(card.input_size, card.channels, card.fit, tuple(card.mean), tuple(card.std))
    with progress(f"quantize {card.name}") as report:
        bench = set_up(folder, network, card, preprocessing, manifest, settings, seed, report)
        candidate, tried = calibrated(bench)
        candidate, verdict, steps = climb(candidate, bench)
    quantized = candidate.quantized
    add_metadata(quantized, {"preprocessing": preprocessing.to_dict(), "classes": card.classes})
    output = QUANTIZE / f"{card.name}-int8"
    write_bytes(output / MODEL, quantized.SerializeToString())
    fusions = fusions_of(quantized)
    unfused = fusions.float_layers - len(candidate.variant.float_layers)
    if unfused:
        print(f"warning: ONNX Runtime computes {unfused} quantized layers of {output.name} in float.", file=sys.stderr)
    notes = {
        "steps": steps,
        "variant": asdict(candidate.variant),
        "tried": [asdict(item) for item in tried],
        "guard": verdict.to_dict(),
        "runtime": {**fusions.to_dict(), "unfused_layers": unfused},
        "without_vnni": judge_without_vnni(output, candidate, bench),
    }
    made = replace(card, name=output.name, step="quantize", parent=card.name, precision="int8", control_for="")
    write_card(output, replace(made, notes=notes))


def judge_without_vnni(output: Path, candidate: Candidate, bench: Bench) -> dict[str, Any]:
    """Return what the model is worth on x86 processors without VNNI; write a file for them where it is too little.

    Too little is less than the tolerance allows, or than the model has elsewhere if that is less already.
    """
    quantized = candidate.quantized
    if unknown := unknown_operators(quantized):
        return {"not_emulated": f"the emulator knows no {', '.join(unknown)}"}
    target = min(
        accuracy_on_choice(bench.model, bench) - bench.settings.tolerance, accuracy_on_choice(quantized, bench)
    )
    accuracy, saturated = emulated_accuracy(quantized, bench)
    notes: dict[str, Any] = {
        "accuracy_on_choice_images": accuracy,
        "saturated_pairs": dict(+saturated),
        "variant": None,
    }
    if accuracy < target:
        reduced = quantize_static(candidate.source, candidate.histograms, candidate.variant.method, 7)
        reduced.metadata_props.MergeFrom(quantized.metadata_props)
        emulate = partial(emulated_accuracy, bench=bench)
        variant, model = spare_saturating_layers(quantized, reduced, saturated, emulate, target)
        write_bytes(output / WITHOUT_VNNI, model.SerializeToString())
        notes["variant"] = {**asdict(variant), "file": WITHOUT_VNNI, "within_tolerance": variant.accuracy >= target}
    return notes


def accuracy_on_choice(model: onnx.ModelProto, bench: Bench) -> float:
    """Return the accuracy of a model on the images that decide between variants."""
    return float((bench.predict(model).argmax(1) == bench.choice.labels).mean())


def emulated_accuracy(model: onnx.ModelProto, bench: Bench) -> tuple[float, Counter[str]]:
    """Return the accuracy that a model has there on processors without VNNI, and its saturated pairs by layer."""
    packed, rows = bench.choice.packed[bench.card.input_size], bench.choice.rows
    logits, saturated = emulated_logits(model, packed, rows, bench.preprocessing, available_processors())
    return float((logits.argmax(1) == bench.choice.labels).mean()), saturated


def set_up(
    folder: Path,
    network: torch.nn.Module,
    card: ModelCard,
    preprocessing: Preprocessing,
    manifest: Any,
    settings: Quantize,
    seed: int,
    report: Report,
) -> Bench:
    """Give every image of the training split its role, and return what the steps work with."""
    size = card.input_size
    images = image_set(manifest, "train", [size])
    calibration, choice, rest = set_aside(len(images.rows), settings.calibration_images, CHOICE_IMAGES, seed)
    model = onnx.load(folder / "model.onnx")

    def logits(candidate: onnx.ModelProto, places: NDArray[np.int64]) -> NDArray[np.float32]:
        session = open_session(candidate.SerializeToString(), threads=1)
        rows = images.rows[places]
        return logits_of(session, images.packed[size], rows, preprocessing, workers=available_processors())

    reference = logits(model, choice)
    n = min(DIVERGENCE_IMAGES, len(choice))

    def predict(candidate: onnx.ModelProto) -> NDArray[np.float32]:
        return reference[:n] if candidate is model else logits(candidate, choice[:n])

    return Bench(
        network,
        card,
        model,
        normalize(np.asarray(images.packed[size][images.rows[calibration]]), preprocessing),
        ImageSet(images.packed, images.rows[rest], images.labels[rest]),
        ImageSet(images.packed, images.rows[choice[:n]], images.labels[choice[:n]]),
        preprocessing,
        settings,
        seed,
        report,
        predict,
        lambda candidate: compare(reference[:n], predict(candidate)),
        lambda candidate: judge(logits(candidate, choice), reference, images.labels[choice], settings.tolerance),
    )


def climb(candidate: Candidate, bench: Bench) -> tuple[Candidate, Verdict, list[dict[str, Any]]]:
    """Take the steps until the guard lets the model pass; return it, the verdict, and what every step did.

    What a step makes is kept if its divergence is smaller.
    """
    steps = [record("calibration", candidate, True)]
    verdict = bench.judge(candidate.quantized)
    for name, step in STEPS.items():
        # Bias correction takes a second and costs nothing afterwards: it is tried in any case.
        if verdict.is_enough and name != BIAS_CORRECTION:
            break
        made = step(candidate, bench)
        if made is None:
            continue
        kept = made.variant.divergence < candidate.variant.divergence
        steps.append(record(name, made, kept))
        bench.report(1, 1, f"{name}, divergence {made.variant.divergence:.5f}, {'kept' if kept else 'not kept'}")
        if kept:
            candidate, verdict = made, bench.judge(made.quantized)
    return candidate, verdict, steps


def record(name: str, candidate: Candidate, kept: bool) -> dict[str, Any]:
    """Return what a model's notes say about one step."""
    return {"step": name, "divergence": candidate.variant.divergence, "kept": kept}


def calibrated(bench: Bench) -> tuple[Candidate, list[Variant]]:
    """Return the best of all calibrations, and all of them."""
    histograms = stream_histograms(bench.model, bench.calibration)
    methods, bits = bench.settings.methods, bench.settings.weight_bits
    tried, variant, quantized = try_methods(bench.model, histograms, methods, bits, bench.predict)
    bench.report(1, 1, f"{variant.method}, {variant.weight_bits} bits, agreement {variant.agreement:.4f}")
    return Candidate(quantized, variant, bench.model, histograms), tried


def corrected(candidate: Candidate, bench: Bench) -> Candidate:
    """Return the candidate with the means of its layers' outputs brought back."""
    images = bench.calibration[:CORRECTION_IMAGES]
    correction = correct_biases(candidate.source, candidate.quantized, images)
    if correction.refused:
        names = ", ".join(correction.refused)
        print(f"warning: {bench.card.name}: the biases of {names} have no room for a correction.", file=sys.stderr)
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
    quantized = round_weights(candidate.source, again, bench.calibration[:ROUNDING_IMAGES])
    plain = scored(replace(candidate, quantized=quantized, is_rounded=True, is_corrected=False), bench)
    return min(plain, corrected(plain, bench), key=lambda item: item.variant.divergence)


def partly_in_float(candidate: Candidate, bench: Bench) -> Candidate | None:
    """Return the candidate with layers left in float."""
    if not bench.settings.max_float_layers:
        return None

    def finish(quantized: onnx.ModelProto) -> onnx.ModelProto:
        if candidate.is_rounded:
            quantized = round_weights(candidate.source, quantized, bench.calibration[:ROUNDING_IMAGES])
        if candidate.is_corrected:
            quantized = correct_biases(candidate.source, quantized, bench.calibration[:CORRECTION_IMAGES]).model
        return quantized

    variant, quantized = spare_layers(
        candidate.source,
        candidate.histograms,
        candidate.variant,
        bench.settings.max_float_layers,
        lambda spared: bench.judge(spared).is_enough,
        bench.predict,
        finish,
        bench.report,
    )
    return replace(candidate, quantized=quantized, variant=variant)


def trained(candidate: Candidate, bench: Bench) -> Candidate | None:
    """Return the candidate after quantization-aware training."""
    if not bench.settings.qat_epochs:
        return None
    return made_from(train_aware(candidate.variant.weight_bits, bench), candidate, bench)


def made_from(source: onnx.ModelProto, candidate: Candidate, bench: Bench) -> Candidate:
    """Return an int8 model of another float model, made as the candidate was, with or without correction."""
    histograms = stream_histograms(source, bench.calibration)
    variant = candidate.variant
    quantized = quantize_static(source, histograms, variant.method, variant.weight_bits, variant.float_layers)
    plain = scored(Candidate(quantized, variant, source, histograms), bench)
    return min(plain, corrected(plain, bench), key=lambda item: item.variant.divergence)


def scored(candidate: Candidate, bench: Bench) -> Candidate:
    """Return the candidate with the agreement and divergence of its own model."""
    agreement, divergence = bench.score(candidate.quantized)
    return replace(candidate, variant=replace(candidate.variant, agreement=agreement, divergence=divergence))


def train_aware(weight_bits: int, bench: Bench) -> onnx.ModelProto:
    """Return the model after quantization-aware training, as a float ONNX model."""
    card, training, settings = bench.card, bench.training, bench.settings
    device = pick_device()
    simulated = simulate_int8(bench.network, weight_bits).to(device)
    original = bench.network.eval().to(device)

    def batches() -> Iterator[tuple[Tensor, Tensor]]:
        generator = torch.Generator().manual_seed(bench.seed)
        while True:
            for positions in shuffled_batches(len(training.rows), QAT_BATCH, generator):
                pixels = gather(training.packed[card.input_size], training.rows[positions]).to(device)
                inputs = standardize(pixels, card.mean, card.std)
                with torch.no_grad():
                    logits = original(inputs)
                yield inputs, logits  # outside, or the training would run without gradients

    n_steps = max(1, round(settings.qat_epochs * len(training.rows) / QAT_BATCH))
    train_simulated(simulated, batches(), n_steps, settings.qat_learning_rate, bench.report)
    return to_onnx(without_simulation(simulated.cpu()), card.input_size, card.channels, {})


# The cheapest first: what costs a second, what costs a calibration, what costs latency, what costs a training.
BIAS_CORRECTION = "bias correction"
STEPS: dict[str, Callable[[Candidate, Bench], Candidate | None]] = {
    BIAS_CORRECTION: corrected,
    "cross-layer equalization": equalized,
    "rounding by layer": rounded,
    "layers in float": partly_in_float,
    "quantization-aware training": trained,
}


if __name__ == "__main__":
    run_stage(run)
