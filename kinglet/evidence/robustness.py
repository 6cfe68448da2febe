"""What a model is worth on corrupted images, and whether it lost there what it kept on clean ones."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kinglet.evidence.bootstrap import RESAMPLES, Interval

KEPT, LOST, AS_CLEAN, NOT_ESTABLISHED = "kept", "lost", "lost as on clean images", "not established"


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
    low, high = map(float, np.quantile(drawn, [(1 - confidence) / 2, (1 + confidence) / 2]))
    value = float(counts @ different / n)
    return Interval(value, min(low, value), max(high, value))


def robustness_differences(
    corrupted: NDArray[np.float64], clean: NDArray[np.float64], *, confidence: float = 0.95, seed: int = 0
) -> tuple[Interval, Interval]:
    """Return how much better a model is than another on corrupted images, and by how much more than on clean ones.

    corrupted: float64 of shape (n_images,), the difference of `Answers.by_image`. clean: of the same shape, the
    difference of right (1) and wrong (0) on the images themselves.
    Raises ValueError without images.
    """
    difference = mean_interval(corrupted, confidence=confidence, seed=seed)
    return difference, mean_interval(corrupted - clean, confidence=confidence, seed=seed)


def balanced_sample(labels: NDArray[np.int64], count: int, seed: int) -> NDArray[np.int64]:
    """Return places of `count` images, ascending, as evenly divided among the classes as their numbers allow.

    labels: int64 of shape (n,). All places if there are no more than `count`.
    """
    order = np.random.default_rng(seed).permutation(len(labels))
    by_class = order[np.argsort(labels[order], kind="stable")]
    starts = np.searchsorted(labels[by_class], labels[by_class])
    rank_in_class = np.arange(len(labels)) - starts
    return np.sort(by_class[np.argsort(rank_in_class, kind="stable")][:count])


def verdict_of(corrupted: Interval, beyond_clean: Interval, tolerance: float) -> str:
    """Return whether a model kept the robustness of the one that it is compared with, as one of four words.

    corrupted: paired difference of mean corruption accuracy to that model. beyond_clean: by how much it differs from
    the paired difference of accuracy on the same images without corruption. tolerance: what may be lost, in [0, 1).

    LOST: more than on clean images, which therefore do not show it. AS_CLEAN: lost, and not shown to be more than on
    clean images. KEPT, LOST and AS_CLEAN are said only where the interval says so.
    """
    if corrupted.low >= -tolerance:
        return KEPT
    if corrupted.value < -tolerance and corrupted.high < 0:
        return LOST if beyond_clean.high < 0 else AS_CLEAN
    return NOT_ESTABLISHED
