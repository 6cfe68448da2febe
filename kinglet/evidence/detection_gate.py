"""The gate's checks of a detector: its map_50, and that of every class, beside those of the reference."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from kinglet.evidence.bootstrap import Interval
from kinglet.evidence.detection_intervals import DrawnScores, bounds_of_difference
from kinglet.evidence.gate import Check, ClassScore, drop_check, floor_check, verdict_check
from kinglet.evidence.non_inferiority import verdict_of_bounds

MAP_50 = "map_50"
AP_50 = ClassScore(MAP_50, "an AP50 of ", "a test object", "There are no objects in the test images.")


@dataclass(frozen=True)
class Beside:
    """The challenger's scores minus those of what it is held against, over the same images.

    reference: what sentences call the latter. n_images: all that were looked at.
    """

    difference: DrawnScores
    reference: str
    n_images: int


def map_check(beside: Beside, margin: float, *, accept_unestablished: bool, confidence: float) -> Check:
    """Judge whether the challenger's map_50 is not below the reference's by more than `margin`, in [0, 1).

    accept_unestablished: whether it passes where the images are too few to tell.
    """
    difference = beside.difference
    bounds = bounds_of_difference(difference, difference.column(MAP_50), confidence)
    found = verdict_of_bounds(bounds, beside.n_images, margin, same_model=difference.is_same, confidence=confidence)
    return verdict_check(
        "mAP50", found, beside.reference, difference.is_same, accept_unestablished=accept_unestablished
    )


def class_floor_check(own: DrawnScores, classes: Sequence[str], floor: float | None) -> Check:
    """Judge whether the average precision at an IoU of 0.5 is at least `floor` in every class, as measured."""
    measured = {label: float(own.values[own.class_column(MAP_50, index)]) for index, label in enumerate(classes)}
    known = {label: value for label, value in measured.items() if not np.isnan(value)}
    return floor_check(known, len(classes), floor, AP_50)


def class_drop_check(beside: Beside, classes: Sequence[str], largest: float | None, *, confidence: float) -> Check:
    """Judge whether no class is established to have lost more AP50 than `largest`, in [0, 1), to the reference."""
    difference = beside.difference
    columns = {label: difference.class_column(MAP_50, index) for index, label in enumerate(classes)}
    known = {label: column for label, column in columns.items() if not np.isnan(difference.values[column])}

    def differences(confidence_of_each: float) -> dict[str, Interval]:
        return {label: bounds_of_difference(difference, column, confidence_of_each) for label, column in known.items()}

    return drop_check(differences, len(known), largest, beside.reference, difference.is_same, confidence, AP_50)
