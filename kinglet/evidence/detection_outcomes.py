"""What became of every object and every detection that is shown, and what changed from one detector to another."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from kinglet.evidence.detection_matches import IOUS, SIZES, Matches, Objects
from kinglet.runtime.boxes import box_iou

NEWLY_MISSED, NEWLY_FOUND = "newly missed", "newly found"
NEWLY_FALSE, NO_LONGER_FALSE = "newly false", "no longer false"


@dataclass(frozen=True)
class Outcomes:
    """What a user of a detector sees. is_found: bool (n_truths,). is_right, is_false: bool (n_found,); what is neither
    is not shown, or beyond the detections that count.
    """

    is_found: NDArray[np.bool_]
    is_right: NDArray[np.bool_]
    is_false: NDArray[np.bool_]


def outcomes_of(matches: Matches, shown_from: float) -> Outcomes:
    """Return what becomes of objects and detections at an IoU of 0.5. shown_from: the lowest score that is shown.

    A surer detection chooses first, so that hiding the others changes no match.
    """
    shown = matches.counted[0, 0] & (matches.scores >= shown_from)
    is_found = np.zeros(len(matches.truths), bool)
    matched = matches.found_by >= 0
    is_found[matched] = shown[matches.found_by[matched]]
    return Outcomes(is_found, shown & matches.right[0, 0], shown & ~matches.right[0, 0])


def without_counterpart(boxes: Objects, others: Objects) -> NDArray[np.bool_]:
    """Return which boxes overlap none of the others of their image and class by an IoU of 0.5, bool (n,)."""
    alone = np.ones(len(boxes), bool)
    n_labels = 1 + max(boxes.labels.max(initial=0), others.labels.max(initial=0))
    keys, other_keys = boxes.images * n_labels + boxes.labels, others.images * n_labels + others.labels
    for key in np.intersect1d(keys, other_keys):
        rows, other_rows = np.flatnonzero(keys == key), np.flatnonzero(other_keys == key)
        alone[rows] = (box_iou(boxes.xyxy[rows], others.xyxy[other_rows]) < IOUS[0]).all(axis=1)
    return alone


def changes(matches: Matches, of_reference: Matches, shown_from: float) -> dict[str, Objects]:
    """Return the boxes that a model and a reference, of the same images, disagree about.

    NEWLY_MISSED, NEWLY_FOUND: true objects that only the reference, or only the model, finds. NEWLY_FALSE,
    NO_LONGER_FALSE: false detections of the model, or of the reference, that the other does not have there.
    """
    own, theirs = outcomes_of(matches, shown_from), outcomes_of(of_reference, shown_from)
    false, reference_false = matches.found.take(own.is_false), of_reference.found.take(theirs.is_false)
    return {
        NEWLY_MISSED: matches.truths.take(theirs.is_found & ~own.is_found),
        NEWLY_FOUND: matches.truths.take(own.is_found & ~theirs.is_found),
        NEWLY_FALSE: false.take(without_counterpart(false, reference_false)),
        NO_LONGER_FALSE: reference_false.take(without_counterpart(reference_false, false)),
    }


def size_of(boxes: Objects) -> NDArray[np.str_]:
    """Return "small", "medium" or "large" for every box, by its area; one at a limit belongs to the smaller size."""
    names = [name for name in SIZES if name != "all"]
    return np.array(names)[np.searchsorted([SIZES[name][1] for name in names[:-1]], boxes.areas, side="left")]
