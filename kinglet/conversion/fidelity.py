"""How far the answers of a converted model are from those of the file that it was made from, image by image."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Fidelity:
    """Differences of logits from a reference's.

    images: how many were compared. agreement: share of images with the same predicted class, [0, 1].
    largest_difference, mean_difference: of all logits, absolute. spread: standard deviation of the reference's
    logits, to read the differences by.
    """

    images: int
    agreement: float
    largest_difference: float
    mean_difference: float
    spread: float

    def to_dict(self) -> dict[str, Any]:
        """Return what a model's notes say, JSON-ready; six digits."""
        return {
            name: float(f"{value:.6g}") if isinstance(value, float) else value for name, value in asdict(self).items()
        }


def compare_logits(reference: NDArray[np.float32], logits: NDArray[np.float32]) -> Fidelity:
    """Return how far logits are from the reference's, both of shape (n, n_classes).

    Raises ValueError if the shapes differ, there are no images, or the logits hold NaN or infinities.
    """
    if reference.shape != logits.shape or not len(reference):
        raise ValueError(f"logits of shape {logits.shape} do not compare with {reference.shape}")
    if not np.isfinite(logits).all():
        raise ValueError("the logits hold NaN or infinities")
    differences = np.abs(logits.astype(np.float64) - reference)
    return Fidelity(
        images=len(reference),
        agreement=float((reference.argmax(axis=1) == logits.argmax(axis=1)).mean()),
        largest_difference=float(differences.max()),
        mean_difference=float(differences.mean()),
        spread=float(reference.std()),
    )
