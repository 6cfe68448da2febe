"""Whom does a small model hurt? Its changes against a reference, on parts of the test images."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kinglet.evidence.bootstrap import Interval
from kinglet.evidence.mcnemar import disagreement, holm, mcnemar_p
from kinglet.evidence.non_inferiority import score_interval

# An image that the reference has right and the model wrong, and the other way round.
NEGATIVE_FLIP, POSITIVE_FLIP = "negative", "positive"


def benjamini_hochberg(p_values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return p-values corrected for their number, float64 (n_tests,).

    Of those at or below a level, that share is false, in the long run, or less. p_values: in [0, 1], shape (n_tests,).
    Source: Benjamini and Hochberg 1995, "Controlling the False Discovery Rate".
    """
    # Here, as it takes as long to import as all else of a step, and is not the default.
    from scipy.stats import false_discovery_control

    return np.asarray(false_discovery_control(p_values)) if len(p_values) else p_values


# From p-values to p-values that allow for their number.
CORRECTIONS: dict[str, Callable[[NDArray[np.float64]], NDArray[np.float64]]] = {
    "holm": holm,
    "benjamini-hochberg": benjamini_hochberg,
}


@dataclass(frozen=True)
class Slice:
    """The images that have one value in one column; rows: their positions, int64 (n_images,), ascending."""

    column: str
    value: str
    rows: NDArray[np.int64]


@dataclass(frozen=True)
class SliceChange:
    """What became of the images of a slice.

    change: accuracy of the model minus that of the reference, with the score interval of this slice by itself.
    negative_flips: images that the reference has right and the model wrong; positive_flips: the other way round.
    p: of McNemar's exact test; p_corrected: allowing for all slices looked at. is_established: the change is more
    than chance, at the confidence, after that correction.
    """

    column: str
    value: str
    n: int
    reference_accuracy: float
    accuracy: float
    change: Interval
    negative_flips: int
    positive_flips: int
    p: float
    p_corrected: float
    is_established: bool


def slices_of(columns: dict[str, NDArray[Any]], fewest_images: int) -> tuple[list[Slice], dict[str, int]]:
    """Return the slices with enough images, by column and value, and the number of smaller ones in each column.

    columns: {name: str of shape (n_images,)}; "" is no value. A column with a single value divides nothing and is
    left out.
    """
    found, too_small = [], {}
    for column, values in columns.items():
        names = np.asarray(values).astype(str)
        present = [name for name in np.unique(names).tolist() if name]
        if len(present) < 2:
            continue
        slices = [Slice(column, name, np.flatnonzero(names == name)) for name in present]
        found += [item for item in slices if len(item.rows) >= fewest_images]
        if small := sum(len(item.rows) < fewest_images for item in slices):
            too_small[column] = small
    return found, too_small


def quartile_names(values: NDArray[Any], ends: tuple[str, str]) -> NDArray[np.str_]:
    """Return the quartile that each value lies in, by name; "" for what is not finite, and where all values are equal.

    values: numbers of shape (n_images,). ends: what the lowest and the highest quartile are called.
    """
    numbers = np.asarray(values, np.float64)
    known = np.isfinite(numbers)
    names = np.full(len(numbers), "", dtype="<U64")
    if not known.any() or numbers[known].min() == numbers[known].max():
        return names
    limits = np.quantile(numbers[known], [0.25, 0.5, 0.75])
    words = np.array([f"{word} quarter" for word in (ends[0], "2nd", "3rd", ends[1])])
    names[known] = words[np.searchsorted(limits, numbers[known], side="left")]
    return names


def slice_changes(
    correct: NDArray[np.bool_],
    correct_of_reference: NDArray[np.bool_],
    slices: list[Slice],
    *,
    correction: str = "holm",
    confidence: float = 0.95,
) -> list[SliceChange]:
    """Return what became of every slice, the one that lost most first.

    correct, correct_of_reference: bool of shape (n_images,), in the same order. correction: a key of CORRECTIONS.
    Source: Holm 1979; Benjamini and Hochberg 1995.
    """
    counts = [disagreement(correct[item.rows], correct_of_reference[item.rows]) for item in slices]
    p_values = np.array([mcnemar_p(found.only_first, found.only_second) for found in counts])
    corrected = CORRECTIONS[correction](p_values)
    changes = [
        SliceChange(
            column=item.column,
            value=item.value,
            n=found.n,
            reference_accuracy=float(correct_of_reference[item.rows].mean()),
            accuracy=float(correct[item.rows].mean()),
            change=score_interval(found, confidence=confidence),
            negative_flips=found.only_second,
            positive_flips=found.only_first,
            p=float(p),
            p_corrected=float(p_corrected),
            is_established=bool(p_corrected <= 1 - confidence),
        )
        for item, found, p, p_corrected in zip(slices, counts, p_values, corrected, strict=True)
    ]
    return sorted(changes, key=lambda item: (item.change.value, item.p, item.column, item.value))
