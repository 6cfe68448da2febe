"""The gate's checks by a score that images are resampled for, and by that of every class, beside a reference's."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from kinglet.evidence.bootstrap import Interval
from kinglet.evidence.gate import Check, ClassScore, drop_check, floor_check, verdict_check
from kinglet.evidence.image_bootstrap import DrawnScores, bounds_of_difference
from kinglet.evidence.non_inferiority import verdict_of_bounds


@dataclass(frozen=True)
class Headline:
    """The score that models are chosen and judged by.

    name: of the overall score. word: what sentences call it. class_score: the score of every class; its name is that
    among the class scores.
    """

    name: str
    word: str
    class_score: ClassScore


MAP_50 = Headline(
    "map_50", "mAP50", ClassScore("map_50", "an AP50 of ", "a test object", "There are no objects in the test images.")
)
MIOU = Headline(
    "miou", "mIoU", ClassScore("iou", "an IoU of ", "a test pixel", "There are no labelled pixels in the test images.")
)


@dataclass(frozen=True)
class Beside:
    """The challenger's scores minus those of what it is held against, over the same images.

    reference: what sentences call the latter. n_images: all that were looked at.
    """

    difference: DrawnScores
    reference: str
    n_images: int


def headline_check(
    headline: Headline, beside: Beside, margin: float, *, accept_unestablished: bool, confidence: float
) -> Check:
    """Judge whether the challenger's score is not below the reference's by more than `margin`, in [0, 1).

    accept_unestablished: whether it passes where the images are too few to tell.
    """
    difference = beside.difference
    bounds = bounds_of_difference(difference, difference.column(headline.name), confidence)
    found = verdict_of_bounds(bounds, beside.n_images, margin, same_model=difference.is_same, confidence=confidence)
    return verdict_check(
        headline.word, found, beside.reference, difference.is_same, accept_unestablished=accept_unestablished
    )


def class_floor_check(headline: Headline, own: DrawnScores, classes: Sequence[str], floor: float | None) -> Check:
    """Judge whether the score of every class is at least `floor`, as measured."""
    score = headline.class_score
    measured = {label: float(own.values[own.class_column(score.name, index)]) for index, label in enumerate(classes)}
    known = {label: value for label, value in measured.items() if not np.isnan(value)}
    return floor_check(known, len(classes), floor, score)


def class_drop_check(
    headline: Headline, beside: Beside, classes: Sequence[str], largest: float | None, *, confidence: float
) -> Check:
    """Judge whether no class is established to have lost more than `largest`, in [0, 1), to the reference."""
    difference, score = beside.difference, headline.class_score
    columns = {label: difference.class_column(score.name, index) for index, label in enumerate(classes)}
    known = {label: column for label, column in columns.items() if not np.isnan(difference.values[column])}

    def differences(confidence_of_each: float) -> dict[str, Interval]:
        return {label: bounds_of_difference(difference, column, confidence_of_each) for label, column in known.items()}

    return drop_check(differences, len(known), largest, beside.reference, difference.is_same, confidence, score)
