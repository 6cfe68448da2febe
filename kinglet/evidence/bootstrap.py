"""Intervals by resampling the examples, drawn as counts.

A score that depends on the examples only through counts (of right answers, of cells of a confusion
matrix) has the same bootstrap distribution when the counts are drawn from a multinomial instead of
example by example: 10,000 resamples of 10,000 predictions in milliseconds.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kinglet.evidence.metrics import accuracy, class_scores, ratio

RESAMPLES = 10_000
# Bounds the memory of one block of resampled counts: 8 bytes each.
CELLS_PER_BLOCK = 4_000_000


@dataclass(frozen=True)
class Interval:
    """A score with its interval, in the score's units; low <= value <= high."""

    value: float
    low: float
    high: float

    def to_dict(self) -> dict[str, float]:
        """Return the three numbers, rounded to 6 digits after the point."""
        return {name: round(number, 6) for name, number in asdict(self).items()}


def accuracy_interval(
    correct: NDArray[np.bool_], *, confidence: float = 0.95, resamples: int = RESAMPLES, seed: int = 0
) -> Interval:
    """Return the share of right answers with its percentile interval, in [0, 1].

    correct: bool of shape (n_examples,). Where all answers are right, or all wrong, resampling gives
    an interval without width; the exact binomial bound takes its place.
    Raises ValueError without examples.
    Source: Efron and Tibshirani 1993, chapter 13; Clopper and Pearson 1934 for the bound.
    """
    n = require_examples(len(correct))
    n_right = int(np.count_nonzero(correct))
    drawn = np.random.default_rng(seed).binomial(n, n_right / n, size=resamples) / n
    value, margin = n_right / n, unseen_share(n, confidence)
    low, high = percentiles(drawn, confidence)
    return enclosing(value, low - margin * (n_right == n), high + margin * (n_right == 0))


def f1_macro_interval(
    confusion: NDArray[np.int64], *, confidence: float = 0.95, resamples: int = RESAMPLES, seed: int = 0
) -> Interval:
    """Return the macro F1 with its percentile interval, in [0, 1].

    confusion: counts of shape (n_classes, n_classes), rows are labels. Classes without an example in a
    resample are left out of its mean, as they are left out of the score itself.
    Raises ValueError without examples.
    """
    n = require_examples(int(confusion.sum()))
    scores = class_scores(confusion)
    rows, columns = np.nonzero(confusion)
    shares = confusion[rows, columns] / n
    classes = np.arange(len(confusion))
    of_row, of_column = (rows[:, None] == classes).astype(np.float64), (columns[:, None] == classes).astype(np.float64)
    on_diagonal = of_row * of_column
    generator = np.random.default_rng(seed)
    drawn = []
    block = max(1, CELLS_PER_BLOCK // len(rows))
    for start in range(0, resamples, block):
        counts = generator.multinomial(n, shares, size=min(block, resamples - start)).astype(np.float64)
        support = counts @ of_row
        f1 = ratio(2 * (counts @ on_diagonal), support + counts @ of_column)
        drawn.append(f1.sum(axis=1, where=support > 0) / (support > 0).sum(axis=1))
    low, high = percentiles(np.concatenate(drawn), confidence)
    return enclosing(scores.macro(scores.f1), low - unseen_share(n, confidence) * (accuracy(confusion) == 1), high)


def paired_interval(
    correct_a: NDArray[np.bool_],
    correct_b: NDArray[np.bool_],
    *,
    confidence: float = 0.95,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> Interval:
    """Return mean(correct_a) - mean(correct_b) over the same examples, with its percentile interval; in [-1, 1].

    correct_a, correct_b: bool of shape (n_examples,), in the same order. Where both are right on exactly the
    same examples, the exact binomial bound on the share of disagreement stands in for an interval without width.
    Raises ValueError if the lengths differ or there are no examples.
    Source: Efron and Tibshirani 1993, chapter 13.
    """
    if len(correct_a) != len(correct_b):
        raise ValueError(f"paired answers must be of the same examples, got {len(correct_a)} and {len(correct_b)}")
    n = require_examples(len(correct_a))
    only_a = int(np.count_nonzero(correct_a & ~correct_b))
    only_b = int(np.count_nonzero(correct_b & ~correct_a))
    shares = np.array([only_a, only_b, n - only_a - only_b]) / n
    counts = np.random.default_rng(seed).multinomial(n, shares, size=resamples)
    low, high = percentiles((counts[:, 0] - counts[:, 1]) / n, confidence)
    margin = unseen_share(n, confidence) * (only_a + only_b == 0)
    return enclosing((only_a - only_b) / n, low - margin, high + margin, lowest=-1)


def unseen_share(n: int, confidence: float) -> float:
    """Return the upper bound on the share of something that none of n examples showed."""
    return float(1 - ((1 - confidence) / 2) ** (1 / n))


def percentiles(drawn: NDArray[Any], confidence: float) -> tuple[float, float]:
    """Return the bounds that leave equal tails outside."""
    low, high = np.quantile(drawn, [(1 - confidence) / 2, (1 + confidence) / 2])
    return float(low), float(high)


def enclosing(value: float, low: float, high: float, lowest: float = 0) -> Interval:
    """Return the interval, widened to hold the value where the resamples are skewed, and kept within the scale."""
    return Interval(value, max(lowest, min(low, value)), min(1.0, max(high, value)))


def require_examples(n: int) -> int:
    """Return n; raise ValueError if it is 0."""
    if n < 1:
        raise ValueError("an interval needs at least one example")
    return n


def examples_to_establish(difference: Interval, lowest_allowed: float, n: int) -> int | None:
    """Return about how many paired examples would show that the difference is not below `lowest_allowed`.

    difference: a paired difference measured on n examples. Returns n if they show it already, None if
    the measured value itself lies at or below the limit, so that more examples would not help.
    An interval's width shrinks with the square root of the number of examples.
    """
    room = difference.value - lowest_allowed
    if room <= 0:
        return None
    reach = difference.value - difference.low
    return n if reach <= room else int(np.ceil(n * (reach / room) ** 2))
