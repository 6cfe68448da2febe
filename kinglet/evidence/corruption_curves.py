"""What a model is worth on corrupted images: its score in every variant of them, and its spread over the images."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from kinglet.evidence.bootstrap import Interval, enclosing
from kinglet.evidence.image_bootstrap import Score

RESAMPLES = 1000


@dataclass(frozen=True)
class Curves:
    """A score of a model in every variant of the same images, the clean ones first.

    values: float64 (n_variants,). drawn: over resamples of the images, (n_resamples, n_variants).
    """

    values: NDArray[np.float64]
    drawn: NDArray[np.float64]

    def corrupted(self) -> tuple[float, NDArray[np.float64]]:
        """Return the mean over corruptions, and that of every resample."""
        return float(self.values[1:].mean()), self.drawn[:, 1:].mean(axis=1)

    def beyond_clean(self) -> tuple[float, NDArray[np.float64]]:
        """Return by how much that mean differs from the score on the clean images, and the same of every resample."""
        value, drawn = self.corrupted()
        return value - float(self.values[0]), drawn - self.drawn[:, 0]


def curves_of(scores: list[Score], n_images: int, *, resamples: int = RESAMPLES, seed: int = 0) -> Curves:
    """Return the score in every variant, over the images and over resamples of them, the same for every model.

    scores: of each variant, the clean images first, all of the same images.
    """
    drawn = np.random.default_rng(seed).multinomial(n_images, np.full(n_images, 1 / n_images), size=resamples)
    weights = np.concatenate([np.ones((1, n_images)), drawn])
    table = np.stack([score(weights) for score in scores], axis=1)
    # A resample that leaves the score undefined says nothing.
    return Curves(table[0], table[1:][~np.isnan(table[1:]).any(axis=1)])


def between(
    one: tuple[float, NDArray[np.float64]], other: tuple[float, NDArray[np.float64]], confidence: float
) -> Interval:
    """Return the difference of two scores with its interval, drawn over the same images."""
    return interval(one[0] - other[0], one[1] - other[1], confidence, lowest=-1)


def interval(value: float, drawn: NDArray[np.float64], confidence: float, lowest: float) -> Interval:
    """Return a score with its percentile interval."""
    low, high = np.quantile(drawn, [(1 - confidence) / 2, (1 + confidence) / 2]).tolist()
    return enclosing(value, low, high, lowest=lowest)
