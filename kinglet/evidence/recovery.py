"""How much of what a change of domain cost was won back."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from kinglet.evidence.bootstrap import (
    RESAMPLES,
    Counts,
    Interval,
    Strata,
    bootstrap_intervals,
    cells_of,
    paired_interval,
)
from kinglet.evidence.metrics import ratio


def recovered_share(
    clean: NDArray[np.bool_],
    before: NDArray[np.bool_],
    after: NDArray[np.bool_],
    *,
    strata: Strata | None = None,
    confidence: float = 0.95,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> Interval | None:
    """Return the share of a change's cost that an adaptation won back, with its percentile interval.

    All bool of shape (n_images,), of the same images: whether the model is right without the change (clean), with it
    (before), and with it after the adaptation (after). The share is (after - before) / (clean - before): 0 where
    nothing was won back, 1 where all was, negative where the adaptation lost more. strata: the class of every image,
    to resample within classes. None where the interval of the cost does not lie above 0: a share of nothing says
    nothing.
    Raises ValueError if lengths differ or there are no images.
    Source: Efron and Tibshirani 1993, chapter 13.
    """
    cost = paired_interval(clean, before, strata=strata, confidence=confidence, resamples=resamples, seed=seed)
    cells, examples = cells_of(clean, before, after, strata=strata)
    if cost.low <= 0:
        return None
    lost, won = ((one.astype(float) - before)[examples][:, None] for one in (clean, after))

    def share(counts: Counts) -> NDArray[np.float64]:
        return ratio(counts @ won, counts @ lost)

    (found,) = bootstrap_intervals(share, cells, confidence=confidence, resamples=resamples, seed=seed)
    return found
