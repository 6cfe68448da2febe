"""Bring every model to int8, the cheapest way first, and keep what stays as good."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from torch import Tensor

from kinglet.atomic import write_bytes
from kinglet.compression.classification_judge import ClassificationJudge, LabelledRows
from kinglet.compression.guard import set_aside
from kinglet.compression.judge import Judge
from kinglet.compression.ladder import STEPS, Bench, Candidate, Settings, Step, made_from, open_bench, scored
from kinglet.compression.learned_steps import SimulatedFile, untrainable_operators
from kinglet.compression.pixel_input import share_normalization
from kinglet.compression.quantization_aware_training import simulate_int8, train_simulated, without_simulation
from kinglet.compression.quantized import Quantized, quantize_up
from kinglet.data.batches import gather, shuffled_batches, standardize
from kinglet.errors import KingletError
from kinglet.models.export import to_onnx
from kinglet.reporting import Report
from kinglet.runtime.bundles import MODEL, WITHOUT_VNNI
from kinglet.training.devices import pick_device
from kinglet.training.loop import ImageSet
from tasks.artifacts import (
    DISTILL,
    FINETUNE,
    PRUNE,
    QUANTIZE,
    ModelCard,
    model_folders,
    read_card,
    refuse_unknown_models,
    write_card,
)
from tasks.clip_quantize import judged_clip_classifiers, quantize_recurrence
from tasks.compression_settings import Quantize
from tasks.detection_quantize import judged_detectors
from tasks.models import image_set, load_model, prepare_training, read_manifest
from tasks.parameters import Parameters
from tasks.progress import progress
from tasks.segmentation_quantize import judged_segmenters
from tasks.setting_values import LEARNED
from tasks.stage import run_stage
from tasks.stored_weights import write_stored_weights

# Training images that no calibration and no training of this step sees. They judge whether a model is good enough.
CHOICE_IMAGES = 6000
QAT_BATCH = 64
QUANTIZATION_AWARE_TRAINING = "quantization-aware training"


@dataclass(frozen=True)
class Given:
    """A model to be quantized and what there is for it. manifest: the usable images with their split."""

    folder: Path
    network: torch.nn.Module
    card: ModelCard
    manifest: Any
    settings: Quantize
    seed: int
    report: Report


@dataclass(frozen=True)
class Judged:
    """What int8 models are calibrated on and judged by, and the steps of the ladder.

    calibration: packed images, uint8 (n, size, size, channels).
    """

    calibration: NDArray[np.uint8]
    judge: Judge
    steps: dict[str, Step] = field(default_factory=lambda: dict(STEPS))


@dataclass(frozen=True)
class Training:
    """What quantization-aware training works with: the network, its images and how long it is trained."""

    network: torch.nn.Module
    card: ModelCard
    images: ImageSet
    settings: Quantize
    seed: int


def run(parameters: Parameters) -> None:
    """Quantize the models that the settings name; where they name none, all but the controls."""
    settings = parameters.quantize
    prepare_training(parameters.seed)
    folders = {folder.name: folder for folder in model_folders(FINETUNE, DISTILL, PRUNE)}
    if not folders:
        raise KingletError(f"{FINETUNE} holds no model.", "Run `dvc repro`, which runs what is missing first.")
    refuse_unknown_models("quantize.models", settings.models, folders)
    manifest = read_manifest()
    QUANTIZE.mkdir(parents=True, exist_ok=True)
    for_themselves = [name for name, folder in folders.items() if not read_card(folder).control_for]
    for name in settings.models or for_themselves:
        quantize_model(folders[name], manifest, settings, parameters.seed)


def quantize_model(folder: Path, manifest: Any, settings: Quantize, seed: int) -> None:
    """Quantize one model, the cheapest way first, until the guard lets it pass."""
    network, card = load_model(folder)
    with progress(f"quantize {card.name}") as report:
        model = onnx.load(folder / MODEL)
        judged = JUDGED[card.problem](model, Given(folder, network, card, manifest, settings, seed, report))
        bench = bench_of(model, judged, card, settings, report)
        quantized = quantize_up(bench, judged.steps, card.classes)
    write_stored_weights(model, card, judged.judge, settings.stored_weights, settings.tolerance, warn)
    output = QUANTIZE / f"{card.name}-int8"
    write_bytes(output / MODEL, quantized.model.SerializeToString())
    if quantized.unfused_layers:
        warn(f"ONNX Runtime computes {quantized.unfused_layers} quantized layers of {output.name} in float.")
    if quantized.without_vnni is not None:
        write_bytes(output / WITHOUT_VNNI, quantized.without_vnni.SerializeToString())
    preprocessing = quantized.preprocessing
    beside = BESIDE[card.problem](folder, output, quantized, card, settings, seed) if card.problem in BESIDE else {}
    made = replace(card, name=output.name, step="quantize", parent=card.name, precision="int8", control_for="")
    write_card(
        output,
        replace(
            made,
            mean=list(preprocessing.mean),
            std=list(preprocessing.std),
            takes_pixels=preprocessing.takes_pixels,
            notes={**quantized.notes, **beside},
        ),
    )


def bench_of(model: onnx.ModelProto, judged: Judged, card: ModelCard, settings: Quantize, report: Report) -> Bench:
    """Return what the steps work with."""
    return open_bench(
        card.name,
        model,
        judged.calibration,
        judged.judge,
        card.preprocessing,
        Settings(settings.methods, settings.weight_bits, settings.tolerance, settings.max_float_layers),
        report,
        warn,
        uint8_input=settings.uint8_input,
    )


def judged_classifiers(model: onnx.ModelProto, given: Given) -> Judged:
    """Give every image of the training split its role: those that train are the last step's."""
    card, settings = given.card, given.settings
    images = image_set(given.manifest, "train", [card.input_size])
    packed = images.packed[card.input_size]
    calibration, choice, rest = (
        LabelledRows(packed, images.rows[places], images.labels[places])
        for places in set_aside(len(images.rows), settings.calibration_images, CHOICE_IMAGES, given.seed)
    )
    training = Training(given.network, card, ImageSet(images.packed, rest.rows, rest.labels), settings, given.seed)
    return Judged(calibration.images, ClassificationJudge(model, choice, card.preprocessing), steps_of(training))


