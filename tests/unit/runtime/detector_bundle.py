"""Bundles of small detectors, packed as the step does it."""

from __future__ import annotations

from pathlib import Path

from kinglet.atomic import write_bytes
from kinglet.runtime.thresholds import Thresholds
from tasks.detection_bundle import pack_detector
from tests.unit.models.detector_files import detector_file, int8_file, pictures

CARD = "# blood cells\n\nFinds cells.\n"


def build_detector_bundle(root: Path, *, int8: bool = False, without_vnni: bool = False) -> Path:
    """Write a bundle of a small detector and return its folder."""
    write_bytes(root / "made/model.onnx", int8_file() if int8 else detector_file())
    if without_vnni:
        write_bytes(root / "made/model-without-vnni.onnx", int8_file(7))
    made = root / "made"
    pack_detector(
        root / "bundle",
        made / "model.onnx",
        made / "model-without-vnni.onnx",
        pictures(6, seed=9),
        CARD,
        Thresholds(most=50),
    )
    return root / "bundle"
