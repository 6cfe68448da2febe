"""How far a data set has moved from the one that was accepted last."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from kinglet.runtime.histograms import bin_counts, inner_quantiles

N_QUANTILES = 10
SMALLEST_SHARE = 1e-4  # Stands in for an empty bin, whose logarithm does not exist.


def reference_profile(columns: dict[str, NDArray[np.float64]], class_counts: dict[str, int]) -> dict[str, Any]:
    """Return what later versions are compared with: bins and shares of every column, shares of the classes.

    columns: {name: values of shape (n,)}. JSON-ready.
    """
    total = max(sum(class_counts.values()), 1)
    return {
        "columns": {
            name: {"edges": edges.tolist(), "shares": bin_shares(values, edges).tolist()}
            for name, values in sorted(columns.items())
            for edges in [inner_quantiles(values, N_QUANTILES)]
        },
        "classes": {name: count / total for name, count in sorted(class_counts.items())},
    }


def bin_shares(values: NDArray[np.float64], edges: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the share of values below, on and between the edges, shape (2 * n_edges + 1,), summing to 1."""
    return bin_counts(values, edges) / max(len(values), 1)


def stability_index(expected: NDArray[np.float64], actual: NDArray[np.float64]) -> float:
    """Return the population stability index of two distributions over the same bins, [0, infinity).

    Below 0.1 counts as stable, above 0.2 as moved. Source: Siddiqi 2006, "Credit risk scorecards".
    """
    p, q = np.maximum(expected, SMALLEST_SHARE), np.maximum(actual, SMALLEST_SHARE)
    return float(((q - p) * np.log(q / p)).sum())


def drift(
    reference: dict[str, Any], columns: dict[str, NDArray[np.float64]], class_counts: dict[str, int]
) -> dict[str, float]:
    """Return the stability index of every column and of the "classes" against a reference profile."""
    found = {}
    for name, known in reference["columns"].items():
        edges = np.asarray(known["edges"], np.float64)
        found[name] = stability_index(np.asarray(known["shares"], np.float64), bin_shares(columns[name], edges))
    total = max(sum(class_counts.values()), 1)
    names = sorted(set(reference["classes"]) | set(class_counts))
    before = np.array([reference["classes"].get(name, 0.0) for name in names], np.float64)
    now = np.array([class_counts.get(name, 0) / total for name in names], np.float64)
    return {**found, "classes": stability_index(before, now)}
