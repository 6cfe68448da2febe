"""Small detectors as ONNX files, with images on which they see something."""

from __future__ import annotations

from functools import cache

import numpy as np
import onnx
import torch

from kinglet.compression.calibration import stream_histograms
from kinglet.compression.quantization import quantize_static
from kinglet.models.export import to_onnx
from kinglet.models.onnx_graph import DETECTOR_OUTPUTS
from kinglet.runtime.preprocessing import Preprocessing, normalize
from tests.unit.models.test_detector import SIZE, lively, small_detector

CLASSES = ["red cell", "white cell", "<platelet>"]
PREPROCESSING = Preprocessing(SIZE, 3, "pad", (0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
# Logits are lifted so that a few dozen places of an image show an object.
LIFT = 3.0


def pictures(count: int, size: int = SIZE, seed: int = 0) -> np.ndarray:
    """Return images of soft blots, uint8 (count, size, size, 3)."""
    generator = np.random.default_rng(seed)
    y, x = np.mgrid[:size, :size] / size
    images = np.zeros((count, size, size, 3))
    for image in images:
        for _ in range(6):
            across, down = generator.random(2)
            blot = np.exp(-((x - across) ** 2 + (y - down) ** 2) / generator.uniform(0.002, 0.03))
            image[:] += blot[:, :, None] * generator.uniform(40, 200, 3)
    return images.clip(0, 255).astype(np.uint8)


@cache
def detector_file() -> bytes:
    """Return an untrained detector as the bytes of its file."""
    with torch.no_grad():
        network = lively(small_detector(len(CLASSES)))
        # The exporter stores equal tensors once; those of a trained network are not equal.
        for level, (classes, distances) in enumerate(zip(network.head.classes, network.head.distances, strict=True)):
            classes.bias += LIFT + 0.01 * level
            distances.weight *= 0.3
            distances.bias -= 0.5 + 0.01 * level
    facts = {"classes": CLASSES, "preprocessing": PREPROCESSING.to_dict(), "problem": "detection"}
    return to_onnx(network, SIZE, 3, facts, DETECTOR_OUTPUTS).SerializeToString()


@cache
def int8_file(weight_bits: int = 8) -> bytes:
    """Return the same detector in int8."""
    model = onnx.load_from_string(detector_file())
    histograms = stream_histograms(model, normalize(pictures(16, seed=1), PREPROCESSING))
    return quantize_static(model, histograms, "minmax", weight_bits).SerializeToString()
