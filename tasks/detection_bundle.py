"""The bundle of a detector: the model, the same with suppression inside, golden objects, and a card of its own."""

from __future__ import annotations

import shutil
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from pyarrow.parquet import ParquetFile

from kinglet.atomic import read_json, write_bytes
from kinglet.compression.detector_without_vnni import detector_without_vnni
from kinglet.compression.saturation import unknown_operators
from kinglet.errors import KingletError
from kinglet.models.suppression import with_suppression
from kinglet.runtime import bundles
from kinglet.runtime.detection import DETECTOR_OUTPUTS, Detections, run_detector
from kinglet.runtime.golden_detections import table_of
from kinglet.runtime.preprocessing import Preprocessing, model_input, placement
from kinglet.runtime.sessions import open_session, read_metadata
from kinglet.runtime.sketches import Reference
from kinglet.runtime.thresholds import Thresholds
from tasks.artifacts import BENCHMARK, BOXES, BUNDLE, EVALUATE, SPLIT, ModelCard, packed_images
from tasks.detection_model_card import DetectionEvidence, detection_model_card
from tasks.image_tables import read_parquet
from tasks.monitoring_reference import monitoring_reference
from tasks.sealed_bundle import seal_and_open

GOLDEN_IMAGES = 10
# Beside the model: for those who have no numpy where it runs.
WITH_SUPPRESSION = "model-with-nms.onnx"


def bundle_detector(chosen: Path, card: ModelCard, reason: str) -> None:
    """Write the bundle of the chosen detector. reason: why it was chosen, in a sentence."""
    images = np.asarray(np.load(packed_images(card.input_size), mmap_mode="r")[golden_rows(GOLDEN_IMAGES)])
    scores, benchmark = read_json(EVALUATE / "scores.json"), read_json(BENCHMARK / "latency.json")
    evidence = DetectionEvidence(
        scores=scores["models"][card.name],
        latency=benchmark["models"][card.name],
        reference_latency=benchmark["models"][scores["teacher"]],
        device=benchmark["device"],
        threads=benchmark["threads"],
        counts=read_json(SPLIT / "counts.json") if (SPLIT / "counts.json").is_file() else {},
        reason=reason,
    )
    thresholds = Thresholds()
    text = detection_model_card(card, thresholds, evidence)
    pack_detector(
        BUNDLE,
        chosen,
        chosen.with_name(bundles.WITHOUT_VNNI),
        images,
        text,
        thresholds,
        monitoring_reference(chosen, card),
    )


def pack_detector(
    bundle: Path,
    chosen: Path,
    without_vnni: Path,
    images: NDArray[np.uint8],
    text: str,
    thresholds: Thresholds,
    reference: Reference | None = None,
) -> None:
    """Write a bundle and open it once; its checksums come last, so a half-written one is never opened.

    chosen: the model's file. without_vnni: its variant for x86 processors without VNNI; there may be none. images: the
    golden ones, packed as the model takes them. text: the model card. reference: what monitoring compares with.
    """
    # Nothing of an earlier bundle may stay: the checksums would seal it in.
    shutil.rmtree(bundle, ignore_errors=True)
    write_bytes(bundle / bundles.MODEL, chosen.read_bytes())
    preprocessing, classes = read_metadata(open_session(bundle / bundles.MODEL, threads=1, outputs=DETECTOR_OUTPUTS))
    golden: dict[str, NDArray[Any]] = {bundles.GOLDEN_IMAGES: images}
    golden[bundles.EXACT_DETECTIONS] = golden_table(chosen, images, preprocessing, thresholds, saturate=False)
    served = [chosen]
    if without_vnni.is_file():
        write_bytes(bundle / bundles.WITHOUT_VNNI, without_vnni.read_bytes())
        served.append(without_vnni)
    if is_int8(chosen) and not unknown_operators(onnx.load(chosen)):
        golden[bundles.SATURATED_DETECTIONS] = golden_table(
            served[-1], images, preprocessing, thresholds, saturate=True
        )
    suppressing = with_suppression(onnx.load(chosen), thresholds.score, thresholds.iou, thresholds.most)
    write_bytes(bundle / WITH_SUPPRESSION, suppressing.SerializeToString())
    further = {bundles.THRESHOLDS: thresholds.to_dict()}
    seal_and_open(
        bundle,
        preprocessing,
        classes,
        golden,
        text,
        problem=bundles.DETECTION,
        further=further,
        reference=reference,
    )


def is_int8(file: Path) -> bool:
    """Return whether an ONNX file computes in integers."""
    return any(node.op_type == "QuantizeLinear" for node in onnx.load(file).graph.node)


def golden_table(
    file: Path, images: NDArray[np.uint8], preprocessing: Preprocessing, thresholds: Thresholds, *, saturate: bool
) -> NDArray[np.float32]:
    """Return what a detector finds in packed images, on x86 without VNNI if `saturate`, elsewhere if not."""
    edge = preprocessing.input_size
    where = [placement(edge, edge, edge, preprocessing.fit)]
    found: list[Detections] = []
    # Exact sums ONNX Runtime has on every processor, by slower kernels.
    compute = (
        detector_without_vnni(onnx.load(file))
        if saturate
        else partial(run_detector, open_session(file, threads=1, outputs=DETECTOR_OUTPUTS))
    )
    for image in images:
        outputs = np.concatenate(compute(model_input(image[None], preprocessing)), axis=2)
        found += thresholds.decode(outputs, where)
    return table_of(found)


def golden_rows(count: int) -> NDArray[np.int64]:
    """Return the rows of `count` test images with objects, in order of the data set.

    Raises KingletError if no test image has an object.
    """
    rows = read_parquet(SPLIT / "manifest.parquet", ["index"], "test")["index"].to_numpy().astype(np.int64)
    with ParquetFile(BOXES) as opened:
        with_objects = np.intersect1d(rows, opened.read(columns=["index"])["index"].to_numpy())
    if not len(with_objects):
        raise KingletError("No test image shows an object: nothing would prove that the bundle works.")
    return with_objects[:count].astype(np.int64)
