import xml.etree.ElementTree as ElementTree

import numpy as np
import pytest
import scipy.stats

from kinglet.evidence.bootstrap import Interval
from kinglet.evidence.metrics import calibration_gap, expected_calibration_error
from kinglet.evidence.robustness import (
    AS_CLEAN,
    KEPT,
    LOST,
    NOT_ESTABLISHED,
    Answers,
    balanced_sample,
    mean_interval,
    verdict_of,
)
from kinglet.evidence.robustness_charts import Decline, accuracy_and_confidence, apart


def test_interval_of_a_mean_is_that_of_scipy():
    values = np.random.default_rng(0).integers(0, 76, 300) / 75
    found = mean_interval(values, seed=1)
    wanted = scipy.stats.bootstrap((values,), np.mean, method="percentile", rng=np.random.default_rng(2))
    assert found.value == pytest.approx(values.mean(), abs=1e-9)
    assert found.low == pytest.approx(wanted.confidence_interval.low, abs=0.004)
    assert found.high == pytest.approx(wanted.confidence_interval.high, abs=0.004)


def test_interval_of_equal_values_has_no_width_and_needs_an_image():
    assert mean_interval(np.zeros(20)) == Interval(0, 0, 0)
    assert mean_interval(np.array([0.3])).low == pytest.approx(0.3)
    with pytest.raises(ValueError, match="at least one"):
        mean_interval(np.zeros(0))


def test_intervals_hold_what_they_promise():
    generator = np.random.default_rng(3)
    # Images that are easy or hard under all corruptions: their answers hang together.
    ease = generator.beta(2, 1, (800, 150))
    drawn = generator.binomial(75, ease) / 75
    held = [interval.low <= 2 / 3 <= interval.high for interval in (mean_interval(row, resamples=500) for row in drawn)]
    assert 0.93 <= np.mean(held) <= 0.97


@pytest.mark.parametrize(
    ("corrupted", "beyond", "said"),
    [
        ((0, 0, 0), (0, 0, 0), KEPT),
        ((-0.004, -0.009, 0.001), (-0.004, -0.006, -0.002), KEPT),
        ((-0.08, -0.1, -0.06), (-0.06, -0.09, -0.03), LOST),
        ((-0.08, -0.1, -0.06), (-0.01, -0.03, 0.01), AS_CLEAN),
        ((-0.02, -0.05, 0.01), (-0.02, -0.05, 0.01), NOT_ESTABLISHED),
        ((0.01, -0.02, 0.04), (0.01, -0.02, 0.04), NOT_ESTABLISHED),
        ((-0.005, -0.012, -0.001), (-0.005, -0.012, -0.001), NOT_ESTABLISHED),
    ],
)
def test_verdict(corrupted, beyond, said):
    assert verdict_of(Interval(*corrupted), Interval(*beyond), 0.01) == said


def test_a_sample_is_balanced_ascending_and_the_same_every_time():
    labels = np.random.default_rng(4).permutation(np.repeat([0, 1, 2, 3], [200, 50, 3, 1]))
    places = balanced_sample(labels, 40, seed=0)
    assert np.bincount(labels[places]).tolist() == [18, 18, 3, 1]
    assert (np.diff(places) > 0).all()
    assert np.array_equal(places, balanced_sample(labels, 40, seed=0))
    assert not np.array_equal(places, balanced_sample(labels, 40, seed=1))
    assert balanced_sample(labels, 1000, seed=0).tolist() == list(range(254))
    assert len(balanced_sample(labels, 1, seed=0)) == 1


def test_calibration_of_answers_is_that_of_probabilities():
    generator = np.random.default_rng(5)
    probabilities, labels = generator.dirichlet(np.ones(4), 500), generator.integers(0, 4, 500)
    correct, confidence = probabilities.argmax(1) == labels, probabilities.max(1)
    assert calibration_gap(correct, confidence) == expected_calibration_error(labels, probabilities)
    assert calibration_gap(correct[:0], confidence[:0]) == 0


def test_answers_are_averaged_by_image_and_divided_by_way():
    correct = np.random.default_rng(6).random((3, 5, 7)) < 0.5
    answers = Answers(correct, correct.astype(np.float32), correct[0, 0], correct[0, 0].astype(np.float32))
    assert answers.only(slice(1, None)).by_image.tolist() == pytest.approx(correct[1:].reshape(10, 7).mean(0).tolist())


@pytest.mark.parametrize("width", [380, 760])
@pytest.mark.parametrize("level", [0.0, 0.5, 1.0])
def test_chart_is_well_formed_and_stays_inside(width, level):
    declines = [
        Decline("teacher", [0.9, 0.8, 0.7], [0.9, 0.9, 0.85], "teacher"),
        Decline("a<b&c", [level] * 3, [level] * 3, "chosen"),
    ]
    for shown in (declines, declines[1:]):
        root = ElementTree.fromstring(accuracy_and_confidence(shown, width=width, height=300))
        lines = list(root.iter("polyline"))
        assert len(lines) == 2 * len(shown)
        for line in lines:
            places = [tuple(map(float, pair.split(","))) for pair in line.get("points").split()]
            assert len(places) == 3
            assert all(0 <= x <= width and 0 <= y <= 300 for x, y in places)


def test_labels_do_not_overlap():
    moved = apart([100, 20, 102, 101])
    assert np.diff(sorted(moved)).min() >= 15
    assert moved[1] == 20
