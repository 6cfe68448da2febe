"""The bundle of a segmenter: the model, golden masks, and a card of its own."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

from kinglet.atomic import read_json, write_bytes
from kinglet.compression.saturation import Emulator, unknown_operators
from kinglet.runtime import bundles
from kinglet.runtime.preprocessing import Preprocessing, model_input, placement
from kinglet.runtime.segmentation import Mask, decode_masks
from kinglet.runtime.sessions import open_session, read_metadata, run
from kinglet.runtime.sketches import Reference
from kinglet.runtime.vnni import products_saturate
from tasks.artifacts import BENCHMARK, BUNDLE, EVALUATE, SPLIT, ModelCard, packed_images
from tasks.detection_bundle import is_int8
from tasks.image_tables import read_parquet
from tasks.monitoring_reference import monitoring_reference
from tasks.sealed_bundle import seal_and_open
from tasks.segmentation_model_card import SegmentationEvidence, segmentation_model_card

GOLDEN_IMAGES = 4
# The share of a golden image's pixels that may be of another class: where two classes are nearly as likely, another
# processor's rounding decides, and in 8 bits a step is coarser.
FLOAT_TOLERANCE, INT8_TOLERANCE, EMULATED_TOLERANCE = 0.001, 0.01, 0.02


def bundle_segmenter(chosen: Path, card: ModelCard, reason: str) -> None:
    """Write the bundle of the chosen segmenter. reason: why it was chosen, in a sentence."""
    rows = read_parquet(SPLIT / "manifest.parquet", ["index"], "test")["index"].to_numpy()[:GOLDEN_IMAGES]
    images = np.asarray(np.load(packed_images(card.input_size), mmap_mode="r")[rows])
    scores, benchmark = read_json(EVALUATE / "scores.json"), read_json(BENCHMARK / "latency.json")
    evidence = SegmentationEvidence(
        scores=scores["models"][card.name],
        latency=benchmark["models"][card.name],
        reference_latency=benchmark["models"][scores["teacher"]],
        device=benchmark["device"],
        threads=benchmark["threads"],
        counts=read_json(SPLIT / "counts.json") if (SPLIT / "counts.json").is_file() else {},
        reason=reason,
        golden_tolerance=tolerance_of(chosen),
    )
    text = segmentation_model_card(card, evidence)
    pack_segmenter(
        BUNDLE, chosen, chosen.with_name(bundles.WITHOUT_VNNI), images, text, monitoring_reference(chosen, card)
    )


def pack_segmenter(
    bundle: Path,
    chosen: Path,
    without_vnni: Path,
    images: NDArray[np.uint8],
    text: str,
    reference: Reference | None = None,
) -> None:
    """Write a bundle and open it once; its checksums come last, so a half-written one is never opened.

    chosen: the model's file. without_vnni: its variant for x86 processors without VNNI; there may be none. images: the
    golden ones, packed as the model takes them. text: the model card. reference: what monitoring compares with.
    """
    # Nothing of an earlier bundle may stay: the checksums would seal it in.
    shutil.rmtree(bundle, ignore_errors=True)
    write_bytes(bundle / bundles.MODEL, chosen.read_bytes())
    preprocessing, classes = read_metadata(open_session(bundle / bundles.MODEL, threads=1))
    golden: dict[str, NDArray[Any]] = {
        bundles.GOLDEN_IMAGES: images,
        bundles.EXACT_MASKS: golden_masks(chosen, images, preprocessing, saturate=False),
        bundles.MASK_TOLERANCES[bundles.EXACT_MASKS]: np.array([tolerance_of(chosen)]),
    }
    served = chosen
    if without_vnni.is_file():
        write_bytes(bundle / bundles.WITHOUT_VNNI, without_vnni.read_bytes())
        served = without_vnni
    if is_int8(chosen) and not unknown_operators(onnx.load(chosen)):
        golden[bundles.SATURATED_MASKS] = golden_masks(served, images, preprocessing, saturate=True)
        golden[bundles.MASK_TOLERANCES[bundles.SATURATED_MASKS]] = np.array([EMULATED_TOLERANCE])
    seal_and_open(bundle, preprocessing, classes, golden, text, problem=bundles.SEGMENTATION, reference=reference)


def tolerance_of(file: Path) -> float:
    """Return the share of an image's pixels that may be of another class on another processor."""
    return INT8_TOLERANCE if is_int8(file) else FLOAT_TOLERANCE


def golden_masks(
    file: Path, images: NDArray[np.uint8], preprocessing: Preprocessing, *, saturate: bool
) -> NDArray[np.uint8]:
    """Return the masks of packed images, uint8 (n, size, size), on x86 without VNNI if `saturate`, else elsewhere."""
    edge = preprocessing.input_size
    where = [placement(edge, edge, edge, preprocessing.fit)]
    # Exact sums ONNX Runtime has on every processor, by slower kernels; saturated ones only where they are the usual.
    session = open_session(file, threads=1, exact_sums=not saturate)
    emulator = Emulator(onnx.load(file)) if saturate and not products_saturate() else None
    found: list[Mask] = []
    for image in images:
        tensor = model_input(image[None], preprocessing)
        logits = run(session, tensor) if emulator is None else emulator.run_all(tensor)[0][0]
        found += decode_masks(logits, where, [(edge, edge)])
    return np.stack(found)
