"""Small segmenters as ONNX files."""

from __future__ import annotations

from functools import cache

import onnx
import torch
from torch import nn

from kinglet.compression.calibration import stream_histograms
from kinglet.compression.quantization import quantize_static
from kinglet.models.export import to_onnx
from kinglet.models.inverted_residual import BlockSpec
from kinglet.models.segmenter import Segmenter, SegmenterSpec
from kinglet.runtime.preprocessing import Preprocessing, normalize
from tests.unit.models.detector_files import pictures
from tests.unit.models.test_detector import with_own_normalizations

SIZE = 64
CLASSES = ["background", "cell", "<wall>"]
PREPROCESSING = Preprocessing(SIZE, 3, "pad", (0.485, 0.456, 0.406), (0.229, 0.224, 0.225))


def block(channels: int, out: int, stride: int) -> BlockSpec:
    return BlockSpec(2 * channels, out, 3, stride, True, stride == 1 and channels == out)


BLOCKS = (block(8, 8, 1), block(8, 8, 2), block(8, 12, 2), block(12, 12, 1), block(12, 16, 2), block(16, 24, 2))


def small_segmenter(n_classes: int = len(CLASSES), channels: int = 3) -> Segmenter:
    """Return an untrained segmenter, the same every time."""
    torch.manual_seed(0)
    return Segmenter(SegmenterSpec(channels, 8, BLOCKS, n_classes, widths=(8, 8, 12, 16, 16)))


def lively_segmenter(n_classes: int = len(CLASSES), channels: int = 3) -> Segmenter:
    """Return an untrained segmenter whose classes differ from place to place."""
    network = with_own_normalizations(small_segmenter(n_classes, channels))
    assert isinstance(network, Segmenter)
    nn.init.normal_(network.classes.weight, std=0.5, generator=torch.Generator().manual_seed(2))
    return network


@cache
def segmenter_file() -> bytes:
    """Return a lively segmenter as the bytes of its file."""
    facts = {"classes": CLASSES, "preprocessing": PREPROCESSING.to_dict(), "problem": "segmentation"}
    return to_onnx(lively_segmenter(), SIZE, 3, facts).SerializeToString()


@cache
def int8_file(weight_bits: int = 8) -> bytes:
    """Return the same segmenter in int8."""
    model = onnx.load_from_string(segmenter_file())
    histograms = stream_histograms(model, normalize(pictures(16, seed=1), PREPROCESSING))
    return quantize_static(model, histograms, "minmax", weight_bits).SerializeToString()
