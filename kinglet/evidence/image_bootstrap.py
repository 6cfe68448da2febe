"""Intervals of scores that resampling whole images gives, and of the differences of two models'.

Objects of one image are no independent examples, its pixels even less. So whole images are drawn, the same ones for
every model, so that a difference is paired.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from kinglet.evidence.bootstrap import (
    Cells,
    Interval,
    Method,
    acceleration,
    bca_bounds,
    draw_counts,
    enclosing,
    leave_one_out,
    require_examples,
    unseen_share,
    within,
)

RESAMPLES = 2000
# Of a single image, resampling shows no spread whatever it holds.
FEWEST_IMAGES = 2
# From how often each image counts, float64 (n_weightings, n_images), whole numbers, to scores,
# float64 (n_weightings, n_scores), or to one score, (n_weightings,).
Table = Callable[[NDArray[np.float64]], NDArray[np.float64]]
Score = Callable[[NDArray[np.float64]], NDArray[np.float64]]


@dataclass(frozen=True)
class DrawnScores:
    """A model's scores, or differences of two models' scores, and how they spread when the images are drawn anew.

    names: of the overall scores; after them come the scores of `class_names`, each for all classes. values:
    float64 (n_scores,). drawn: (n_resamples, n_scores). left_out: without each image in turn, (n_images, n_scores),
    empty where only percentiles are wanted. rests_on: images that define each score, int64 (n_scores,). is_difference,
    is_same: whether it is of two models, and whether those answer the very same. NaN where nothing defines a score.
    """

    names: tuple[str, ...]
    class_names: tuple[str, ...]
    n_classes: int
    values: NDArray[np.float64]
    drawn: NDArray[np.float64]
    left_out: NDArray[np.float64]
    rests_on: NDArray[np.int64]
    is_difference: bool = False
    is_same: bool = False

    def minus(self, other: DrawnScores, *, is_same: bool = False) -> DrawnScores:
        """Return by how much these scores differ from another model's, over the same images."""
        return DrawnScores(
            self.names,
            self.class_names,
            self.n_classes,
            self.values - other.values,
            self.drawn - other.drawn,
            self.left_out - other.left_out,
            self.rests_on,
            is_difference=True,
            is_same=is_same,
        )

    def column(self, name: str) -> int:
        """Return where an overall score stands."""
        return self.names.index(name)

    def class_column(self, name: str, label: int) -> int:
        """Return where a score of one class stands."""
        return len(self.names) + self.class_names.index(name) * self.n_classes + label


@dataclass(frozen=True)
class ImageIntervals:
    """Scores with their intervals; None for those that nothing defines. by_class: one for each class."""

    overall: dict[str, Interval | None]
    by_class: dict[str, list[Interval | None]]


def draw_images(
    table: Table,
    names: tuple[str, ...],
    class_names: tuple[str, ...],
    rests_on: NDArray[np.int64],
    n_images: int,
    *,
    method: Method = "percentile",
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> DrawnScores:
    """Return a model's scores over the images and over resamples of them, as `DrawnScores` says.

    table: columns are the scores of `names`, then each of `class_names` for all classes; NaN where nothing defines one.
    Two models of the same images and seed are drawn alike.
    Raises ValueError without images.
    """
    n = require_examples(n_images)
    cells = Cells(np.ones(n, np.int64), np.zeros(n, np.int64))
    values = table(np.ones((1, n)))[0]
    drawn = np.concatenate([table(weights) for weights in draw_counts(cells, resamples, seed)])
    without = [table(weights) for weights in leave_one_out(cells)] if method == "bca" else []
    left_out = np.concatenate(without) if without else np.empty((0, len(values)))
    n_classes = (len(values) - len(names)) // max(1, len(class_names))
    return DrawnScores(names, class_names, n_classes, values, drawn, left_out, rests_on)


def intervals_of(drawn: DrawnScores, *, method: Method = "percentile", confidence: float = 0.95) -> ImageIntervals:
    """Return every score with its interval.

    Resamples that leave a score undefined have no part in its interval. Where resampling shows no spread at
    the end of the scale, or between two models that are not the same, the exact binomial bound for the number of
    images takes its place; the interval of a score that a single image defines is the whole scale.
    Source: Efron and Tibshirani 1993, chapter 13 (percentile) and section 14.3 (BCa).
    """
    tails = [(1 - confidence) / 2, (1 + confidence) / 2]
    found = [interval_of(drawn, column, method, tails, confidence) for column in range(len(drawn.values))]
    n_overall = len(drawn.names)
    parts = [found[n_overall + drawn.n_classes * part :][: drawn.n_classes] for part in range(len(drawn.class_names))]
    return ImageIntervals(dict(zip(drawn.names, found, strict=False)), dict(zip(drawn.class_names, parts, strict=True)))


def interval_of(
    scores: DrawnScores, column: int, method: Method, tails: list[float], confidence: float
) -> Interval | None:
    """Return one score with its interval; None if nothing defines it."""
    value = float(scores.values[column])
    if np.isnan(value):
        return None
    n = int(scores.rests_on[column])
    if n < FEWEST_IMAGES and not scores.is_same:
        return Interval(value, -1.0 if scores.is_difference else 0.0, 1.0)
    drawn = scores.drawn[:, column]
    drawn = drawn[~np.isnan(drawn)]
    if method == "bca":
        left_out = scores.left_out[:, column]
        left_out = left_out[~np.isnan(left_out)][:, None]
        cells = Cells(np.ones(len(left_out), np.int64), np.zeros(len(left_out), np.int64))
        bounds = bca_bounds(scores.values[[column]], drawn[:, None], acceleration(left_out, cells), confidence)
        low, high = (float(bound[0]) for bound in bounds)
    else:
        low, high = map(float, np.quantile(drawn, tails))
    if not scores.is_difference:
        return within(enclosing(value, low, high), n, confidence)
    margin = unseen_share(n, confidence) * (low == high and not scores.is_same)
    return enclosing(value, low - margin, high + margin, lowest=-1)


def bounds_of_difference(difference: DrawnScores, column: int, confidence: float) -> Interval:
    """Return the difference of one score with two bounds, each of which holds with the confidence on its own.

    column: as `DrawnScores.column` says. What `non_inferiority.verdict_of_bounds` judges by.
    Raises ValueError for a score that nothing defines.
    """
    found = interval_of(difference, column, "percentile", [1 - confidence, confidence], 2 * confidence - 1)
    if found is None:
        raise ValueError("nothing in these images defines this score")
    return found
