"""Counts over boxes, against a loop over pixels."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from kinglet.data.annotations import AnnotatedImage, Annotations, Box
from kinglet.data.annotations.facts import box_facts, usual_side
from kinglet.runtime.boxes import box_iou

CORNERS = st.tuples(st.integers(0, 9), st.integers(0, 9), st.integers(1, 6), st.integers(1, 6))


def covered(x: int, y: int, width: int, height: int) -> np.ndarray:
    grid = np.zeros((16, 16), bool)
    grid[y : y + height, x : x + width] = True
    return grid


@given(CORNERS, CORNERS)
def test_iou_is_that_of_the_pixels(a: tuple[int, int, int, int], b: tuple[int, int, int, int]) -> None:
    boxes = [np.array([[x, y, x + width, y + height]], float) for x, y, width, height in (a, b)]
    shared, either = covered(*a) & covered(*b), covered(*a) | covered(*b)
    np.testing.assert_allclose(box_iou(*boxes), [[shared.sum() / either.sum()]])


def test_what_is_worth_a_look_is_counted() -> None:
    images = (
        AnnotatedImage("a.jpg", 100, 100, (Box("dog", (0, 0, 100, 96)), Box("dog", (0, 0, 99, 96))), "train"),
        AnnotatedImage("b.jpg", 100, 100, (Box("dog", (0, 0, 10, 10)), Box("cat", (0, 0, 10, 10))), "test"),
        AnnotatedImage("c.jpg", 100, 100, (), ""),
    )
    facts = box_facts(Annotations("x", images, ("bird", "cat", "dog")))
    assert facts.boxes == {"bird": 0, "cat": 1, "dog": 3}
    assert facts.images == {"bird": 0, "cat": 1, "dog": 2}
    assert (facts.without_boxes, facts.tiny, facts.huge, facts.drawn_twice) == (1, 2, 2, 1)
    assert facts.splits == {"": 1, "test": 1, "train": 1}
    assert usual_side(Annotations("x", images, ()), 0.0) == 10
    assert usual_side(Annotations("x", images[2:], ()), 0.5) == 0
