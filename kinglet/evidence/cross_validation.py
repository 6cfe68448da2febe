"""What the scores of folds say: a mean, a deviation, and an interval that knows that the trainings share images."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import stdtrit

from kinglet.evidence.bootstrap import Interval


@dataclass(frozen=True)
class Spread:
    """The scores of all runs of a cross-validation, in the score's units.

    interval: the mean with its interval. deviation: the standard deviation of one run (n - 1 in the denominator).
    """

    interval: Interval
    deviation: float

    def to_dict(self) -> dict[str, float]:
        """Return mean, low, high and deviation, rounded to 6 digits after the point."""
        return {**self.interval.to_dict(), "deviation": round(self.deviation, 6)}


def corrected_resampled_interval(
    scores: NDArray[np.float64], held_out_per_training: float, *, confidence: float = 0.95
) -> Spread:
    """Return the mean of the scores of all folds and repetitions with the corrected resampled t interval.

    scores: float (n_runs,), one per fold and repetition. held_out_per_training: images held out in a run over images
    trained on, 1 / (folds - 1). Runs share most of their training images, so their scores are not independent, and
    the variance of their mean is more than that of one run over n_runs: (1 / n_runs + held_out_per_training) of it.
    The interval is about the recipe on data sets of this size, and is not cut off at the ends of the score's scale.
    Raises ValueError for fewer than two runs or a ratio that is not positive.
    Source: Nadeau and Bengio 2003, "Inference for the Generalization Error", section 5, the corrected resampled t-test.
    """
    if len(scores) < 2 or not held_out_per_training > 0:
        raise ValueError("an interval over folds needs two runs or more and held-out images")
    mean, deviation = float(np.mean(scores)), float(np.std(scores, ddof=1))
    error = deviation * math.sqrt(1 / len(scores) + held_out_per_training)
    reach = float(stdtrit(len(scores) - 1, (1 + confidence) / 2)) * error
    return Spread(Interval(mean, mean - reach, mean + reach), deviation)
