"""The objects that a detector has to find in a bundle's golden images, and how far its answers are from them.

Processors round differently. Where two boxes of an object are nearly as sure, another of the two may survive
suppression: so an object is looked for among all boxes before suppression, and what survives has to lie on an object
that was expected.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from kinglet.runtime import bundles
from kinglet.runtime.boxes import box_iou
from kinglet.runtime.detection import MAX_CANDIDATES, Detections
from kinglet.runtime.preprocessing import Placement
from kinglet.runtime.thresholds import Thresholds

# How far a score may be off, by the name of the table of golden objects.
TOLERANCES = {
    bundles.EXACT_DETECTIONS: 10 * bundles.GOLDEN_TOLERANCE,
    bundles.SATURATED_DETECTIONS: bundles.INT8_TOLERANCE,
}
# The overlap of two boxes that are the same up to rounding, and of two that are of one object.
SAME_BOX, SAME_OBJECT = 0.9, 0.5


def table_of(found: Sequence[Detections]) -> NDArray[np.float32]:
    """Return the objects of n images as rows: number of the image, label, score, x1, y1, x2, y2; float32 (m, 7)."""
    rows = [
        np.column_stack([np.full(len(item), image), item.labels, item.scores, item.xyxy])
        for image, item in enumerate(found)
    ]
    return np.concatenate(rows).astype(np.float32) if rows else np.empty((0, 7), np.float32)


def objects_in(table: NDArray[np.float32], n_images: int) -> list[Detections]:
    """Return the objects of every image from the rows of `table_of`."""
    parts = [table[table[:, 0] == image] for image in range(n_images)]
    return [Detections(part[:, 3:], part[:, 1].astype(np.int64), part[:, 2]) for part in parts]


def largest_difference(
    expected: Sequence[Detections],
    outputs: NDArray[np.float32],
    placements: Sequence[Placement],
    thresholds: Thresholds,
    tolerance: float,
) -> float:
    """Return the largest difference of an object's score from the expected one.

    expected: the golden objects of every image. outputs, placements: as for `Thresholds.decode`. tolerance: of a
    score; objects that are no surer than the threshold by more than it may come and go.
    Raises ValueError that names the first object which is missing or unexpected.
    """
    everything = replace(thresholds, score=max(0.0, thresholds.score - tolerance), iou=1.0, most=MAX_CANDIDATES)
    sure = thresholds.score + tolerance
    largest = 0.0
    pairs = zip(expected, everything.decode(outputs, placements), thresholds.decode(outputs, placements), strict=True)
    for image, (golden, candidates, found) in enumerate(pairs):
        for place in np.flatnonzero(golden.scores >= sure).tolist():
            difference = nearest(golden, place, candidates)
            if difference > tolerance:
                raise ValueError(f"image {image} lacks {described(golden, place)}")
            largest = max(largest, difference)
        for place in np.flatnonzero(found.scores >= sure).tolist():
            if not (same_class(found, place, golden) >= SAME_OBJECT).any():
                raise ValueError(f"image {image} shows {described(found, place)}")
    return largest


def nearest(golden: Detections, place: int, candidates: Detections) -> float:
    """Return how far the score of an object is from that of the same box among the candidates; inf without one."""
    same = same_class(golden, place, candidates) >= SAME_BOX
    return float(np.abs(candidates.scores[same] - golden.scores[place]).min(initial=np.inf))


def same_class(one: Detections, place: int, others: Detections) -> NDArray[np.float64]:
    """Return the overlaps of one object with others, float64 (n,), 0 for those of another class."""
    overlaps = box_iou(one.xyxy[place : place + 1], others.xyxy)[0]
    return overlaps * (others.labels == one.labels[place])


def described(objects: Detections, place: int) -> str:
    """Return an object in words."""
    box = ", ".join(f"{corner:.1f}" for corner in objects.xyxy[place].tolist())
    return f"an object of class {objects.labels[place]} with a score of {objects.scores[place]:.3f} at {box}"
