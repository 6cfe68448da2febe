"""Small clip classifiers, and their two parts as ONNX files."""

from __future__ import annotations

from functools import cache

import numpy as np
import torch
from numpy.typing import NDArray

from kinglet.models.clip_classifier import ClipClassifier, ClipClassifierSpec, FramePart, recurrent_step_of
from kinglet.models.export import step_to_onnx, to_onnx
from kinglet.models.inverted_residual import BlockSpec
from kinglet.runtime.preprocessing import Preprocessing
from tests.unit.models.small_networks import live_in

SIZE, FRAMES = 32, 6
CLASSES = ["left", "right", "<still>"]
PREPROCESSING = Preprocessing(SIZE, 3, "pad", (0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
FACTS = {"classes": CLASSES, "preprocessing": PREPROCESSING.to_dict(), "problem": "video"}


def block(channels: int, out: int, stride: int) -> BlockSpec:
    return BlockSpec(2 * channels, out, 3, stride, True, stride == 1 and channels == out)


BLOCKS = (block(8, 8, 2), block(8, 12, 2), block(12, 12, 1), block(12, 16, 2), block(16, 16, 2))


def small_clip_classifier(cell: str = "gru", channels: int = 3, input_size: int = SIZE) -> ClipClassifier:
    """Return an untrained clip classifier, the same every time, whose normalizations look trained."""
    torch.manual_seed(0)
    spec = ClipClassifierSpec(
        channels, 8, BLOCKS, len(CLASSES), input_size=input_size, frames=FRAMES, width=4, cell=cell, units=12
    )
    network = live_in(ClipClassifier(spec))
    assert isinstance(network, ClipClassifier)
    return network


@cache
def clip_files(cell: str = "gru") -> tuple[bytes, bytes]:
    """Return the two parts of a small clip classifier as the bytes of their files."""
    network = small_clip_classifier(cell)
    return (
        to_onnx(FramePart(network), SIZE, 3, FACTS, ("features",)).SerializeToString(),
        step_to_onnx(recurrent_step_of(network), {}).SerializeToString(),
    )


def moving_squares(n: int, size: int = SIZE, frames: int = FRAMES, seed: int = 0) -> tuple[NDArray, NDArray]:
    """Return clips of a bright square on noise that moves left, moves right or stays, and which of these it does.

    Clips: uint8 (n, frames, size, size, 3). Labels: int64 (n,), into `CLASSES`.
    """
    generator = np.random.default_rng(seed)
    labels = np.arange(n) % len(CLASSES)
    clips = generator.integers(0, 60, (n, frames, size, size, 3), np.uint8)
    edge = size // 4
    for clip, label in zip(clips, labels, strict=True):
        top, left = generator.integers(0, size - edge), generator.integers(edge, size - 2 * edge)
        for number, frame in enumerate(clip):
            x = int(left + (-1, 1, 0)[label] * (number - frames / 2) * edge / frames * 2)
            frame[top : top + edge, max(x, 0) : x + edge] = 220
    return clips, labels
