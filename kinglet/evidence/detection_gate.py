"""The gate's checks of a detector: its map_50, and that of every class, beside those of the reference."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from kinglet.evidence.detection_intervals import DrawnScores, bounds_of_difference
from kinglet.evidence.gate import (
    FAILED,
    NOT_JUDGED,
    PASSED,
    Check,
    difference_sentence,
    percent,
    points,
    signed,
)
from kinglet.evidence.non_inferiority import NOT_ESTABLISHED, NOT_WORSE, verdict_of_bounds

MAP_50 = "map_50"


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
    passed = found.verdict == NOT_WORSE or (found.verdict == NOT_ESTABLISHED and accept_unestablished)
    figures = {
        "difference": found.difference.to_dict(),
        "margin": margin,
        "verdict": found.verdict,
        "images": found.n,
        "images_needed": found.images_needed,
    }
    sentence = difference_sentence(found, beside.reference, difference.is_same)
    return Check("mAP50", PASSED if passed else FAILED, sentence, figures)


def class_floor_check(own: DrawnScores, classes: Sequence[str], floor: float | None) -> Check:
    """Judge whether the average precision at an IoU of 0.5 is at least `floor` in every class, as measured."""
    name = "every class"
    if floor is None:
        return Check(name, NOT_JUDGED, "No floor is set for the classes.")
    measured = [float(own.values[own.class_column(MAP_50, index)]) for index in range(len(classes))]
    known = {label: value for label, value in zip(classes, measured, strict=True) if not np.isnan(value)}
    if not known:
        return Check(name, NOT_JUDGED, "There are no objects in the test images.")
    worst = min(known, key=lambda label: (known[label], label))
    below = sorted(label for label, value in known.items() if value < floor)
    figures = {"floor": floor, "worst_class": worst, "worst_map_50": round(known[worst], 6), "below": below}
    said = f"the weakest, {worst}, has an AP50 of {percent(known[worst])}, and the floor is {percent(floor)}"
    untested = len(classes) - len(known)
    without = f"; {untested} without a test object" if untested else ""
    if below:
        return Check(name, FAILED, f"Below the floor: {', '.join(below)}; {said}{without}.", figures)
    return Check(name, PASSED, f"All above the floor: {said}{without}.", figures)


def class_drop_check(beside: Beside, classes: Sequence[str], largest: float | None, *, confidence: float) -> Check:
    """Judge whether no class is established to have lost more AP50 than `largest`, in [0, 1), to the reference.

    The bounds hold for all classes together (Bonferroni).
    """
    name, difference = "class losses", beside.difference
    if largest is None:
        return Check(name, NOT_JUDGED, "No limit is set for the loss of a class.")
    if difference.is_same:
        return Check(name, PASSED, f"The challenger is the {beside.reference} itself.")
    columns = {label: difference.class_column(MAP_50, index) for index, label in enumerate(classes)}
    known = {label: column for label, column in columns.items() if not np.isnan(difference.values[column])}
    if not known:
        return Check(name, NOT_JUDGED, "There are no objects in the test images.")
    each = 1 - (1 - confidence) / len(known)
    found = {label: bounds_of_difference(difference, column, each) for label, column in known.items()}
    worst = min(found, key=lambda label: (found[label].value, label))
    lost = sorted(label for label, bounds in found.items() if bounds.high < -largest)
    figures = {"limit": largest, "worst_class": worst, "worst_difference": found[worst].to_dict(), "lost": lost}
    said = f"the worst is {worst} with {signed(found[worst].value)} points, at worst {signed(found[worst].low)}"
    if lost:
        reason = f"Lost more than {points(largest)} to the {beside.reference}: {', '.join(lost)}; {said}."
        return Check(name, FAILED, reason, figures)
    reason = f"None is shown to lose more than {points(largest)} to the {beside.reference}; {said}."
    return Check(name, PASSED, reason, figures)
