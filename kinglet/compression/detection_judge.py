"""How int8 detectors are judged: the mAP at an IoU of 0.5 over paired images, and how far places and boxes are apart.

Everything is in pixels of the model's square input: an IoU is the same there as in the image.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

from kinglet.compression.guard import Verdict, paired_over_images
from kinglet.compression.saturation import Emulator
from kinglet.evidence.detection_matches import LOOSEST_IOU, WHOLE, Matches, Objects, match_objects, objects_of
from kinglet.evidence.detection_scores import map_50
from kinglet.runtime.detection import (
    DETECTOR_OUTPUTS,
    SCORED_FROM,
    SHOWN_FROM,
    decode_detections,
    run_detector,
    sigmoid,
)
from kinglet.runtime.preprocessing import InputTensor, Placement, Preprocessing
from kinglet.runtime.processors import available_processors
from kinglet.runtime.sessions import map_batches, open_session
from kinglet.runtime.vnni import products_saturate

# Of the images that judge whether a model is good enough, the first say what a model is worth on other processors,
# which is computed slowly.
FIRST_IMAGES = 48
# And fewer of them choose between variants, of which there are as many as layers: every image has thousands of places.
# So many with this edge; of larger images as many as have the same area, and never fewer than the last number.
FEW_IMAGES, USUAL_EDGE, FEWEST_IMAGES = 48, 224, 12
BATCH_SIZE, EMULATED_BATCH_SIZE = 8, 2
# Images that tell which layers saturate. Each has thousands of places, and takes a second of emulation.
COUNTED_IMAGES = 4


@dataclass(frozen=True)
class Answers:
    """What a detector says of n images: logits float32 (n, places, classes), boxes float32 (n, places, 4)."""

    logits: NDArray[np.float32]
    boxes: NDArray[np.float32]

    def first(self, count: int) -> Answers:
        """Return those of the first images."""
        return Answers(self.logits[:count], self.boxes[:count])

    def __iter__(self) -> Iterator[Answers]:
        """Yield those of one image after the other."""
        for place in range(len(self.logits)):
            yield Answers(self.logits[place : place + 1], self.boxes[place : place + 1])


@dataclass(frozen=True)
class BoxedRows:
    """Rows of packed images with the boxes on them.

    packed: uint8 (n, size, size, channels). rows: int64 (m,). truths: the boxes in pixels of the square, their images
    as numbers in [0, m). n_classes: that the labels point into.
    """

    packed: NDArray[np.uint8]
    rows: NDArray[np.int64]
    truths: Objects
    n_classes: int

    @property
    def images(self) -> NDArray[np.uint8]:
        """The images themselves, uint8 (m, size, size, channels)."""
        return np.asarray(self.packed[self.rows])

    def first(self, count: int) -> BoxedRows:
        """Return the first rows."""
        return BoxedRows(self.packed, self.rows[:count], self.truths.take(self.truths.images < count), self.n_classes)


class DetectionJudge:
    """A `Judge` of detectors.

    All images judge whether a model is good enough; the first few decide between variants, so they are in random order.
    """

    quality_name = "map_50"

    def __init__(self, model: onnx.ModelProto, choice: BoxedRows, preprocessing: Preprocessing) -> None:
        """Let the float model answer the images. preprocessing: that of the model."""
        self.choice, self.first = choice, choice.first(FIRST_IMAGES)
        edge = max(USUAL_EDGE, choice.packed.shape[1])
        self.few = choice.first(max(FEWEST_IMAGES, FEW_IMAGES * USUAL_EDGE**2 // edge**2))
        found = answers(model, choice, preprocessing)
        self.reference = matches_of(found, choice)
        self.first_reference = found.first(len(self.first.rows))

    @property
    def reference_quality(self) -> float:
        """The float model's mAP on the first images."""
        return quality_of(self.first_reference, self.first)

    def score(self, model: onnx.ModelProto, preprocessing: Preprocessing) -> tuple[float, float]:
        """Return agreement and divergence on the first few images, as `compare` says."""
        return compare(self.first_reference.first(len(self.few.rows)), answers(model, self.few, preprocessing))

    def verdict(self, model: onnx.ModelProto, preprocessing: Preprocessing, tolerance: float) -> Verdict:
        """Return whether the model is good enough. tolerance: mAP that may be lost, [0, 1)."""
        found = matches_of(answers(model, self.choice, preprocessing), self.choice)
        n = len(self.choice.rows)
        difference = paired_over_images(partial(map_50, found), partial(map_50, self.reference), n)
        return Verdict(difference, tolerance, n, self.quality_name)

    def quality(self, model: onnx.ModelProto, preprocessing: Preprocessing) -> float:
        """Return the model's mAP on the first images."""
        return quality_of(answers(model, self.first, preprocessing), self.first)

    def quality_without_vnni(self, model: onnx.ModelProto, preprocessing: Preprocessing) -> tuple[float, Counter[str]]:
        """Return the mAP on the first images on processors without VNNI, and the saturated pairs by layer."""
        found, saturated = answers_without_vnni(model, self.first, preprocessing)
        return quality_of(found, self.first), saturated


