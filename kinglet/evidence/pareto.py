"""Models that no other model beats in everything at once."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray


def pareto_front(costs: NDArray[Any]) -> NDArray[np.bool_]:
    """Return which rows no other row dominates, bool of shape (n,).

    costs: shape (n, n_costs), lower is better in every column; negate what should be high. A row is
    dominated if another is at most as costly in every column and less in one; equal rows stay together.
    """
    at_most = (costs[:, None, :] <= costs[None, :, :]).all(axis=2)
    less = (costs[:, None, :] < costs[None, :, :]).any(axis=2)
    return np.asarray(~(at_most & less).any(axis=0))
