import numpy as np
import pytest

from kinglet.compression.guard import INTERVAL, POINT, drawn, judge, set_aside
from kinglet.evidence.bootstrap import paired_interval


def logits(correct):
    """Logits of two classes that are right about label 0 where `correct` says so."""
    right = np.asarray(correct, dtype=np.float32)
    return np.stack([right, 1 - right], axis=1)


def answers(n, both, only_float, only_int8):
    """Return logits of int8 and float with these counts of right answers, the rest of n wrong in both."""
    kinds = np.repeat([0, 1, 2, 3], [both, only_float, only_int8, n - both - only_float - only_int8])
    return logits(np.isin(kinds, [0, 2])), logits(np.isin(kinds, [0, 1]))


@pytest.mark.parametrize(
    ("n", "both", "only_float", "only_int8", "judged_by", "enough"),
    [
        (6000, 5900, 5, 5, INTERVAL, True),  # nothing lost, many images
        (6000, 5900, 0, 0, INTERVAL, True),  # the same answers
        (6000, 5800, 60, 0, INTERVAL, False),  # lost a point, which the interval shows
        (6000, 5900, 16, 4, INTERVAL, False),  # lost 0.2 points: enough images, yet the tolerance is not shown
        (300, 280, 3, 3, POINT, True),  # nothing lost, but no 300 images can show it
        (300, 280, 6, 3, POINT, False),  # a point lost
        (40, 40, 0, 0, POINT, True),  # the same answers to a handful of images prove nothing
    ],
)
def test_the_interval_decides_where_the_images_can_show_it(n, both, only_float, only_int8, judged_by, enough):
    int8, reference = answers(n, both, only_float, only_int8)
    verdict = judge(int8, reference, np.zeros(n, np.int64), 0.003)
    assert (verdict.judged_by, verdict.is_enough) == (judged_by, enough)
    assert verdict.difference.value == pytest.approx((only_int8 - only_float) / n)
    assert verdict.established == (verdict.difference.low >= -0.003)


def test_a_verdict_tells_in_the_notes_how_it_came_about():
    int8, reference = answers(300, 280, 3, 3)
    notes = judge(int8, reference, np.zeros(300, np.int64), 0.003).to_dict()
    assert notes["judged_by"] == POINT
    assert notes["within_tolerance"]
    assert not notes["established"]
    assert notes["images_needed"] > 300
    difference = paired_interval(int8.argmax(1) == 0, reference.argmax(1) == 0)
    assert notes["accuracy_difference"] == difference.to_dict()


@pytest.mark.parametrize("n", [2, 3, 10, 100, 5000])
def test_no_image_is_both_calibrated_on_and_chosen_on(n):
    calibration, choice, training = set_aside(n, 64, 500, seed=3)
    assert len(calibration) == min(64, n - len(choice))
    assert 1 <= len(choice) <= max(1, min(500, 0.2 * n))
    assert not set(choice) & set(training)
    assert set(calibration) <= set(training)
    assert set(choice) | set(training) == set(range(n))
    for places in (calibration, choice, training):
        assert len(set(places)) == len(places)


def test_the_first_images_set_aside_are_a_sample_of_all():
    _, choice, _ = set_aside(50_000, 512, 6000, seed=0)
    assert choice[:500].mean() == pytest.approx(25_000, rel=0.1)


def test_the_same_seed_sets_the_same_images_aside():
    first, second, other = (set_aside(1000, 32, 100, seed) for seed in (1, 1, 2))
    assert all(np.array_equal(a, b) for a, b in zip(first, second, strict=True))
    assert not np.array_equal(first[1], other[1])


def test_one_image_cannot_serve_two_purposes():
    with pytest.raises(ValueError, match="got 1"):
        set_aside(1, 8, 8, seed=0)


@pytest.mark.parametrize(("n", "most", "expected"), [(3, 500, 3), (600, 500, 500), (1, 5, 1)])
def test_at_most_so_many_images_are_drawn_each_once_and_the_same_for_a_seed(n, most, expected):
    places = drawn(n, most, seed=3)
    assert len(set(places.tolist()) & set(range(n))) == len(places) == expected
    np.testing.assert_array_equal(places, drawn(n, most, seed=3))


def test_the_first_drawn_are_a_sample_of_all():
    assert drawn(50_000, 6000, seed=0)[:500].mean() == pytest.approx(25_000, rel=0.1)
