"""The accuracy in use beside the reported one."""

from __future__ import annotations

import pytest

from kinglet.evidence.live_accuracy import BELOW, NOT_BELOW, NOT_ESTABLISHED, TOO_FEW, live_accuracy, share


@pytest.mark.parametrize(
    ("right", "n", "verdict"),
    [
        (450, 500, NOT_BELOW),
        (20_000, 20_000, NOT_BELOW),
        (400, 500, BELOW),
        (88, 100, NOT_ESTABLISHED),
        (0, 99, TOO_FEW),  # however bad
    ],
)
def test_verdicts(right: int, n: int, verdict: str) -> None:
    found = live_accuracy(right, n, 9000, 10_000, margin=0.05, min_labels=100, confidence=0.95)
    assert found.verdict == verdict
    assert found.difference.value == pytest.approx(right / n - 0.9)


def test_the_interval_of_a_difference_is_newcombes() -> None:
    # His example (a): 56 of 70 and 48 of 80.
    found = live_accuracy(56, 70, 48, 80, margin=0.01, min_labels=20, confidence=0.95).difference
    assert (found.low, found.high) == (pytest.approx(0.0524, abs=5e-5), pytest.approx(0.3339, abs=5e-5))


def test_the_interval_of_a_share_is_wilsons_and_holds_it() -> None:
    # Newcombe 1998, 81 of 263.
    found = share(81, 263, 0.95)
    assert (found.low, found.high) == (pytest.approx(0.2553, abs=5e-5), pytest.approx(0.3662, abs=5e-5))
    assert share(5, 5, 0.95).high == 1
    assert share(0, 5, 0.95).low == 0
