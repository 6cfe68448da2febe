"""Average precision while a detector is trained, to choose an epoch by: at an overlap of a half, no intervals."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from kinglet.data.boxed_images import Objects
from kinglet.runtime.boxes import box_iou
from kinglet.runtime.detection import Detections

OVERLAP = 0.5


def mean_average_precision(found: Sequence[Detections], wanted: Sequence[Objects], n_classes: int) -> float:
    """Return the average precision at an overlap of one half, [0, 1], mean over the classes that have an object.

    found, wanted: of each image, in the same pixels.
    Source: Everingham et al. 2010, "The PASCAL Visual Object Classes Challenge", section 4.2, the area under the curve
    of precisions made monotone.
    """
    values = [average_precision(found, wanted, label) for label in range(n_classes)]
    known = [value for value in values if value is not None]
    return float(np.mean(known)) if known else 0.0


def average_precision(found: Sequence[Detections], wanted: Sequence[Objects], label: int) -> float | None:
    """Return the average precision of one class, None if no image has an object of it."""
    n_objects = sum(int((objects.labels == label).sum()) for objects in wanted)
    if n_objects == 0:
        return None
    scores, hits = [], []
    for detections, objects in zip(found, wanted, strict=True):
        mine = detections.labels == label
        scores.append(detections.scores[mine])
        hits.append(matched(detections.xyxy[mine], objects.xyxy[objects.labels == label]))
    order = np.argsort(-np.concatenate(scores), kind="stable")
    is_hit = np.concatenate(hits)[order]
    recall = is_hit.cumsum() / n_objects
    precision = is_hit.cumsum() / np.arange(1, len(is_hit) + 1)
    falling = np.maximum.accumulate(precision[::-1])[::-1]
    return float((np.diff(recall, prepend=0.0) * falling).sum())


def matched(found: NDArray[np.float32], wanted: NDArray[np.float32]) -> NDArray[np.bool_]:
    """Return which boxes of an image, the surest first, meet an object that no surer one has met."""
    overlaps = box_iou(found, wanted)
    hits = np.zeros(len(found), bool)
    for place in range(len(found)):
        if len(wanted) and overlaps[place].max() >= OVERLAP:
            hits[place] = True
            overlaps[:, overlaps[place].argmax()] = -1.0
    return hits
