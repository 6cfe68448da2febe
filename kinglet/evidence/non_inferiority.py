"""May the small model replace the big one? A verdict on the same images, and the images it would take."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import brentq
from scipy.special import ndtri

from kinglet.evidence.bootstrap import Interval
from kinglet.evidence.mcnemar import Disagreement, disagreement
from kinglet.evidence.power import CONFIDENCE, POWER, fewest_images, z_sum

Word = Literal["not worse", "worse", "not established"]
NOT_WORSE: Word = "not worse"
WORSE: Word = "worse"
NOT_ESTABLISHED: Word = "not established"
# The bounds lie inside the scale; its ends make the statistic divide by zero.
EDGE = 1e-12


@dataclass(frozen=True)
class Verdict:
    """Whether a model is worse than a reference by more than the margin.

    difference: accuracy minus the reference's; each of its ends is a bound that holds with the confidence on its own,
    low says how much worse the model is at most. verdict: "not worse" if low is at or above -margin, "worse" if
    high is below it, else "not established". images_needed: only for the last: the test images that would settle it
    with the power, if the models go on to differ as measured; None where the measured difference is the margin itself,
    which no number of images settles. would_show: what those images would show.
    """

    verdict: Word
    margin: float
    difference: Interval
    n: int
    images_needed: int | None = None
    would_show: Word | None = None

    def to_dict(self) -> dict[str, Any]:
        """Return the verdict JSON-ready, numbers rounded to 6 digits after the point."""
        return {
            "verdict": self.verdict,
            "margin": self.margin,
            "at_worst": round(self.difference.low, 6),
            "at_best": round(self.difference.high, 6),
            "images_needed": self.images_needed,
            "would_show": self.would_show,
        }


def verdict(
    correct: NDArray[np.bool_],
    correct_of_reference: NDArray[np.bool_],
    margin: float,
    *,
    same_model: bool = False,
    confidence: float = CONFIDENCE,
    power: float = POWER,
) -> Verdict:
    """Return whether a model is worse than the reference by more than `margin`, from answers to the same images.

    correct, correct_of_reference: bool of shape (n_images,), in the same order. margin: of accuracy, in [0, 1).
    same_model: the two gave the same outputs bit for bit: the difference is 0, not an estimate of it. confidence:
    of each bound by itself. power: that images_needed is reckoned for.
    Raises ValueError if the lengths differ, there are no images, or the margin is out of range.
    """
    counts = disagreement(correct, correct_of_reference)
    if not 0 <= margin < 1:
        raise ValueError(f"margin must be at least 0 and below 1, got {margin}")
    if same_model and not counts.share:
        return Verdict(NOT_WORSE, margin, Interval(0.0, 0.0, 0.0), counts.n)
    difference = score_interval(counts, confidence=2 * confidence - 1)
    if difference.low >= -margin:
        return Verdict(NOT_WORSE, margin, difference, counts.n)
    if difference.high < -margin:
        return Verdict(WORSE, margin, difference, counts.n)
    needed = images_to_settle(counts, margin, confidence=confidence, power=power)
    leaning: Word = NOT_WORSE if counts.difference > -margin else WORSE
    return Verdict(NOT_ESTABLISHED, margin, difference, counts.n, needed, leaning if needed else None)


def verdict_of_bounds(
    difference: Interval,
    n: int,
    margin: float,
    *,
    same_model: bool = False,
    confidence: float = CONFIDENCE,
    power: float = POWER,
) -> Verdict:
    """Return whether a model is worse than the reference by more than `margin`, from bounds of any paired difference.

    difference: of a score, the model's minus the reference's over n images; each end is a bound that holds with the
    confidence by itself. margin: in the score's units, in [0, 1). same_model: as for `verdict`. The images that would
    settle it are reckoned from the width of the bounds, which shrinks with the square root of their number.
    Raises ValueError if there are no images, or the margin is out of range.
    """
    if not 0 <= margin < 1:
        raise ValueError(f"margin must be at least 0 and below 1, got {margin}")
    if n < 1:
        raise ValueError("a verdict needs at least one image")
    if same_model:
        return Verdict(NOT_WORSE, margin, Interval(0.0, 0.0, 0.0), n)
    if difference.low >= -margin:
        return Verdict(NOT_WORSE, margin, difference, n)
    if difference.high < -margin:
        return Verdict(WORSE, margin, difference, n)
    room = difference.value + margin
    if math.isclose(room, 0, abs_tol=EDGE):
        return Verdict(NOT_ESTABLISHED, margin, difference, n)
    leaning: Word = NOT_WORSE if room > 0 else WORSE
    reach = difference.value - difference.low if room > 0 else difference.high - difference.value
    # The bound lies at a multiple of the standard error that the confidence says; the power asks for more.
    needed = n * (reach * z_sum(confidence, power) / (float(ndtri(confidence)) * room)) ** 2
    return Verdict(NOT_ESTABLISHED, margin, difference, n, max(math.ceil(needed), n + 1), leaning)


def images_to_settle(
    counts: Disagreement, margin: float, *, confidence: float = CONFIDENCE, power: float = POWER
) -> int | None:
    """Return the images that would tell on which side of -margin a difference lies, if it is as measured.

    None if it is the margin itself. More than were looked at: those did not settle it.
    """
    room = abs(margin + counts.difference)
    if math.isclose(room, 0, abs_tol=EDGE):
        return None
    spread = counts.share - counts.difference**2
    needed = math.ceil((z_sum(confidence, power) / room) ** 2 * spread)
    fewest = fewest_images(margin, confidence) if margin > 0 else 1
    return max(needed, fewest, counts.n + 1)


def score_interval(counts: Disagreement, *, confidence: float = 0.95) -> Interval:
    """Return the paired difference of two accuracies with its score interval, in [-1, 1].

    Unlike resampling, it does not take a few images without a loss for a proof that there is none: one model right on
    one more of 20 images gives -0.12 to 0.24.
    Raises ValueError without examples.
    Source: Tango 1998, "Equivalence test and confidence interval for the difference in proportions for the
    paired-sample design".
    """
    if counts.n < 1:
        raise ValueError("an interval needs at least one example")
    z, measured = float(ndtri((1 + confidence) / 2)), counts.difference

    def beyond(bound: float, side: int) -> float:
        return side * score_statistic(counts, bound) - z

    low = -1.0 if measured <= -1 + EDGE else brentq(beyond, -1 + EDGE, measured, args=(1,))
    high = 1.0 if measured >= 1 - EDGE else brentq(beyond, measured, 1 - EDGE, args=(-1,))
    return Interval(measured, float(low), float(high))


def score_statistic(counts: Disagreement, difference: float) -> float:
    """Return how many standard errors the measured difference lies above `difference`, under which the errors are.

    Source: Tango 1998, equations 2 to 5.
    """
    n, first, second = counts.n, counts.only_first, counts.only_second
    excess = first - second - n * difference
    if excess == 0:
        return 0.0
    # The most likely share of images that only the second has right, given the difference: root of a x^2 + b x + c.
    a, b = 2 * n, (2 * n - first + second) * difference - first - second
    c = -second * difference * (1 - difference)
    share = (math.sqrt(max(0.0, b**2 - 4 * a * c)) - b) / (2 * a)
    variance = n * (2 * share + difference * (1 - difference))
    return excess / math.sqrt(variance) if variance > 0 else math.copysign(math.inf, excess)
