"""Intervals by resampling the examples, drawn as counts.

A score that depends on the examples only through counts (of right answers, of cells of a confusion
matrix) has the same bootstrap distribution when the counts are drawn from a multinomial instead of
example by example: 10,000 resamples of 10,000 predictions in a fraction of a second.

Percentile and BCa intervals; stratified where the number of examples per stratum (of images per class) is
what the data set fixes, and not chance.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtr, ndtri

from kinglet.evidence.metrics import accuracy, class_scores, ratio

RESAMPLES = 10_000
# Bounds the memory of one block of resampled counts: 8 bytes each.
CELLS_PER_BLOCK = 4_000_000

Method = Literal["percentile", "bca"]
Counts = NDArray[np.float64]
Strata = NDArray[np.integer[Any]]
# From counts of cells, float64 (n_resamples, n_cells), to scores, float64 (n_resamples, n_scores).
Statistic = Callable[[Counts], NDArray[np.float64]]


@dataclass(frozen=True)
class Interval:
    """A score with its interval, in the score's units; low <= value <= high."""

    value: float
    low: float
    high: float

    def to_dict(self) -> dict[str, float]:
        """Return the three numbers, rounded to 6 digits after the point."""
        return {name: round(number, 6) for name, number in asdict(self).items()}


@dataclass(frozen=True)
class Cells:
    """Examples grouped into cells, which are all that a score sees of them.

    counts: examples in each cell, int64 (n_cells,). strata: the stratum of each cell, int64 (n_cells,), ascending;
    examples are drawn anew within their stratum.
    """

    counts: NDArray[np.int64]
    strata: NDArray[np.int64]

    @property
    def n(self) -> int:
        """The number of examples."""
        return int(self.counts.sum())


