"""How int8 segmenters are judged: the mean IoU over paired images, and how far the classes of places are apart.

Everything is in pixels of the model's square input, in which packed masks are as well.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from functools import partial

import numpy as np
import onnx
from numpy.typing import NDArray

from kinglet.compression.guard import Verdict, paired_over_images
from kinglet.compression.saturation import Emulator
from kinglet.evidence.mask_scores import mask_confusion, mean_iou
from kinglet.evidence.segmentation_scores import miou
from kinglet.runtime.preprocessing import Placement, Preprocessing
from kinglet.runtime.processors import available_processors
from kinglet.runtime.segmentation import VOID, decode_masks
from kinglet.runtime.sessions import map_batches, open_session, run
from kinglet.runtime.vnni import products_saturate

# Of the images that judge whether a model is good enough, the first choose between variants by divergence, and say
# what a model is worth on other processors, which is computed slowly. An image has thousands of places.
FIRST_IMAGES = 16
# One at a time: the answer to an image has as many numbers as a quarter of its pixels times the classes.
BATCH_SIZE = 1
# Images that tell which layers saturate. Each has thousands of places.
COUNTED_IMAGES = 4

Logits = NDArray[np.float32]


@dataclass(frozen=True)
class MaskedRows:
    """Rows of packed images with their masks.

    packed: uint8 (n, size, size, channels). masks: uint8 (n, size, size), class indices or `VOID`. rows: int64 (m,)
    into both.
    """

    packed: NDArray[np.uint8]
    masks: NDArray[np.uint8]
    rows: NDArray[np.int64]

    def first(self, count: int) -> MaskedRows:
        """Return the first rows."""
        return MaskedRows(self.packed, self.masks, self.rows[:count])

    @property
    def has_classes(self) -> bool:
        """Whether any pixel of these images is of a class."""
        return any((self.masks[row] != VOID).any() for row in self.rows.tolist())


class SegmentationJudge:
    """A `Judge` of segmenters.

    All images judge whether a model is good enough; the first decide between variants, so they are in random order.
    """

    quality_name = "miou"

    def __init__(self, model: onnx.ModelProto, choice: MaskedRows, preprocessing: Preprocessing) -> None:
        """Let the float model answer the images. preprocessing: that of the model."""
        self.choice, self.first = choice, choice.first(FIRST_IMAGES)
        self.reference = confusions_of(answers(model, choice, preprocessing), choice)
        self.first_reference = list(answers(model, self.first, preprocessing))

    @property
    def reference_quality(self) -> float:
        """The float model's mean IoU on the first images."""
        return quality_of(self.reference[: len(self.first.rows)])

    def score(self, model: onnx.ModelProto, preprocessing: Preprocessing) -> tuple[float, float]:
        """Return agreement and divergence on the first images, as `compare` says."""
        return compare(self.first_reference, answers(model, self.first, preprocessing))

    def verdict(self, model: onnx.ModelProto, preprocessing: Preprocessing, tolerance: float) -> Verdict:
        """Return whether the model is good enough. tolerance: mean IoU that may be lost, [0, 1)."""
        found = confusions_of(answers(model, self.choice, preprocessing), self.choice)
        n = len(found)
        difference = paired_over_images(partial(miou, found), partial(miou, self.reference), n)
        return Verdict(difference, tolerance, n, self.quality_name)

    def quality(self, model: onnx.ModelProto, preprocessing: Preprocessing) -> float:
        """Return the model's mean IoU on the first images."""
        return quality_of(confusions_of(answers(model, self.first, preprocessing), self.first))

    def quality_without_vnni(self, model: onnx.ModelProto, preprocessing: Preprocessing) -> tuple[float, Counter[str]]:
        """Return the mean IoU on the first images on processors without VNNI, and the saturated pairs by layer."""
        found, saturated = answers_without_vnni(model, self.first, preprocessing)
        return quality_of(confusions_of(found, self.first)), saturated


def answers_without_vnni(
    model: onnx.ModelProto, images: MaskedRows, preprocessing: Preprocessing
) -> tuple[Iterable[Logits], Counter[str]]:
    """Return what a segmenter says of the images on processors without VNNI, and the saturated pairs by layer.

    The pairs are those of the first COUNTED_IMAGES. On a processor without VNNI ONNX Runtime answers, which is faster.
    """
    emulator = Emulator(model)
    if not emulator.layers_at_risk:
        return answers(model, images, preprocessing), Counter()
    emulated = images.first(COUNTED_IMAGES) if products_saturate() else images
    found: list[Logits] = []
    saturated = Counter[str]()
    for (logits,), counts in map_batches(
        emulator.run_all, emulated.packed, emulated.rows, preprocessing, BATCH_SIZE, available_processors()
    ):
        if len(found) < COUNTED_IMAGES:
            saturated.update(counts)
        found.append(logits)
    if products_saturate():
        return answers(model, images, preprocessing, exact_sums=False), saturated
    return found, saturated


def answers(
    model: onnx.ModelProto, images: MaskedRows, preprocessing: Preprocessing, *, exact_sums: bool = True
) -> Iterable[Logits]:
    """Yield what a segmenter says of the images, float32 (1, n_classes, height, width) each.

    exact_sums: as `open_session` says.
    """
    session = open_session(model.SerializeToString(), threads=1, exact_sums=exact_sums)
    return map_batches(
        partial(run, session), images.packed, images.rows, preprocessing, BATCH_SIZE, available_processors()
    )


def confusions_of(found: Iterable[Logits], images: MaskedRows) -> NDArray[np.int64]:
    """Return what the pixels of each image are taken for, int64 (n_images, n_classes, n_classes).

    found: as `answers` yields them.
    """
    size = images.packed.shape[1]
    square = Placement(size, size, 1.0, 1.0, 0.0, 0.0, size)
    counted = []
    for logits, row in zip(found, images.rows.tolist(), strict=True):
        (predicted,) = decode_masks(logits, [square], [(size, size)])
        counted.append(mask_confusion(np.asarray(images.masks[row]), predicted, logits.shape[1]))
    return np.stack(counted)


def quality_of(confusions: NDArray[np.int64]) -> float:
    """Return the mean IoU of the confusions added up over the images, [0, 1]; 0 where they hold no known pixel."""
    return float(np.nan_to_num(mean_iou(confusions.sum(0))))


def compare(reference: Iterable[Logits], found: Iterable[Logits]) -> tuple[float, float]:
    """Return agreement and divergence of a segmenter's answers from those of the float model.

    agreement: the share of places of the same most probable class, [0, 1]. divergence: the Kullback-Leibler divergence
    of the probabilities of a place's classes in nats, mean over places.
    """
    same = divergence = places = 0.0
    for expected, own in zip(reference, found, strict=True):
        p, q = log_probabilities(expected), log_probabilities(own)
        same += float((p.argmax(1) == q.argmax(1)).sum())
        divergence += float((np.exp(p) * (p - q)).sum())
        places += p[:, 0].size
    return same / places, divergence / places


def log_probabilities(logits: Logits) -> NDArray[np.float64]:
    """Return the logarithms of the softmax over the classes, the second axis, float64."""
    shifted = logits.astype(np.float64) - logits.max(1, keepdims=True)
    result: NDArray[np.float64] = shifted - np.log(np.exp(shifted).sum(1, keepdims=True))
    return result
