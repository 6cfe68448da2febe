"""The accuracy in use, from labels that came later, beside the one that was reported."""

from __future__ import annotations

import math
from dataclasses import dataclass

from scipy.stats import binomtest

from kinglet.evidence.bootstrap import Interval

BELOW, NOT_BELOW, NOT_ESTABLISHED, TOO_FEW = "below", "not below", "not established", "not enough labels"


@dataclass(frozen=True)
class LiveAccuracy:
    """live, reported: accuracies, in [0, 1]. difference: live minus reported. verdict: BELOW and so on."""

    live: Interval
    reported: Interval
    difference: Interval
    verdict: str


def live_accuracy(
    right: int, n: int, right_reported: int, n_reported: int, *, margin: float, min_labels: int, confidence: float
) -> LiveAccuracy:
    """Return how right a model was in use, and whether it fell below what its test images had promised.

    right of n answers in use, right_reported of n_reported on test images; n and n_reported at least 1.
    BELOW: the whole interval of the difference lies below 0. NOT_BELOW: it lies above -margin.
    """
    live, reported = share(right, n, confidence), share(right_reported, n_reported, confidence)
    difference = newcombe_difference(live, reported)
    if n < min_labels:
        verdict = TOO_FEW
    elif difference.high < 0:
        verdict = BELOW
    else:
        verdict = NOT_BELOW if difference.low > -margin else NOT_ESTABLISHED
    return LiveAccuracy(live, reported, difference, verdict)


def share(right: int, n: int, confidence: float) -> Interval:
    """Return a share with Wilson's score interval; n at least 1. Source: Wilson 1927."""
    found = binomtest(right, n).proportion_ci(confidence, method="wilson")
    value = right / n
    return Interval(value, min(float(found.low), value), max(float(found.high), value))


def newcombe_difference(first: Interval, second: Interval) -> Interval:
    """Return first minus second, shares of different examples with Wilson's intervals.

    Source: Newcombe 1998, "Interval estimation for the difference between independent proportions", method 10.
    """
    value = first.value - second.value
    low = value - math.hypot(first.value - first.low, second.high - second.value)
    high = value + math.hypot(first.high - first.value, second.value - second.low)
    return Interval(value, low, high)
