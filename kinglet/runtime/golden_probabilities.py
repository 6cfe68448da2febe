"""Whether a model gives the probabilities here that its bundle's golden answers say, on this kind of processor."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kinglet.errors import KingletError
from kinglet.runtime import bundles
from kinglet.runtime.engines import RUNTIMES


@dataclass(frozen=True)
class Answering:
    """A model whose answers are probabilities.

    predict: what it is given, the first axis of length n, to float32 (n, n_classes). given: what golden.npz calls that,
    and word: what a sentence calls one of them.
    """

    predict: Callable[[NDArray[Any]], NDArray[np.float32]]
    classes: Sequence[str]
    runtime: str
    saturates: bool
    given: str = bundles.GOLDEN_IMAGES
    word: str = "image"


def check_probabilities(model: Answering, golden: Path, tolerance: float | None = None) -> float:
    """Answer what golden.npz holds, and return the largest difference from what this kind of processor answers.

    tolerance: None stands for the one that the golden file states; else for GOLDEN_TOLERANCE, or EMULATED_TOLERANCE
    where the answers were emulated.
    Raises KingletError with the first whose answer is farther off than `tolerance`: this machine does not answer as the
    one that made the bundle.
    """
    with np.load(golden, allow_pickle=False) as expected:
        own = bundles.SATURATED if model.saturates and bundles.SATURATED in expected else bundles.EXACT
        given, probabilities = expected[model.given], expected[own]
        stated = expected[bundles.TOLERANCE].item() if bundles.TOLERANCE in expected else None
    if tolerance is None:
        tolerance = stated
    if tolerance is None:
        tolerance = bundles.GOLDEN_TOLERANCE if own == bundles.EXACT else bundles.EMULATED_TOLERANCE
    answers = model.predict(given)
    if answers.shape != probabilities.shape:
        raise KingletError(
            f"{golden} holds answers of shape {probabilities.shape}; the model's have {answers.shape}.",
            "The files of the bundle are not of one model: make it anew with `dvc repro bundle`.",
        )
    differences = np.abs(answers - probabilities)
    # NaN is larger than every tolerance.
    wrong = np.argwhere(~(differences <= tolerance))
    difference = float(differences.max(initial=0))
    if len(wrong):
        place, index = wrong[0]
        raise KingletError(
            f"The model's answers to {golden} differ from the expected ones by {difference:.2g}, "
            f"more than {tolerance:g}; first in {model.word} {place}, class {model.classes[index]!r}: "
            f"{answers[place, index]:.4f} in place of {probabilities[place, index]:.4f}.",
            f"The bundle was made with another version of {RUNTIMES[model.runtime].title} or on another kind of "
            "processor.",
        )
    return difference
