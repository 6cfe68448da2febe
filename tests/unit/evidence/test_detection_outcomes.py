from functools import partial

import numpy as np
import pytest

from kinglet.evidence.corruption_curves import between, curves_of
from kinglet.evidence.detection_matches import Objects, match_objects
from kinglet.evidence.detection_outcomes import (
    NEWLY_FALSE,
    NEWLY_FOUND,
    NEWLY_MISSED,
    NO_LONGER_FALSE,
    changes,
    outcomes_of,
    size_of,
)
from kinglet.evidence.detection_scores import map_50
from kinglet.evidence.image_slices import slice_changes
from kinglet.evidence.slices import Slice
from tests.unit.evidence.found_objects import made_detections, made_objects

TRUTHS = Objects(
    np.array([0, 0, 1]), np.array([0, 0, 1]), np.array([[0, 0, 9, 9], [20, 0, 29, 9], [0, 0, 9, 9]], float)
)


def found(*rows):
    """Detections from rows (image, label, x1, y1, x2, y2, score)."""
    table = np.array(rows, float)
    return Objects(table[:, 0].astype(np.int64), table[:, 1].astype(np.int64), table[:, 2:6], table[:, 6])


def matched(*rows):
    return match_objects(TRUTHS, found(*rows), 2, 2)


def test_outcomes_of_shown_boxes_are_those_of_a_look_at_each():
    outcomes = outcomes_of(
        matched(
            (0, 0, 0, 0, 9, 9, 0.9), (0, 0, 0, 0, 9, 8, 0.5), (0, 0, 20, 0, 29, 9, 0.2), (1, 0, 50, 50, 60, 60, 0.4)
        ),
        0.3,
    )
    assert outcomes.is_found.tolist() == [True, False, False]
    assert outcomes.is_right.tolist() == [True, False, False, False]
    assert outcomes.is_false.tolist() == [False, True, False, True]


def test_two_detectors_differ_by_what_only_one_of_them_finds_or_invents():
    teacher = matched((0, 0, 0, 0, 9, 9, 0.9), (0, 0, 40, 0, 49, 9, 0.8), (1, 0, 60, 0, 69, 9, 0.8))
    # Finds another object, invents one box as the teacher does, one of another class there, and one elsewhere.
    model = matched(
        (0, 0, 20, 0, 29, 9, 0.9), (0, 0, 41, 0, 49, 9, 0.7), (1, 1, 60, 0, 69, 9, 0.6), (1, 0, 80, 0, 89, 9, 0.2)
    )
    said = changes(model, teacher, 0.3)
    assert said[NEWLY_MISSED].xyxy.tolist() == [[0, 0, 9, 9]]
    assert said[NEWLY_FOUND].xyxy.tolist() == [[20, 0, 29, 9]]
    assert (said[NEWLY_FALSE].labels.tolist(), said[NEWLY_FALSE].scores.tolist()) == ([1], [0.6])
    assert said[NO_LONGER_FALSE].xyxy.tolist() == [[60, 0, 69, 9]]
    assert all(len(boxes) == 0 for boxes in changes(model, model, 0.3).values())


@pytest.mark.parametrize(
    ("side", "size"), [(10, "small"), (32, "small"), (33, "medium"), (96, "medium"), (97, "large")]
)
def test_every_box_has_one_size(side, size):
    assert size_of(found((0, 0, 0, 0, side, side, 0.5))).tolist() == [size]


def test_a_slice_that_loses_is_told_from_one_that_does_not():
    truths = made_objects(3, 60)
    teacher = made_detections(truths, 1, 60)
    # In the second half of the images nothing is found any more.
    worse = teacher.take(teacher.images < 30)
    slices = [Slice("half", "first", np.arange(30)), Slice("half", "second", np.arange(30, 60))]
    own, theirs = (partial(map_50, match_objects(truths, found, 60, 3)) for found in (worse, teacher))
    shown = np.bincount(truths.images, minlength=60)
    worst, best = slice_changes(own, theirs, shown, slices, resamples=200)
    assert (worst.value, worst.is_established, worst.of_model) == ("second", True, 0)
    assert worst.change.high < 0
    assert (best.value, best.is_established, best.change.value, best.p) == ("first", False, 0, 1)
    assert best.shown + worst.shown == len(truths)


def test_what_corruption_takes_is_told_from_what_was_gone_before():
    truths = made_objects(5, 40)
    clean, corrupted = (
        partial(map_50, match_objects(truths, made_detections(truths, 1, 40, noise=noise), 40, 3))
        for noise in (0.02, 0.25)
    )
    kept, lost = (
        curves_of([clean, clean, clean], 40, resamples=200),
        curves_of([clean, corrupted, corrupted], 40, resamples=200),
    )
    as_before = curves_of([corrupted, corrupted, corrupted], 40, resamples=200)
    assert between(lost.corrupted(), kept.corrupted(), 0.95).high < 0
    assert between(lost.beyond_clean(), kept.beyond_clean(), 0.95).high < 0
    assert between(as_before.corrupted(), kept.corrupted(), 0.95).high < 0
    assert between(as_before.beyond_clean(), kept.beyond_clean(), 0.95).value == 0
