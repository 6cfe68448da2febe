"""From what a detector computes to the objects in an image: class-wise non-maximum suppression, in numpy alone."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from kinglet.runtime.boxes import box_iou
from kinglet.runtime.preprocessing import Boxes, InputTensor, Placement
from kinglet.runtime.sessions import INPUT_NAME, OUTPUT_NAME

BOXES_NAME = "boxes"
# The outputs of a detector: class logits (n, anchors, classes), and boxes (n, anchors, 4), xyxy in input pixels.
DETECTOR_OUTPUTS = (OUTPUT_NAME, BOXES_NAME)
# From which score a detection is kept to be scored, and from which it is shown to a user.
SCORED_FROM, SHOWN_FROM = 0.01, 0.3
IOU_THRESHOLD = 0.6
MAX_DETECTIONS = 100
# Of an image, the best ones that suppression looks at: its work grows with their square.
MAX_CANDIDATES = 1000


@dataclass(frozen=True)
class Detections:
    """The objects found in one image, the surest first.

    xyxy: float32 (n, 4), pixels of the image, x to the right, y down, inside it. labels: int64 (n,), numbers of
    classes. scores: float32 (n,), in [0, 1], descending.
    """

    xyxy: NDArray[np.float32]
    labels: NDArray[np.int64]
    scores: NDArray[np.float32]

    def __len__(self) -> int:
        return len(self.scores)

    def from_score(self, lowest: float) -> Detections:
        """Return those with at least this score."""
        n = int((self.scores >= lowest).sum())
        return Detections(self.xyxy[:n], self.labels[:n], self.scores[:n])


def run_detector(
    session: onnxruntime.InferenceSession, images: InputTensor
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Return the logits and boxes of one batch, float32 (n, anchors, classes) and (n, anchors, 4).

    images: as `model_input` makes them.
    """
    logits, boxes = session.run(list(DETECTOR_OUTPUTS), {INPUT_NAME: images})
    return np.asarray(logits, np.float32), np.asarray(boxes, np.float32)


def finds_boxes(session: onnxruntime.InferenceSession) -> bool:
    """Return whether a model is a detector: it has the output `boxes`."""
    return BOXES_NAME in [item.name for item in session.get_outputs()]


def run_as_one(session: onnxruntime.InferenceSession, images: InputTensor) -> NDArray[np.float32]:
    """Return the logits and boxes of one batch side by side, float32 (n, anchors, classes + 4); see `apart`."""
    return np.concatenate(run_detector(session, images), axis=2)


def apart(outputs: NDArray[np.float32]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Return logits and boxes of `run_as_one`."""
    return outputs[:, :, :-4], outputs[:, :, -4:]


def decode_detections(
    logits: NDArray[np.float32],
    boxes: NDArray[np.float32],
    placements: Sequence[Placement],
    *,
    score_threshold: float = SHOWN_FROM,
    iou_threshold: float = IOU_THRESHOLD,
    max_detections: int = MAX_DETECTIONS,
) -> list[Detections]:
    """Return the objects in every image of a batch.

    logits, boxes: as `run_detector` gives them. placements: of each image in the input. score_threshold: the lowest
    score that is kept. iou_threshold: of two boxes of one class that overlap more, the surer one stays.
    max_detections: of an image, at most.
    An anchor may stand for several classes. Of equal scores, the earlier anchor comes first. Boxes without area inside
    the image are left out.
    Raises ValueError for other shapes, numbers that are not finite, and thresholds outside [0, 1].
    """
    n = len(placements)
    if logits.ndim != 3 or len(logits) != n or boxes.shape != (n, logits.shape[1], 4):
        raise ValueError(f"logits {logits.shape} and boxes {boxes.shape} are not those of {n} images")
    if not (np.isfinite(logits).all() and np.isfinite(boxes).all()):
        raise ValueError("the model gives logits or boxes that are NaN or infinite")
    if not (0 <= score_threshold <= 1 and 0 <= iou_threshold <= 1 and max_detections >= 1):
        raise ValueError(
            f"thresholds lie in [0, 1] and there is at least one detection, got a score of {score_threshold}, "
            f"an IoU of {iou_threshold} and {max_detections} detections"
        )
    return [
        decode_image(*of_image, score_threshold, iou_threshold, max_detections)
        for of_image in zip(logits, boxes, placements, strict=True)
    ]


def decode_image(
    logits: NDArray[np.float32],
    boxes: NDArray[np.float32],
    placed: Placement,
    score_threshold: float,
    iou_threshold: float,
    max_detections: int,
) -> Detections:
    """Return the objects in one image; logits (anchors, classes), boxes (anchors, 4); see `decode_detections`."""
    anchors, labels = np.nonzero(logits >= logit_below(score_threshold))
    scores = sigmoid(logits[anchors, labels])
    xyxy = np.asarray(placed.to_image(boxes[anchors]), np.float32)
    has_area = (xyxy[:, 2] > xyxy[:, 0]) & (xyxy[:, 3] > xyxy[:, 1])
    rows = np.flatnonzero(has_area & (scores >= score_threshold))
    best = rows[np.argsort(-scores[rows], kind="stable")][:MAX_CANDIDATES]
    kept = best[surest_of_each(xyxy[best], labels[best], iou_threshold)][:max_detections]
    return Detections(xyxy[kept], labels[kept].astype(np.int64), scores[kept])


def surest_of_each(xyxy: Boxes, labels: NDArray[np.int64], iou_threshold: float) -> NDArray[np.int64]:
    """Return the places of the boxes that no surer box of their class overlaps by more than the threshold, ascending.

    xyxy: (n, 4), the surest first; labels: (n,). Greedy: a box that was left out suppresses none itself.
    Source: Felzenszwalb et al. 2010, "Object Detection with Discriminatively Trained Part-Based Models", section 7.2.
    """
    suppresses = (box_iou(xyxy, xyxy) > iou_threshold) & (labels[:, None] == labels)
    stays = np.ones(len(labels), bool)
    for place in range(len(labels)):
        if stays[place]:
            stays[place + 1 :] &= ~suppresses[place, place + 1 :]
    return np.flatnonzero(stays)


def sigmoid(logits: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return probabilities, float32, each by itself; computed in float64."""
    with np.errstate(over="ignore"):
        return (1 / (1 + np.exp(-logits.astype(np.float64)))).astype(np.float32)


def logit_below(score: float) -> float:
    """Return a logit a little below the one that gives this score: what lies under it needs no sigmoid."""
    if score in (0, 1):
        return -math.inf if score == 0 else 15.0  # From there on, float32 cannot tell the sigmoid from 1.
    return math.log(score / (1 - score)) - 1e-3
