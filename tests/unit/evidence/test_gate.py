"""The gate's policy: every check passes, fails or stays unjudged as it should, and says why."""

from __future__ import annotations

import numpy as np
import pytest

from kinglet.evidence.bootstrap import Interval
from kinglet.evidence.gate import (
    FAILED,
    NOT_JUDGED,
    PASSED,
    Answers,
    Check,
    accuracy_check,
    class_drop_check,
    class_floor_check,
    data_check,
    golden_check,
    is_accepted,
    limit_check,
    points,
    robustness_check,
    slowdown_check,
)


def answers(n: int, lost: int, gained: int, same_model: bool = False) -> Answers:
    """Return answers in one class: both models right on most images, `lost` and `gained` by the challenger alone."""
    predicted, of_reference = np.zeros(n, int), np.zeros(n, int)
    predicted[:lost], of_reference[lost : lost + gained] = 1, 1
    return Answers(np.zeros(n, int), predicted, of_reference, "champion", same_model)


@pytest.mark.parametrize(
    ("n", "lost", "gained", "outcome", "said"),
    [
        (10_000, 100, 80, PASSED, "Shown to be at most 1 point below the champion: -0.20 points on 10,000 test images"),
        (10_000, 400, 80, FAILED, "Shown to be more than 1 point below"),
        (10_000, 180, 90, FAILED, "Not established that it is at most 1 point below"),
        (20, 0, 0, FAILED, "Not established"),  # nothing to be seen in 20 images
        (20, 1, 0, FAILED, "Not established"),
        (1, 1, 0, FAILED, "Not established"),
        (20, 20, 0, FAILED, "Shown to be more than 1 point below"),
        (1000, 50, 40, FAILED, "right on the limit"),  # no number of images settles -1.00 points
    ],
)
def test_accuracy_passes_only_where_the_images_show_it(n: int, lost: int, gained: int, outcome: str, said: str) -> None:
    check = accuracy_check(answers(n, lost, gained), 0.01, accept_unestablished=False, confidence=0.95)
    assert (check.outcome, said in check.reason) == (outcome, True), check.reason


def test_what_is_not_established_passes_where_the_policy_accepts_it_and_what_is_worse_does_not() -> None:
    unclear, worse = answers(20, 1, 0), answers(10_000, 400, 80)
    assert accuracy_check(unclear, 0.01, accept_unestablished=True, confidence=0.95).outcome == PASSED
    assert accuracy_check(worse, 0.01, accept_unestablished=True, confidence=0.95).outcome == FAILED


def test_the_images_that_it_would_take_are_named() -> None:
    check = accuracy_check(answers(400, 4, 4), 0.01, accept_unestablished=False, confidence=0.95)
    assert check.figures["images_needed"] > 400
    assert f"about {check.figures['images_needed']:,} to tell" in check.reason


def test_a_model_beside_itself_passes_with_a_difference_of_exactly_zero() -> None:
    check = accuracy_check(answers(20, 0, 0, same_model=True), 0.0, accept_unestablished=False, confidence=0.95)
    assert check.outcome == PASSED
    assert check.figures["difference"] == {"value": 0, "low": 0, "high": 0}
    assert class_drop_check(answers(20, 0, 0, same_model=True), ["a"], 0.0, confidence=0.95).outcome == PASSED


def two_classes(wrong_of_second: int, n: int = 100) -> Answers:
    """Return answers to n images of each of two classes; the reference is always right."""
    labels = np.repeat([0, 1], n)
    predicted = labels.copy()
    predicted[n : n + wrong_of_second] = 0
    return Answers(labels, predicted, labels, "teacher")


def test_the_floor_counts_in_every_class_not_on_average() -> None:
    check = class_floor_check(two_classes(51), ["cat", "dog"], 0.5)
    assert check.outcome == FAILED
    assert "Below the floor: dog; the weakest, dog, has 49.0 %" in check.reason
    assert class_floor_check(two_classes(50), ["cat", "dog"], 0.5).outcome == PASSED
    assert class_floor_check(two_classes(51), ["cat", "dog"], None).outcome == NOT_JUDGED


def test_a_class_without_test_images_is_told_and_refuses_nobody() -> None:
    check = class_floor_check(two_classes(0), ["cat", "dog", "eel"], 0.5)
    assert check.outcome == PASSED
    assert "1 without a test image" in check.reason
    assert class_drop_check(two_classes(0), ["cat", "dog", "eel"], 0.05, confidence=0.95).outcome == PASSED


