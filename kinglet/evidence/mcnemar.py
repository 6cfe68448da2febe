"""Do two classifiers differ on the same images? The exact test, and what it looks at."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import bdtr


@dataclass(frozen=True)
class Disagreement:
    """On how many of n examples only one of two models is right."""

    n: int
    only_first: int
    only_second: int

    @property
    def difference(self) -> float:
        """Accuracy of the first minus accuracy of the second, in [-1, 1]; 0 without examples."""
        return (self.only_first - self.only_second) / self.n if self.n else 0.0

    @property
    def share(self) -> float:
        """Share of examples on which exactly one of the two is right, in [0, 1]; 0 without examples."""
        return (self.only_first + self.only_second) / self.n if self.n else 0.0


def disagreement(correct: NDArray[np.bool_], correct_of_other: NDArray[np.bool_]) -> Disagreement:
    """Return the counts of two models' right answers to the same examples.

    correct, correct_of_other: bool of shape (n_examples,), in the same order.
    Raises ValueError if the lengths differ.
    """
    if len(correct) != len(correct_of_other):
        raise ValueError(f"paired answers must be of the same examples, got {len(correct)} and {len(correct_of_other)}")
    first, second = np.asarray(correct, bool), np.asarray(correct_of_other, bool)
    return Disagreement(len(first), int(np.count_nonzero(first & ~second)), int(np.count_nonzero(second & ~first)))


def mcnemar_p(only_first: int, only_second: int) -> float:
    """Return the two-sided p-value of "both models are right equally often", exact; 1 where they never disagree.

    only_first, only_second: examples on which only the one, only the other is right.
    Raises ValueError for negative counts.
    Source: McNemar 1947; the exact form is the sign test on the pairs that differ.
    """
    if min(only_first, only_second) < 0:
        raise ValueError(f"counts must not be negative, got {only_first} and {only_second}")
    n = only_first + only_second
    # Twice the smaller tail: not scipy.stats, which takes as long to import as all else of a step.
    return min(1.0, 2 * float(bdtr(min(only_first, only_second), n, 0.5))) if n else 1.0


def holm(p_values: NDArray[Any]) -> NDArray[np.float64]:
    """Return p-values corrected for their number, float64 (n_tests,), so that any false alarm at all is as rare as one.

    p_values: in [0, 1], shape (n_tests,).
    Source: Holm 1979, "A Simple Sequentially Rejective Multiple Test Procedure".
    """
    values = np.asarray(p_values, np.float64)
    order = np.argsort(values, kind="stable")
    stepped = values[order] * np.arange(len(values), 0, -1)
    corrected = np.empty_like(values)
    corrected[order] = np.minimum(1, np.maximum.accumulate(stepped))
    return corrected
