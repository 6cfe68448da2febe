"""Step `bundle`: pack the chosen model with everything needed to serve it, and open it once to prove that it works."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

from kinglet.atomic import read_json, write_bytes
from kinglet.compression.saturation import logits_without_vnni, unknown_operators
from kinglet.runtime import bundles
from kinglet.runtime.engines import ONNXRUNTIME
from kinglet.runtime.preprocessing import Preprocessing
from kinglet.runtime.sessions import gather_logits, logits_of, open_session, read_metadata, softmax
from kinglet.runtime.sketches import Reference
from tasks.artifacts import BUNDLE, SELECT, ModelCard, packed_images, read_card
from tasks.bundle_evidence import golden_rows, read_evidence
from tasks.clip_bundle import bundle_clip_network
from tasks.detection_bundle import bundle_detector
from tasks.model_card import model_card
from tasks.monitoring_reference import monitoring_reference
from tasks.opened_models import OpenedModel, files_of, open_model
from tasks.parameters import Parameters
from tasks.sealed_bundle import seal_and_open
from tasks.segmentation_bundle import bundle_segmenter
from tasks.stage import run_stage

GOLDEN_IMAGES = 10


def run(parameters: Parameters) -> None:  # noqa: ARG001 (every step takes the parameters)
    """Write the bundle of the chosen model; its checksums come last, so a half-written one is never opened."""
    choice = read_json(SELECT / "choice.json")
    chosen = Path(choice["model"])
    card = read_card(chosen.parent)
    PACKERS[card.problem](chosen, card, choice["reason"])


def bundle_classifier(chosen: Path, card: ModelCard, reason: str) -> None:
    """Write the bundle of the chosen classifier. reason: why it was chosen, in a sentence."""
    model = open_model(chosen.parent, card, threads=1)
    rows, labels = golden_rows(GOLDEN_IMAGES)
    images = np.asarray(np.load(packed_images(model.preprocessing.input_size), mmap_mode="r")[rows])
    text = model_card(card, model.preprocessing, read_evidence(card.name, reason))
    reference = monitoring_reference(chosen, card)
    if card.runtime == ONNXRUNTIME:
        without_vnni = chosen.parent / bundles.WITHOUT_VNNI
        pack(BUNDLE, chosen, without_vnni, card.precision == "int8", images, labels, text, reference)
    else:
        pack_converted(BUNDLE, model, card, chosen.parent, images, labels, text, reference)


def pack(
    bundle: Path,
    chosen: Path,
    without_vnni: Path,
    is_int8: bool,
    images: NDArray[np.uint8],
    labels: NDArray[np.int64],
    text: str,
    reference: Reference | None = None,
) -> None:
    """Write a bundle and open it once; its checksums come last, so a half-written one is never opened.

    chosen: the model's file. without_vnni: its variant for x86 processors without VNNI; there may be none. images,
    labels: the golden ones, packed as the model takes them. text: the model card. reference: what monitoring compares
    with; without one the bundle cannot be monitored.
    """
    # Nothing of an earlier bundle may stay: the checksums would seal it in.
    shutil.rmtree(bundle, ignore_errors=True)
    write_bytes(bundle / bundles.MODEL, chosen.read_bytes())
    preprocessing, classes = read_metadata(open_session(bundle / bundles.MODEL, threads=1))
    if without_vnni.is_file():
        write_bytes(bundle / bundles.WITHOUT_VNNI, without_vnni.read_bytes())
    golden: dict[str, NDArray[Any]] = {
        bundles.GOLDEN_IMAGES: images,
        "labels": labels,
        bundles.EXACT: answers(chosen, images, preprocessing, saturate=False),
    }
    if is_int8 and not unknown_operators(onnx.load(chosen)):
        file = without_vnni if without_vnni.is_file() else chosen
        golden[bundles.SATURATED] = answers(file, images, preprocessing, saturate=True)
    seal_and_open(bundle, preprocessing, classes, golden, text, reference=reference)


def pack_converted(
    bundle: Path,
    model: OpenedModel,
    card: ModelCard,
    folder: Path,
    images: NDArray[np.uint8],
    labels: NDArray[np.int64],
    text: str,
    reference: Reference,
) -> None:
    """Write a bundle of a model that was converted for another runtime, as `pack` does of an ONNX file.

    folder: where the model's files lie. The golden answers are that runtime's, with a tolerance of their own.
    """
    shutil.rmtree(bundle, ignore_errors=True)
    for file in files_of(folder, card):
        write_bytes(bundle / file.name, file.read_bytes())
    logits = gather_logits(model.engine.run, len(model.classes), images, np.arange(len(images)), model.preprocessing)
    golden: dict[str, NDArray[Any]] = {
        bundles.GOLDEN_IMAGES: images,
        "labels": labels,
        bundles.EXACT: softmax(logits),
        bundles.TOLERANCE: np.array([bundles.tolerance_of_converted(card.precision)]),
    }
    seal_and_open(bundle, model.preprocessing, model.classes, golden, text, runtime=card.runtime, reference=reference)


def answers(file: Path, images: NDArray[np.uint8], preprocessing: Preprocessing, saturate: bool) -> NDArray[np.float32]:
    """Return a model's probabilities for packed images, on x86 without VNNI if `saturate`, elsewhere if not.

    A model with operators that cannot be emulated counts as one that answers alike on all.
    """
    rows, model = np.arange(len(images)), onnx.load(file)
    if saturate and not unknown_operators(model):
        return softmax(logits_without_vnni(model, images, rows, preprocessing))
    return softmax(logits_of(open_session(file, threads=1), images, rows, preprocessing))


# What packs the model of a problem.
PACKERS: dict[str, Callable[[Path, ModelCard, str], None]] = {
    bundles.CLASSIFICATION: bundle_classifier,
    bundles.DETECTION: bundle_detector,
    bundles.SEGMENTATION: bundle_segmenter,
    bundles.VIDEO: bundle_clip_network,
}


if __name__ == "__main__":
    run_stage(run)
