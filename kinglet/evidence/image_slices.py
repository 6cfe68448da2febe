"""Where does a model lose? Its change against a reference on parts of the test images, by resampling them."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from kinglet.evidence.bootstrap import Interval, enclosing
from kinglet.evidence.image_bootstrap import Score
from kinglet.evidence.slices import CORRECTIONS, Slice

RESAMPLES = 1000


@dataclass(frozen=True)
class SliceChange:
    """What became of the images of a slice.

    n, shown: its images and what they show, in objects or pixels. of_reference, of_model: the score there. change: the
    model's minus the reference's, with its paired interval over the images of the slice. p: two-sided, of no change,
    from the same resamples; p_corrected: allowing for all slices looked at. is_established: the change is more than
    chance, at the confidence, after that correction.
    """

    column: str
    value: str
    n: int
    shown: int
    of_reference: float
    of_model: float
    change: Interval
    p: float
    p_corrected: float
    is_established: bool


def slice_changes(
    score: Score,
    of_reference: Score,
    shown: NDArray[np.int64],
    slices: list[Slice],
    *,
    correction: str = "holm",
    confidence: float = 0.95,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> list[SliceChange]:
    """Return what became of every slice that shows something, the one that lost most first.

    score, of_reference: of the same images. shown: objects or pixels in each of them, int64 (n_images,). correction: a
    key of `slices.CORRECTIONS`. A p-value is at least 2 / (resamples + 1): so many resamples cannot tell a rarer
    chance.
    Source: Davison and Hinkley 1997, section 4.4.1, for p-values from resamples.
    """
    found: list[SliceChange] = []
    for item in slices:
        if not shown[item.rows].any():
            continue
        weights = np.zeros((1 + resamples, len(shown)))
        weights[0, item.rows] = 1
        n = len(item.rows)
        weights[1:, item.rows] = np.random.default_rng(seed).multinomial(n, np.full(n, 1 / n), size=resamples)
        own, theirs = score(weights), of_reference(weights)
        changes = own - theirs
        drawn = changes[1:][~np.isnan(changes[1:])]
        low, high = np.quantile(drawn, [(1 - confidence) / 2, (1 + confidence) / 2]).tolist()
        p = 2 * (1 + min((drawn <= 0).sum(), (drawn >= 0).sum())) / (1 + len(drawn))
        found.append(
            SliceChange(
                column=item.column,
                value=item.value,
                n=n,
                shown=int(shown[item.rows].sum()),
                of_reference=float(theirs[0]),
                of_model=float(own[0]),
                change=enclosing(float(changes[0]), low, high, lowest=-1),
                p=min(1.0, float(p)),
                p_corrected=1.0,
                is_established=False,
            )
        )
    corrected = CORRECTIONS[correction](np.array([row.p for row in found])).tolist()
    rows = [
        replace(row, p_corrected=p, is_established=p <= 1 - confidence) for row, p in zip(found, corrected, strict=True)
    ]
    return sorted(rows, key=lambda row: (row.change.value, row.p, row.column, row.value))