@pytest.mark.parametrize(("wrong", "outcome"), [(0, PASSED), (6, PASSED), (20, FAILED)])
def test_a_class_fails_only_where_its_loss_is_established(wrong: int, outcome: str) -> None:
    check = class_drop_check(two_classes(wrong), ["cat", "dog"], 0.05, confidence=0.95)
    assert check.outcome == outcome
    assert check.figures["lost"] == (["dog"] if outcome == FAILED else [])


def test_many_classes_do_not_refuse_a_model_that_is_as_good() -> None:
    generator = np.random.default_rng(0)
    labels = np.repeat(np.arange(20), 50)
    refused = 0
    for _ in range(100):
        wrong = [generator.random(len(labels)) < 0.15 for _ in range(2)]
        predicted = [np.where(missed, (labels + 1) % 20, labels) for missed in wrong]
        made = Answers(labels, predicted[0], predicted[1], "champion")
        names = [str(number) for number in range(20)]
        refused += class_drop_check(made, names, 0.0, confidence=0.95).outcome == FAILED
    assert refused <= 10  # at most 5 % by chance, with room for the 100 repetitions


AS_CLEAN, BEYOND_CLEAN = Interval(-0.001, -0.003, 0.001), Interval(-0.07, -0.08, -0.06)


@pytest.mark.parametrize(
    ("difference", "beyond_clean", "accept", "outcome", "said"),
    [
        (Interval(-0.02, -0.03, -0.01), AS_CLEAN, False, PASSED, "Within 5 points"),
        (Interval(-0.05, -0.06, -0.04), AS_CLEAN, False, FAILED, "Not established"),
        (Interval(-0.05, -0.06, -0.04), AS_CLEAN, True, PASSED, "Not established"),
        (Interval(-0.08, -0.09, -0.07), AS_CLEAN, True, FAILED, "more than 5 points"),
        (Interval(-0.08, -0.09, -0.07), BEYOND_CLEAN, True, FAILED, "-7.00 more than on clean ones"),
        (Interval(-0.02, -0.03, -0.01), Interval(-0.02, -0.03, -0.01), True, PASSED, "-2.00 more than on clean ones"),
    ],
)
def test_lost_robustness_is_flagged_where_clean_accuracy_is_kept(
    difference: Interval, beyond_clean: Interval, accept: bool, outcome: str, said: str
) -> None:
    check = robustness_check(difference, beyond_clean, 0.05, accept_unestablished=accept)
    assert (check.outcome, said in check.reason) == (outcome, True), check.reason
    assert check.flagged == ("more than on clean ones" in said)


def test_what_was_not_measured_or_has_no_limit_is_said_and_not_judged() -> None:
    unmeasured = robustness_check(None, None, 0.05, accept_unestablished=False)
    assert unmeasured.outcome == NOT_JUDGED
    assert "not scored" in unmeasured.reason
    assert robustness_check(AS_CLEAN, AS_CLEAN, None, accept_unestablished=False).outcome == NOT_JUDGED
    assert limit_check("size", 3.0, None, "MB").outcome == NOT_JUDGED


@pytest.mark.parametrize(("value", "outcome"), [(1.9, PASSED), (2.0, PASSED), (2.01, FAILED)])
def test_limits_hold_up_to_the_limit_itself(value: float, outcome: str) -> None:
    assert limit_check("latency", value, 2.0, "ms").outcome == outcome


def test_speed_fails_only_where_the_intervals_leave_no_doubt() -> None:
    champion = Interval(1.0, 0.95, 1.05)
    assert slowdown_check(Interval(1.3, 1.2, 1.4), champion, 1.1, "champion").outcome == FAILED
    assert slowdown_check(Interval(1.3, 1.1, 1.5), champion, 1.1, "champion").outcome == PASSED
    assert slowdown_check(Interval(1.3, 1.2, 1.4), champion, None, "champion").outcome == NOT_JUDGED


@pytest.mark.parametrize(
    ("critical", "warnings", "most", "outcome"), [(0, 7, None, PASSED), (0, 3, 2, FAILED), (1, 0, None, FAILED)]
)
def test_data_quality(critical: int, warnings: int, most: int | None, outcome: str) -> None:
    assert data_check(critical, warnings, most).outcome == outcome


def test_one_failure_refuses_and_nothing_judged_accepts_nobody() -> None:
    passed, failed, unjudged = Check("a", PASSED, ""), golden_check("It differs."), Check("c", NOT_JUDGED, "")
    assert is_accepted([passed, unjudged])
    assert not is_accepted([passed, failed, unjudged])
    assert not is_accepted([unjudged])


@pytest.mark.parametrize(("share", "said"), [(0.01, "1 point"), (0.005, "0.5 points"), (0.0, "0 points")])
def test_points_in_words(share: float, said: str) -> None:
    assert points(share) == said