def warn(sentence: str) -> None:
    """Print a warning to stderr."""
    print(f"warning: {sentence}", file=sys.stderr)


def steps_of(training: Training) -> dict[str, Step]:
    """Return the steps of the ladder, and last the one that costs a training."""
    return {**STEPS, QUANTIZATION_AWARE_TRAINING: partial(trained, training=training)}


def trained(candidate: Candidate, bench: Bench, training: Training) -> Candidate | None:
    """Return the candidate after quantization-aware training."""
    if not training.settings.qat_epochs:
        return None
    if training.settings.qat_steps == LEARNED:
        unknown = untrainable_operators(candidate.quantized)
        if not unknown:
            return with_learned_steps(candidate, bench, training)
        bench.warn(f"{bench.name}: {', '.join(unknown)} cannot be trained with learned steps: ranges are averaged.")
    source = train_aware(candidate.variant.weight_bits, training, bench.report)
    if bench.takes_pixels:
        shared = share_normalization(source, training.card.preprocessing)
        assert shared is not None
        source = shared[0]
    return made_from(source, candidate, bench)


def with_learned_steps(candidate: Candidate, bench: Bench, training: Training) -> Candidate:
    """Return the candidate after a training of its file's own weights, biases and steps."""
    device = pick_device()
    simulated = SimulatedFile(candidate.quantized, candidate.source, candidate.variant.weight_bits).to(device)
    given = bench.preprocessing
    train(simulated, training, list(given.mean), list(given.std), bench.report)
    learned = simulated.cpu().learned()
    histograms = {**candidate.histograms, **learned.ranges}
    made = replace(candidate, quantized=learned.quantized, source=learned.source, histograms=histograms)
    return scored(made, bench)


def train_aware(weight_bits: int, training: Training, report: Report) -> onnx.ModelProto:
    """Return the model after quantization-aware training with averaged ranges, as a float ONNX model."""
    card = training.card
    simulated = simulate_int8(training.network, weight_bits).to(pick_device())
    train(simulated, training, card.mean, card.std, report)
    return to_onnx(without_simulation(simulated.cpu()), card.input_size, card.channels, {})


def train(simulated: torch.nn.Module, training: Training, mean: list[float], std: list[float], report: Report) -> None:
    """Train a simulated network towards the float network's answers, in place.

    mean, std: those of the simulated network's images.
    """
    card, images, settings = training.card, training.images, training.settings
    device = pick_device()
    original = training.network.eval().to(device)

    def batches() -> Iterator[tuple[Tensor, Tensor]]:
        generator = torch.Generator().manual_seed(training.seed)
        while True:
            for positions in shuffled_batches(len(images.rows), QAT_BATCH, generator):
                pixels = gather(images.packed[card.input_size], images.rows[positions]).to(device)
                with torch.no_grad():
                    logits = original(standardize(pixels, card.mean, card.std))
                yield standardize(pixels, mean, std), logits  # outside, or the training would run without gradients

    n_steps = max(1, round(settings.qat_epochs * len(images.rows) / QAT_BATCH))
    train_simulated(simulated, batches(), n_steps, settings.qat_learning_rate, report)


# What the models of a problem are calibrated on and judged by, and how they are made better.
JUDGED: dict[str, Callable[[onnx.ModelProto, Given], Judged]] = {
    "classification": judged_classifiers,
    "detection": lambda model, given: Judged(*judged_detectors(model, given.card, given.settings, given.seed)),
    "segmentation": lambda model, given: Judged(*judged_segmenters(model, given.card, given.settings, given.seed)),
    "video": lambda model, given: Judged(
        *judged_clip_classifiers(given.folder, model, given.card, given.settings, given.seed)
    ),
}
# What is written beside the int8 file of a problem whose models have more than one, and what is noted of it.
BESIDE: dict[str, Callable[[Path, Path, Quantized, ModelCard, Quantize, int], dict[str, Any]]] = {
    "video": lambda folder, output, quantized, card, settings, seed: quantize_recurrence(
        folder, output, quantized.model, quantized.preprocessing, card, settings, seed
    ),
}


if __name__ == "__main__":
    run_stage(run)