def answers(
    model: onnx.ModelProto, images: BoxedRows, preprocessing: Preprocessing, *, exact_sums: bool = True
) -> Answers:
    """Return what a detector says of the images. exact_sums: as `open_session` says."""
    session = open_session(model.SerializeToString(), threads=1, outputs=DETECTOR_OUTPUTS, exact_sums=exact_sums)
    return joined(in_batches(partial(run_detector, session), images, preprocessing, BATCH_SIZE))


def answers_without_vnni(
    model: onnx.ModelProto, images: BoxedRows, preprocessing: Preprocessing
) -> tuple[Answers, Counter[str]]:
    """Return what a detector says of the images on processors without VNNI, and the saturated pairs by layer.

    The pairs are those of the first COUNTED_IMAGES. On a processor without VNNI ONNX Runtime answers, which is faster.
    """
    emulator = Emulator(model)
    if not emulator.layers_at_risk:
        return answers(model, images, preprocessing), Counter()
    emulated = images.first(COUNTED_IMAGES) if products_saturate() else images
    parts = in_batches(emulator.run_all, emulated, preprocessing, EMULATED_BATCH_SIZE)
    saturated: Counter[str] = Counter()
    for _, counts in parts[: COUNTED_IMAGES // EMULATED_BATCH_SIZE]:
        saturated.update(counts)
    if products_saturate():
        return answers(model, images, preprocessing, exact_sums=False), saturated
    return joined([outputs for outputs, _ in parts]), saturated


def in_batches(
    compute: Callable[[InputTensor], Any], images: BoxedRows, preprocessing: Preprocessing, batch_size: int
) -> list[Any]:
    """Return what `compute` makes of the images, batch by batch."""
    return list(map_batches(compute, images.packed, images.rows, preprocessing, batch_size, available_processors()))


def joined(batches: Sequence[Sequence[NDArray[np.float32]]]) -> Answers:
    """Return the outputs of several batches as one."""
    logits, boxes = (np.concatenate(parts) for parts in zip(*batches, strict=True))
    return Answers(logits, boxes)


def compare(reference: Answers, found: Answers) -> tuple[float, float]:
    """Return agreement and divergence of a detector's answers from those of the float model.

    agreement: of the places where one of the two shows an object, the share where both show the same class, [0, 1].
    divergence: of an image, summed over places: the Kullback-Leibler divergence of every class's probability in nats,
    and what the two boxes fail to overlap, 1 - IoU, weighted with the float model's surest probability.
    """
    shown = same = 0
    divergence = 0.0
    for expected, own in zip(reference, found, strict=True):
        p, q = sigmoid(expected.logits[0]), sigmoid(own.logits[0])
        shows, also_shows = p.max(1) >= SHOWN_FROM, q.max(1) >= SHOWN_FROM
        shown += int((shows | also_shows).sum())
        same += int((shows & also_shows & (p.argmax(1) == q.argmax(1))).sum())
        missed = p.max(1) * (1 - overlaps(expected.boxes[0], own.boxes[0]))
        divergence += float(missed.sum() + divergences(expected.logits[0], own.logits[0]).sum())
    return same / shown if shown else 1.0, divergence / len(found.logits)


def divergences(reference: NDArray[np.float32], found: NDArray[np.float32]) -> NDArray[np.float64]:
    """Return the Kullback-Leibler divergence of every probability from its reference, in nats; both as logits."""
    one, other = reference.astype(np.float64), found.astype(np.float64)
    p = 1 / (1 + np.exp(-one))
    # The logarithms of p and of 1 - p by themselves, so that no small number is taken from 1.
    of_yes = np.logaddexp(0, -other) - np.logaddexp(0, -one)
    of_no = np.logaddexp(0, other) - np.logaddexp(0, one)
    return np.asarray(p * of_yes + (1 - p) * of_no)


def overlaps(one: NDArray[np.float32], other: NDArray[np.float32]) -> NDArray[np.float64]:
    """Return the IoU of every box with its counterpart, float64 (n,), in [0, 1]; 0 where neither has an area."""
    first, second = one.astype(np.float64).T, other.astype(np.float64).T
    width = np.minimum(first[2], second[2]) - np.maximum(first[0], second[0])
    height = np.minimum(first[3], second[3]) - np.maximum(first[1], second[1])
    shared = width.clip(0) * height.clip(0)
    areas = [(box[2] - box[0]).clip(0) * (box[3] - box[1]).clip(0) for box in (first, second)]
    united = areas[0] + areas[1] - shared
    return np.divide(shared, united, out=np.zeros_like(shared), where=united > 0)


def matches_of(found: Answers, images: BoxedRows) -> Matches:
    """Return which objects a detector finds by what it says of the images."""
    size = images.packed.shape[1]
    square = Placement(size, size, 1.0, 1.0, 0.0, 0.0, size)
    squares = [square] * len(found.logits)
    detections = decode_detections(found.logits, found.boxes, squares, score_threshold=SCORED_FROM)
    return match_objects(
        images.truths, objects_of(detections), len(images.rows), images.n_classes, ious=LOOSEST_IOU, sizes=WHOLE
    )


def quality_of(found: Answers, images: BoxedRows) -> float:
    """Return the mAP at an IoU of 0.5 of what a detector says, [0, 1]; 0 where the images hold no object."""
    return float(np.nan_to_num(map_50(matches_of(found, images), np.ones((1, len(images.rows)))))[0])