def bootstrap_intervals(
    statistic: Statistic,
    cells: Cells,
    *,
    method: Method = "percentile",
    confidence: float = 0.95,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> list[Interval]:
    """Return every score of the statistic with its interval.

    Raises ValueError without examples.
    Source: Efron and Tibshirani 1993, chapter 13 (percentile) and section 14.3 (BCa).
    """
    require_examples(cells.n)
    observed = cells.counts[None].astype(np.float64)
    values = statistic(observed)[0]
    drawn = np.concatenate([statistic(counts) for counts in draw_counts(cells, resamples, seed)])
    if method == "percentile":
        lows, highs = np.quantile(drawn, [(1 - confidence) / 2, (1 + confidence) / 2], axis=0)
    else:
        left_out = np.concatenate([statistic(counts) for counts in leave_one_out(cells)])
        lows, highs = bca_bounds(values, drawn, acceleration(left_out, cells), confidence)
    return [
        Interval(value, min(low, value), max(high, value))
        for value, low, high in zip(values.tolist(), lows.tolist(), highs.tolist(), strict=True)
    ]


def draw_counts(cells: Cells, resamples: int, seed: int) -> Iterator[Counts]:
    """Yield blocks of resampled counts, float64 (n_in_block, n_cells), `resamples` rows in all."""
    generator = np.random.default_rng(seed)
    starts = np.flatnonzero(np.diff(cells.strata, prepend=cells.strata[0] - 1))
    blocks = [slice(start, end) for start, end in zip(starts, [*starts[1:], len(cells.strata)], strict=True)]
    block_size = max(1, CELLS_PER_BLOCK // len(cells.counts))
    for first in range(0, resamples, block_size):
        drawn = np.empty((min(block_size, resamples - first), len(cells.counts)))
        for block in blocks:
            counts = cells.counts[block]
            drawn[:, block] = generator.multinomial(counts.sum(), counts / counts.sum(), size=len(drawn))
        yield drawn


def leave_one_out(cells: Cells) -> Iterator[Counts]:
    """Yield blocks of the counts without one example of each cell, float64 (n_in_block, n_cells), n_cells rows in all.

    Examples of one cell are alike, so that this is the whole jackknife.
    """
    n_cells = len(cells.counts)
    block_size = max(1, CELLS_PER_BLOCK // n_cells)
    for first in range(0, n_cells, block_size):
        left_out = np.arange(first, min(first + block_size, n_cells))
        counts = np.repeat(cells.counts[None].astype(np.float64), len(left_out), axis=0)
        counts[np.arange(len(left_out)), left_out] -= 1
        yield counts


def acceleration(left_out: NDArray[np.float64], cells: Cells) -> NDArray[np.float64]:
    """Return the acceleration of BCa for every score, 0 where the jackknife shows no change.

    left_out: the scores without one example of each cell, (n_cells, n_scores).
    Source: Efron and Tibshirani 1993, equation 14.15; over strata as in scipy.stats.bootstrap for several samples.
    """
    skew, spread = np.zeros(left_out.shape[1]), np.zeros(left_out.shape[1])
    for stratum in np.unique(cells.strata):
        inside = cells.strata == stratum
        counts, scores = cells.counts[inside][:, None], left_out[inside]
        n = counts.sum()
        influence = (n - 1) * ((counts * scores).sum(axis=0) / n - scores)
        skew += (counts * influence**3).sum(axis=0) / n**3
        spread += (counts * influence**2).sum(axis=0) / n**2
    return ratio(skew, 6 * spread**1.5)


def bca_bounds(
    values: NDArray[np.float64], drawn: NDArray[np.float64], accelerations: NDArray[np.float64], confidence: float
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return lower and upper bounds, float64 (n_scores,), corrected for bias and for uneven spread.

    values: (n_scores,); drawn: (n_resamples, n_scores).
    Source: Efron 1987, "Better Bootstrap Confidence Intervals", equation 6.8.
    """
    below = ((drawn < values).mean(axis=0) + (drawn <= values).mean(axis=0)) / 2
    # Where no resample lies on one side, half a resample stands in: the correction stays finite.
    bias = ndtri(np.clip(below, 0.5 / len(drawn), 1 - 0.5 / len(drawn)))
    bounds = []
    for tail in ((1 - confidence) / 2, (1 + confidence) / 2):
        shift = bias + ndtri(tail)
        quantiles = ndtr(bias + shift / (1 - accelerations * shift))
        bounds.append(np.array([np.quantile(column, share) for column, share in zip(drawn.T, quantiles, strict=True)]))
    return bounds[0], bounds[1]


def joined(strata: Strata, counts: NDArray[np.int64] | None = None) -> NDArray[np.int64]:
    """Return strata of which those with a single example are one, and a lone one is with the smallest of the others.

    Drawn from a stratum of its own an example never changes, as if nothing about it were left to chance. strata:
    (n,), of examples or of groups of `counts` examples, int64 (n,); the result keeps the order of the others.
    Source: Cochran 1977, "Sampling Techniques", section 5A.12 (collapsed strata).
    """
    names, place = np.unique(strata, return_inverse=True)
    sizes = np.bincount(place, weights=counts)
    single = sizes == 1
    if single.sum() == 1 and len(names) > 1:
        single[np.flatnonzero(~single)[np.argmin(sizes[~single])]] = True
    return np.where(single, len(names), np.arange(len(names))).astype(np.int64)[place]


def cells_of(*keys: NDArray[Any], strata: Strata | None = None) -> tuple[Cells, NDArray[np.int64]]:
    """Return the cells of examples that agree in all keys (and in their stratum, see `joined`), and one of each cell.

    keys, strata: integers or bool of shape (n_examples,). The second result points into them, int64 (n_cells,).
    Raises ValueError if lengths differ or there are no examples.
    """
    columns = [np.zeros(len(keys[0]), np.int64) if strata is None else joined(strata), *keys]
    if len({len(column) for column in columns}) > 1:
        raise ValueError(f"all columns must be of the same examples, got {[len(column) for column in columns]}")
    require_examples(len(columns[0]))
    table = np.stack([np.asarray(column, np.int64) for column in columns], axis=1)
    rows, first, counts = np.unique(table, axis=0, return_index=True, return_counts=True)
    return Cells(counts.astype(np.int64), rows[:, 0]), first.astype(np.int64)


def accuracy_interval(
    correct: NDArray[np.bool_],
    *,
    strata: Strata | None = None,
    method: Method = "percentile",
    confidence: float = 0.95,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> Interval:
    """Return the share of right answers with its interval, in [0, 1].

    correct: bool of shape (n_examples,). strata: the class of every example, to resample within classes. Where all
    answers are right, or all wrong, resampling gives an interval without width; the exact binomial bound takes its
    place.
    Raises ValueError without examples.
    Source: Efron and Tibshirani 1993, chapter 13; Clopper and Pearson 1934 for the bound.
    """
    cells, examples = cells_of(~np.asarray(correct, bool), strata=strata)
    right = np.asarray(correct, np.float64)[examples][:, None]
    (found,) = bootstrap_intervals(
        lambda counts: counts @ right / cells.n,
        cells,
        method=method,
        confidence=confidence,
        resamples=resamples,
        seed=seed,
    )
    return within(found, cells.n, confidence)


def f1_macro_interval(
    confusion: NDArray[np.int64],
    *,
    stratified: bool = False,
    method: Method = "percentile",
    confidence: float = 0.95,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> Interval:
    """Return the macro F1 with its interval, in [0, 1].

    confusion: counts of shape (n_classes, n_classes), rows are labels. Classes without an example in a
    resample are left out of its mean, as they are left out of the score itself.
    Raises ValueError without examples.
    """
    n = require_examples(int(confusion.sum()))
    rows, columns = np.nonzero(confusion)
    strata = joined(rows, confusion[rows, columns]) if stratified else np.zeros(len(rows), np.int64)
    order = np.argsort(strata, kind="stable")
    rows, columns = rows[order], columns[order]
    cells = Cells(confusion[rows, columns], strata[order])
    classes = np.arange(len(confusion))
    of_row, of_column = (rows[:, None] == classes).astype(np.float64), (columns[:, None] == classes).astype(np.float64)
    on_diagonal = of_row * of_column

    def f1_macro(counts: Counts) -> NDArray[np.float64]:
        support = counts @ of_row
        f1 = ratio(2 * (counts @ on_diagonal), support + counts @ of_column)
        return ratio(f1.sum(axis=1, where=support > 0), (support > 0).sum(axis=1))[:, None]

    (found,) = bootstrap_intervals(
        f1_macro, cells, method=method, confidence=confidence, resamples=resamples, seed=seed
    )
    scores = class_scores(confusion)
    low = found.low - unseen_share(n, confidence) * (accuracy(confusion) == 1)
    return enclosing(scores.macro(scores.f1), low, found.high)


def paired_interval(
    correct_a: NDArray[np.bool_],
    correct_b: NDArray[np.bool_],
    *,
    strata: Strata | None = None,
    method: Method = "percentile",
    confidence: float = 0.95,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> Interval:
    """Return mean(correct_a) - mean(correct_b) over the same examples, with its interval; in [-1, 1].

    correct_a, correct_b: bool of shape (n_examples,), in the same order. strata: the class of every example, to
    resample within classes. Where both are right on exactly the same examples, the exact binomial bound on the share
    of disagreement stands in for an interval without width: that two models agreed on these examples does not make
    them one. Of a model and itself the caller knows that the difference is 0.
    Raises ValueError if the lengths differ or there are no examples.
    Source: Efron and Tibshirani 1993, chapter 13.
    """
    if len(correct_a) != len(correct_b):
        raise ValueError(f"paired answers must be of the same examples, got {len(correct_a)} and {len(correct_b)}")
    changes = np.asarray(correct_a, np.int64) - np.asarray(correct_b, np.int64)
    # Only a right, only b right, no difference.
    cells, examples = cells_of(np.select([changes > 0, changes < 0], [0, 1], 2), strata=strata)
    change = changes[examples][:, None].astype(np.float64)
    (found,) = bootstrap_intervals(
        lambda counts: counts @ change / cells.n,
        cells,
        method=method,
        confidence=confidence,
        resamples=resamples,
        seed=seed,
    )
    margin = unseen_share(cells.n, confidence) * (not changes.any())
    return enclosing(found.value, found.low - margin, found.high + margin, lowest=-1)


def within(found: Interval, n: int, confidence: float) -> Interval:
    """Return the interval of a share; an end without width at 0 or 1 becomes the exact bound for n examples.

    Where n is 0 the share is undefined, and the interval is the whole scale.
    """
    if n == 0:
        return Interval(found.value, 0.0, 1.0)
    margin = unseen_share(n, confidence)
    nothing_wrong, nothing_right = found.low == found.value == 1, found.high == found.value == 0
    return enclosing(found.value, found.low - margin * nothing_wrong, found.high + margin * nothing_right)


def unseen_share(n: int, confidence: float) -> float:
    """Return the upper bound on the share of something that none of n examples showed."""
    return float(1 - ((1 - confidence) / 2) ** (1 / n))


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
