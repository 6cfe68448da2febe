"""Bring every model to int8, the cheapest way first, and keep what stays as good."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from torch import Tensor

from kinglet.atomic import write_bytes
from kinglet.compression.calibration import stream_histograms
from kinglet.compression.quantization import quantize_static, spare_layers, try_methods
from kinglet.compression.quantization_aware_training import simulate_int8, train_simulated, without_simulation
from kinglet.compression.saturation import Emulator, emulated_logits, unknown_operators
from kinglet.compression.saturation_variants import Emulate, spare_saturating_layers
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

# Images of the validation split that decide between variants; agreement on them is known to about 0.5 points.
CHOICE_IMAGES = 2000
QAT_BATCH = 64

Scores = Callable[[onnx.ModelProto], NDArray[np.float32]]


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
    """Quantize one model: calibrate, then spare layers, then train, until it is within the tolerance."""
    network, card = load_model(folder)
    size = card.input_size
    training, validation = image_set(manifest, "train", [size]), image_set(manifest, "validation", [size])
    preprocessing = Preprocessing(size, card.channels, card.fit, tuple(card.mean), tuple(card.std))
    chosen = np.random.default_rng(seed).permutation(len(training.rows))[: settings.calibration_images]
    calibration = normalize(np.asarray(training.packed[size][training.rows[np.sort(chosen)]]), preprocessing)
    logits = logits_on(validation, size, preprocessing)
    labels = validation.labels[:CHOICE_IMAGES]

    def accuracy(model: onnx.ModelProto) -> float:
        return float((logits(model).argmax(1) == labels).mean())

    model = source = onnx.load(folder / "model.onnx")
    target = accuracy(model) - settings.tolerance
    with progress(f"quantize {card.name}") as report:
        histograms = stream_histograms(model, calibration)
        tried, variant, quantized = try_methods(model, histograms, settings.methods, settings.weight_bits, logits)
        report(1, 1, f"{variant.method}, {variant.weight_bits} bits, agreement {variant.agreement:.4f}")
        steps = ["calibration"]
        if accuracy(quantized) < target and settings.max_float_layers:
            steps.append("float layers")
            variant, quantized = spare_layers(
                model,
                histograms,
                variant,
                settings.max_float_layers,
                lambda candidate: accuracy(candidate) >= target,
                logits,
                report,
            )
        if accuracy(quantized) < target and settings.qat_epochs:
            trained, trained_histograms = train_aware(
                network, card, training, calibration, variant.weight_bits, settings, seed, report
            )
            candidate = quantize_static(
                trained, trained_histograms, variant.method, variant.weight_bits, variant.float_layers
            )
            steps.append("quantization-aware training")
            if accuracy(candidate) > accuracy(quantized):
                quantized, source, histograms = candidate, trained, trained_histograms
            else:
                steps.append("its result was not better and is not used")
    add_metadata(quantized, {"preprocessing": preprocessing.to_dict(), "classes": card.classes})
    output = QUANTIZE / f"{card.name}-int8"
    write_bytes(output / MODEL, quantized.SerializeToString())
    reduced = quantize_static(source, histograms, variant.method, 7)
    add_metadata(reduced, {"preprocessing": preprocessing.to_dict(), "classes": card.classes})
    emulate = emulated_accuracy(validation, size, preprocessing, accuracy)
    notes = {
        "steps": steps,
        "variant": asdict(variant),
        "tried": [asdict(item) for item in tried],
        "accuracy_on_choice_images": {"float": target + settings.tolerance, "int8": accuracy(quantized)},
        "within_tolerance": accuracy(quantized) >= target,
        "without_vnni": judge_without_vnni(output, quantized, reduced, emulate, min(target, accuracy(quantized))),
    }
    write_card(
        output, replace(card, name=output.name, step="quantize", parent=card.name, precision="int8", notes=notes)
    )


def judge_without_vnni(
    output: Path, quantized: onnx.ModelProto, reduced: onnx.ModelProto, emulate: Emulate, target: float
) -> dict[str, Any]:
    """Return what the model is worth on processors without VNNI; write a file for them where it is below `target`."""
    if unknown := unknown_operators(quantized):
        return {"not_emulated": f"the emulator knows no {', '.join(unknown)}"}
    accuracy, saturated = emulate(quantized)
    notes: dict[str, Any] = {
        "accuracy_on_choice_images": accuracy,
        "saturated_pairs": dict(+saturated),
        "variant": None,
    }
    if accuracy < target:
        variant, model = spare_saturating_layers(quantized, reduced, saturated, emulate, target)
        write_bytes(output / WITHOUT_VNNI, model.SerializeToString())
        notes["variant"] = {**asdict(variant), "file": WITHOUT_VNNI, "within_tolerance": variant.accuracy >= target}
    return notes


def emulated_accuracy(
    images: ImageSet, size: int, preprocessing: Preprocessing, exact: Callable[[onnx.ModelProto], float]
) -> Emulate:
    """Return a function from a model to its accuracy without VNNI on the images that decide between variants.

    exact: gives the accuracy of a model that cannot saturate.
    """
    rows, labels = images.rows[:CHOICE_IMAGES], images.labels[:CHOICE_IMAGES]

    def emulate(model: onnx.ModelProto) -> tuple[float, Counter[str]]:
        if not Emulator(model).layers_at_risk:
            return exact(model), Counter()
        packed, workers = images.packed[size], available_processors()
        logits, saturated = emulated_logits(model, packed, rows, preprocessing, workers)
        return float((logits.argmax(1) == labels).mean()), saturated

    return emulate


def logits_on(images: ImageSet, size: int, preprocessing: Preprocessing) -> Scores:
    """Return a function from a model to its logits for the images that decide between variants."""
    rows = images.rows[:CHOICE_IMAGES]

    def logits(model: onnx.ModelProto) -> NDArray[np.float32]:
        session = open_session(model.SerializeToString(), threads=1)
        return logits_of(session, images.packed[size], rows, preprocessing, workers=available_processors())

    return logits


def train_aware(
    network: torch.nn.Module,
    card: ModelCard,
    training: ImageSet,
    calibration: NDArray[np.float32],
    weight_bits: int,
    settings: Quantize,
    seed: int,
    report: Report,
) -> tuple[onnx.ModelProto, Any]:
    """Return the model after quantization-aware training, as a float ONNX model, and its histograms."""
    device = pick_device()
    simulated = simulate_int8(network, weight_bits).to(device)
    original = network.eval().to(device)

    def batches() -> Iterator[tuple[Tensor, Tensor]]:
        generator = torch.Generator().manual_seed(seed)
        while True:
            for positions in shuffled_batches(len(training.rows), QAT_BATCH, generator):
                pixels = gather(training.packed[card.input_size], training.rows[positions]).to(device)
                inputs = standardize(pixels, card.mean, card.std)
                with torch.no_grad():
                    logits = original(inputs)
                yield inputs, logits  # outside, or the training would run without gradients

    n_steps = max(1, round(settings.qat_epochs * len(training.rows) / QAT_BATCH))
    train_simulated(simulated, batches(), n_steps, settings.qat_learning_rate, report)
    model = to_onnx(without_simulation(simulated.cpu()), card.input_size, card.channels, {})
    return model, stream_histograms(model, calibration)


if __name__ == "__main__":
    run_stage(run)
