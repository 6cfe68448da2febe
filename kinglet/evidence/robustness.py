"""What a model is worth on corrupted images, and whether it lost there what it kept on clean ones."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kinglet.evidence.bootstrap import RESAMPLES, Interval, percentiles

KEPT, LOST, NOT_ESTABLISHED, CLEAN_LOST = "kept", "lost", "not established", "lost already on clean images"


@dataclass(frozen=True)
class Answers:
    """A model's answers to the same images, clean and changed in several ways.

    correct: bool of shape (n_ways, n_severities, n_images); confidence: float32 of the same shape, of the class
    that was predicted. clean_correct, clean_confidence: of shape (n_images,).
    """

    correct: NDArray[np.bool_]
    confidence: NDArray[np.float32]
    clean_correct: NDArray[np.bool_]
    clean_confidence: NDArray[np.float32]

    def only(self, ways: slice) -> Answers:
        """Return the answers to some of the ways."""
        return Answers(self.correct[ways], self.confidence[ways], self.clean_correct, self.clean_confidence)

    @property
    def by_image(self) -> NDArray[np.float64]:
        """The share of ways and severities at which each image was answered right, float64 of shape (n_images,)."""
        return self.correct.mean(axis=(0, 1))


def mean_interval(
    values: NDArray[np.floating[Any]], *, confidence: float = 0.95, resamples: int = RESAMPLES, seed: int = 0
) -> Interval:
    """Return the mean of one value per image with its percentile interval, images resampled.

    values: shape (n_images,). Few different ones are expected (shares of 75 answers): resamples are drawn as counts
    of them. Equal values give an interval without width.
    Raises ValueError without images.
    Source: Efron and Tibshirani 1993, chapter 13.
    """
    if not len(values):
        raise ValueError("a mean needs at least one image")
    # Shares that are equal up to the last bits of a sum count as one.
    different, counts = np.unique(np.round(values.astype(np.float64), 9), return_counts=True)
    n = len(values)
    drawn = np.random.default_rng(seed).multinomial(n, counts / n, size=resamples) @ different / n
    low, high = percentiles(drawn, confidence)
    value = float(counts @ different / n)
    return Interval(value, min(low, value), max(high, value))


def balanced_sample(labels: NDArray[np.int64], count: int, seed: int) -> NDArray[np.int64]:
    """Return places of `count` images, ascending, as evenly divided among the classes as their numbers allow.

    labels: int64 of shape (n,). All places if there are no more than `count`.
    """
    order = np.random.default_rng(seed).permutation(len(labels))
    by_class = order[np.argsort(labels[order], kind="stable")]
    starts = np.searchsorted(labels[by_class], labels[by_class])
    rank_in_class = np.arange(len(labels)) - starts
    return np.sort(by_class[np.argsort(rank_in_class, kind="stable")][:count])


def verdict_of(clean: Interval, corrupted: Interval, tolerance: float) -> str:
    """Return whether a model kept the robustness of the one that it is compared with, as one of four words.

    clean, corrupted: paired differences to that model, of accuracy on clean images and of mean corruption accuracy.
    tolerance: what may be lost, in [0, 1).

    LOST, although clean accuracy is kept, is what a look at clean images does not show. CLEAN_LOST: nothing to add
    to what they show. KEPT and LOST are said only where the interval says so.
    """
    if clean.value < -tolerance:
        return CLEAN_LOST
    if corrupted.low >= -tolerance:
        return KEPT
    if corrupted.value < -tolerance and corrupted.high < 0:
        return LOST
    return NOT_ESTABLISHED
