"""Average precision beside values worked out by hand."""

from __future__ import annotations

import numpy as np
import pytest

from kinglet.data.boxed_images import Objects
from kinglet.runtime.detection import Detections
from kinglet.training.validation_precision import average_precision, mean_average_precision

BOX, SAME, HALF, FAR = [0, 0, 10, 10], [0, 0, 10, 9], [0, 0, 10, 4], [50, 50, 60, 60]


def found(*rows: tuple[list[int], int, float]) -> Detections:
    rows = sorted(rows, key=lambda row: -row[2])  # type: ignore[assignment]
    return Detections(
        np.array([row[0] for row in rows], np.float32).reshape(-1, 4),
        np.array([row[1] for row in rows], np.int64),
        np.array([row[2] for row in rows], np.float32),
    )


def wanted(*rows: tuple[list[int], int]) -> Objects:
    return Objects(
        np.array([row[0] for row in rows], np.float32).reshape(-1, 4), np.array([row[1] for row in rows], np.int64)
    )


@pytest.mark.parametrize(
    ("detections", "objects", "expected"),
    [
        ([found((SAME, 0, 0.9))], [wanted((BOX, 0))], 1.0),
        ([found((HALF, 0, 0.9))], [wanted((BOX, 0))], 0.0),  # overlaps by 0.4
        ([found((SAME, 1, 0.9))], [wanted((BOX, 0))], 0.0),  # another class
        ([found((SAME, 0, 0.9), (BOX, 0, 0.8))], [wanted((BOX, 0))], 1.0),  # the second comes after full recall
        ([found((FAR, 0, 0.9), (BOX, 0, 0.8))], [wanted((BOX, 0))], 0.5),  # a false one before it
        ([found((BOX, 0, 0.9)), found()], [wanted((BOX, 0)), wanted((BOX, 0))], 0.5),  # one of two
        # Right, wrong, right of three objects: 1/3 at precision 1, 1/3 at 2/3.
        (
            [found((BOX, 0, 0.9)), found((FAR, 0, 0.8), (BOX, 0, 0.7))],
            [wanted((BOX, 0)), wanted((BOX, 0), ([20, 0, 30, 9], 0))],
            5 / 9,
        ),
        ([found((BOX, 0, 0.9))], [wanted()], None),
    ],
)
def test_average_precision(detections: list[Detections], objects: list[Objects], expected: float | None) -> None:
    value = average_precision(detections, objects, 0)
    assert value == (None if expected is None else pytest.approx(expected))


def test_the_mean_is_over_classes_that_have_an_object() -> None:
    detections = [found((BOX, 0, 0.9), (FAR, 2, 0.9))]
    assert mean_average_precision(detections, [wanted((BOX, 0), (FAR, 1))], 3) == pytest.approx(0.5)
    assert mean_average_precision(detections, [wanted()], 3) == 0.0
