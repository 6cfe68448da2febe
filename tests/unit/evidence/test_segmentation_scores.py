"""Scores of segmenters, their intervals and differences, against scikit-learn, scipy and slow counts."""

from __future__ import annotations

import math

import numpy as np
import pytest
from sklearn.metrics import accuracy_score, f1_score, jaccard_score

from kinglet.evidence.bootstrap import Interval
from kinglet.evidence.image_bootstrap import intervals_of
from kinglet.evidence.mask_boundaries import TOLERANCE, boundary_counts, boundary_f1
from kinglet.evidence.segmentation_scores import (
    CLASS_SCORES,
    SCORES,
    MaskCounts,
    count_masks,
    draw_masks,
    miou,
    segmentation_scores,
)

VOID, CLASSES = 255, 3


def made_masks(n: int = 12, edge: int = 40, seed: int = 0, wrong: float = 0.1) -> tuple[np.ndarray, np.ndarray]:
    """True and predicted masks of blots, with a strip of void; a share of the predicted pixels is another class."""
    generator = np.random.default_rng(seed)
    y, x = np.mgrid[:edge, :edge]
    truths = np.zeros((n, edge, edge), np.uint8)
    for truth in truths:
        for label in (1, 2):
            centre, radius = generator.uniform(5, edge - 5, 2), generator.uniform(4, edge / 4)
            truth[(x - centre[0]) ** 2 + (y - centre[1]) ** 2 < radius**2] = label
    others = np.random.default_rng([seed, round(1000 * wrong)])
    moved = np.roll(truths, 1, axis=2)
    predicted = np.where(others.random(truths.shape) < wrong, others.integers(0, CLASSES, truths.shape), moved)
    truths[:, :3] = VOID
    return truths, predicted.astype(np.uint8)


def counts_of(truths: np.ndarray, predicted: np.ndarray) -> MaskCounts:
    pairs = [count_masks(*pair, CLASSES) for pair in zip(truths, predicted, strict=True)]
    digests = np.array([str(hash(mask.tobytes())) for mask in predicted])
    return MaskCounts(np.stack([one for one, _ in pairs]), np.stack([other for _, other in pairs]), digests)


def test_scores_of_all_images_together_are_scikit_learns():
    truths, predicted = made_masks()
    known = truths != VOID
    flat = truths[known], predicted[known]
    (row,) = segmentation_scores(counts_of(truths, predicted), np.ones((1, len(truths))))
    found = dict(zip(SCORES, row, strict=False))
    assert found["miou"] == pytest.approx(jaccard_score(*flat, average="macro"), abs=1e-6)
    assert found["dice"] == pytest.approx(f1_score(*flat, average="macro"), abs=1e-6)
    assert found["pixel_accuracy"] == pytest.approx(accuracy_score(*flat), abs=1e-6)
    by_class = row[len(SCORES) :].reshape(len(CLASS_SCORES), CLASSES)
    np.testing.assert_allclose(by_class[0], jaccard_score(*flat, average=None), atol=1e-6)
    np.testing.assert_allclose(by_class[1], f1_score(*flat, average=None), atol=1e-6)


def test_an_image_that_is_drawn_twice_counts_as_two():
    truths, predicted = made_masks(5)
    drawn = np.array([0, 2, 2, 4, 4])
    weights = np.bincount(drawn, minlength=5)[None].astype(float)
    (found,) = segmentation_scores(counts_of(truths, predicted), weights)
    (written_out,) = segmentation_scores(counts_of(truths[drawn], predicted[drawn]), np.ones((1, 5)))
    np.testing.assert_allclose(found, written_out)
    assert miou(counts_of(truths, predicted).confusions, weights)[0] == pytest.approx(found[0])


def slow_counts(truth: np.ndarray, predicted: np.ndarray, label: int) -> list[int]:
    """Boundary pixels of a class, one by one."""
    predicted = np.where(truth == VOID, VOID, predicted)

    def boundary(mask: np.ndarray) -> list[tuple[int, int]]:
        height, width = mask.shape
        return [
            (y, x)
            for y in range(height)
            for x in range(width)
            if mask[y, x] == label
            and any(
                0 <= y + dy < height and 0 <= x + dx < width and mask[y + dy, x + dx] not in (label, VOID)
                for dy, dx in ((0, 1), (1, 0), (0, -1), (-1, 0))
            )
        ]

    true, found = boundary(truth), boundary(predicted)
    reach = TOLERANCE * math.hypot(*truth.shape)

    def near(pixels: list, others: list) -> int:
        return sum(any(math.dist(pixel, other) <= reach for other in others) for pixel in pixels)

    return [len(found), near(found, true), len(true), near(true, found)]


