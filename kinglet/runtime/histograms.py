"""Histograms whose bins follow the data: about equal shares, and bins of their own for numbers that many share."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def inner_quantiles(values: NDArray[np.float64], n_quantiles: int) -> NDArray[np.float64]:
    """Return the distinct inner quantiles, which cut the values into `n_quantiles` bins of about equal share.

    values: shape (n,). Returns at most n_quantiles - 1 ascending edges, none without values.
    """
    return np.unique(np.quantile(values, np.arange(1, n_quantiles) / n_quantiles)) if len(values) else np.empty(0)


def bin_counts(
    values: NDArray[np.float64], edges: NDArray[np.float64], weights: NDArray[np.int64] | None = None
) -> NDArray[np.int64]:
    """Return the number of values below, on and between the edges, int64 of shape (2 * n_edges + 1,).

    A value that equals an edge has a bin of its own: widths are often all the same number, and a
    change of that number must show. weights: what each value counts, int64 (n,); one each if None.
    """
    place = np.searchsorted(edges, values, "left") + np.searchsorted(edges, values, "right")
    # Sums of whole numbers are exact in 64-bit floats up to 2^53.
    return np.bincount(place, weights, minlength=2 * len(edges) + 1).astype(np.int64)
