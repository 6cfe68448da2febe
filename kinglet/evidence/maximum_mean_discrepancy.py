"""Whether two samples come from one distribution, by a kernel: no bins, and all coordinates together."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

# Permutations are drawn in blocks, so that memory does not follow their number.
PERMUTATIONS_AT_ONCE = 500


@dataclass(frozen=True)
class TwoSampleTest:
    """statistic: the squared discrepancy, 0 or more. p_value: chance of one as large from one distribution."""

    statistic: float
    p_value: float


def discrepancy_test(
    first: NDArray[np.floating[Any]], second: NDArray[np.floating[Any]], *, permutations: int, seed: int
) -> TwoSampleTest:
    """Return the permutation test of the maximum mean discrepancy with a Gaussian kernel.

    first, second: points of shape (n, n_coordinates) and (m, n_coordinates), at least one each. The kernel's width is
    the median distance of all points. The p-value is exact for points that are independent: the chance of p or less
    is at most p, whatever the distribution; it is at least 1 / (permutations + 1).
    Source: Gretton et al. 2012, "A kernel two-sample test", sections 2.2 and 8; Phipson and Smyth 2010 for the p-value.
    """
    n, m = len(first), len(second)
    if not n or not m:
        raise ValueError("a test of two samples needs at least one point in each")
    points = np.concatenate([first, second]).astype(np.float64)
    squares = (points**2).sum(axis=1)
    distances = np.maximum(squares[:, None] + squares[None, :] - 2 * points @ points.T, 0)
    apart = distances[np.triu_indices(n + m, 1)]
    width = float(np.median(apart)) or float(apart.mean())
    if not width:
        return TwoSampleTest(0.0, 1.0)
    kernel = np.exp(-distances / (2 * width)).astype(np.float32)
    weights = np.concatenate([np.full(n, 1 / n), np.full(m, -1 / m)]).astype(np.float32)
    found = float(weights @ kernel @ weights)
    generator = np.random.default_rng(seed)
    # A permutation that splits the points as they are gives the same sum up to its last bits.
    limit, as_large = found - 1e-6 * abs(found), 0
    for start in range(0, permutations, PERMUTATIONS_AT_ONCE):
        count = min(PERMUTATIONS_AT_ONCE, permutations - start)
        permuted = generator.permuted(np.tile(weights, (count, 1)), axis=1)
        as_large += int((((permuted @ kernel) * permuted).sum(axis=1) >= limit).sum())
    return TwoSampleTest(max(found, 0.0), (as_large + 1) / (permutations + 1))