def test_boundary_pixels_are_those_of_a_look_at_each():
    # Large enough for the tolerance to reach beyond the pixel itself.
    truths, predicted = made_masks(2, 100, seed=4, wrong=0.002)
    assert 1 <= TOLERANCE * math.hypot(100, 100) < 2
    for truth, mask in zip(truths, predicted, strict=True):
        counts = boundary_counts(truth, mask, CLASSES)
        assert counts.tolist() == [slow_counts(truth, mask, label) for label in range(CLASSES)]
        assert (counts[:, 1] < counts[:, 0]).any()
    f1 = boundary_f1(counts)
    precision, recall = counts[1, 1] / counts[1, 0], counts[1, 3] / counts[1, 2]
    assert f1[1] == pytest.approx(2 * precision * recall / (precision + recall))


def test_a_boundary_within_reach_is_right_and_one_beyond_is_not():
    truth = np.zeros((400, 300), np.uint8)  # a diagonal of 500 pixels: 3.75 of them
    truth[:, 100:] = 1
    for shift, expected in ((0, 1), (3, 1), (4, 0)):
        predicted = np.zeros_like(truth)
        predicted[:, 100 + shift :] = 1
        assert boundary_f1(boundary_counts(truth, predicted, 2)).tolist() == [expected] * 2


def test_classes_without_a_boundary_have_no_f1_and_invented_ones_have_none_right():
    truth = np.zeros((20, 20), np.uint8)
    predicted = truth.copy()
    predicted[5:9, 5:9] = 1
    f1 = boundary_f1(boundary_counts(truth, predicted, 3))
    assert f1[:2].tolist() == [0, 0]
    assert np.isnan(f1[2])
    # Void has no boundary to anything.
    truth[:10] = VOID
    assert boundary_counts(truth, truth, 1).tolist() == [[0, 0, 0, 0]]


@pytest.mark.parametrize("method", ["percentile", "bca"])
def test_intervals_enclose_their_scores_and_stay_on_the_scale(method):
    drawn = draw_masks(counts_of(*made_masks()), method=method, resamples=300)
    found = intervals_of(drawn, method=method)
    assert set(found.overall) == set(SCORES)
    every = [*found.overall.values(), *(item for of_score in found.by_class.values() for item in of_score)]
    assert len(every) == 4 + 3 * CLASSES
    assert all(0 <= item.low < item.value < item.high <= 1 for item in every)


def test_differences_are_paired_and_a_model_differs_from_itself_by_nothing():
    truths, good = made_masks(wrong=0.1)
    bad = made_masks(wrong=0.12)[1]
    one, other = (counts_of(truths, predicted) for predicted in (good, bad))
    drawn = [draw_masks(counts, resamples=300) for counts in (one, other)]
    difference = intervals_of(drawn[0].minus(drawn[1])).overall["miou"]
    widths = [intervals_of(item).overall["miou"] for item in drawn]
    assert 0 < difference.low < difference.value < difference.high
    # Images that are hard for one are hard for both.
    assert difference.high - difference.low < 0.5 * min(item.high - item.low for item in widths)
    assert one.is_same(one)
    assert not one.is_same(other)
    itself = intervals_of(drawn[0].minus(drawn[0], is_same=True))
    assert set(itself.overall.values()) == {Interval(0, 0, 0)}


def test_a_class_that_no_image_shows_has_no_score():
    truths, predicted = made_masks(4)
    truths[truths == 2] = predicted[predicted == 2] = 0
    found = intervals_of(draw_masks(counts_of(truths, predicted), resamples=50))
    assert [of_score[2] for of_score in found.by_class.values()] == [None] * 3
    assert found.overall["miou"].value == pytest.approx(np.mean([item.value for item in found.by_class["iou"][:2]]))


def test_without_images_there_is_no_interval():
    nothing = MaskCounts(np.zeros((0, 2, 2), np.int64), np.zeros((0, 2, 4), np.int64), np.zeros(0, str))
    with pytest.raises(ValueError, match="at least one"):
        draw_masks(nothing)


def test_tiles_of_an_image_are_added_up_before_chance_draws():
    truths, predicted = made_masks(4)
    of_tiles = counts_of(truths, predicted)
    together = of_tiles.together(np.array([0, 1, 0, 1]))
    assert len(together) == 2
    assert np.array_equal(together.confusions[0], of_tiles.confusions[0] + of_tiles.confusions[2])
    assert np.array_equal(together.boundaries[1], of_tiles.boundaries[1] + of_tiles.boundaries[3])
    assert together.is_same(of_tiles.together(np.array([0, 1, 0, 1])))
    assert not together.is_same(counts_of(truths, truths).together(np.array([0, 1, 0, 1])))
