"""The guard of quantization: whether an int8 model is good enough, judged on paired answers."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kinglet.evidence.bootstrap import Cells, Interval, draw_counts, examples_to_establish, paired_interval

INTERVAL, POINT = "interval", "point difference"
RESAMPLES, CONFIDENCE = 2000, 0.95
# From weights of images, (n_weightings, n_images), to a score under each, (n_weightings,).
Score = Callable[[NDArray[np.float64]], NDArray[np.float64]]


@dataclass(frozen=True)
class Verdict:
    """Whether an int8 model is not worse than its float model by more than the tolerance, and how that is known.

    difference: score of int8 minus float over the same images, with its interval. tolerance: what is
    allowed to be lost. n_images: how many were compared. metric: what the score is called.
    """

    difference: Interval
    tolerance: float
    n_images: int
    metric: str = "accuracy"

    @property
    def established(self) -> bool:
        """Whether the whole interval lies above minus the tolerance."""
        return self.difference.low >= -self.tolerance

    @property
    def judged_by(self) -> str:
        """What decides: the interval, or the point difference where these images are too few.

        They are too few where the interval is so wide that even a model that loses nothing could not be
        shown to keep the tolerance. To go on to dearer steps would not help then: no step narrows it.
        """
        reach = self.difference.value - self.difference.low
        return POINT if not self.established and reach > self.tolerance else INTERVAL

    @property
    def is_enough(self) -> bool:
        """Whether no further step is needed."""
        if self.judged_by == POINT:
            return self.difference.value >= -self.tolerance
        return self.established

    def to_dict(self) -> dict[str, Any]:
        """Return what a model's notes say about it; images_needed: about how many would establish it, if any."""
        return {
            f"{self.metric}_difference": self.difference.to_dict(),
            "tolerance": self.tolerance,
            "images": self.n_images,
            "within_tolerance": self.is_enough,
            "judged_by": self.judged_by,
            "established": self.established,
            "images_needed": examples_to_establish(self.difference, -self.tolerance, self.n_images),
        }


def judge(
    quantized: NDArray[np.float32], reference: NDArray[np.float32], labels: NDArray[np.int64], tolerance: float
) -> Verdict:
    """Return the verdict on an int8 model.

    quantized, reference: logits (n_images, n_classes) of the int8 and of the float model. labels: int64
    (n_images,). tolerance: accuracy that may be lost, [0, 1).
    Raises ValueError without images.
    """
    difference = paired_interval(quantized.argmax(1) == labels, reference.argmax(1) == labels)
    return Verdict(difference, tolerance, len(labels))


def paired_over_images(found: Score, reference: Score, n_images: int) -> Interval:
    """Return the score of one model minus that of another over the same images, with its interval by resampling them.

    found, reference: from how often each image counts, float64 (n_weightings, n_images), to the score under each
    weighting, NaN where these images define none. A single image shows no spread: its interval is the whole scale.
    Raises ValueError if the images together define no score.
    """
    cells = Cells(np.ones(n_images, np.int64), np.zeros(n_images, np.int64))
    weightings = np.concatenate([np.ones((1, n_images)), *draw_counts(cells, RESAMPLES, seed=0)])
    differences = found(weightings) - reference(weightings)
    value = float(differences[0])
    if np.isnan(value):
        raise ValueError("the images that judge the model define no score")
    if n_images < 2:
        return Interval(value, -1.0, 1.0)
    # A resample may leave nothing that defines a score.
    low, high = np.nanquantile(differences[1:], [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2]).tolist()
    return Interval(value, min(low, value), max(high, value))


def set_aside(
    n_training: int, n_calibration: int, n_choice: int, seed: int, most: float = 0.2
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
    """Return the places of the training split's images for calibration, for choices and for training.

    At most `most` of the images are set aside for choices, and at least one is left for each role;
    calibration takes its images from those that training uses too. All are in random order, so that the
    first of them are a sample of all. Raises ValueError for fewer than two images.
    """
    if n_training < 2:
        raise ValueError(f"an image to calibrate on and one to choose on are needed, got {n_training}")
    order = np.random.default_rng(seed).permutation(n_training)
    n_choice = max(1, min(n_choice, int(most * n_training)))
    rest = order[n_choice:]
    return rest[:n_calibration], order[:n_choice], rest


def drawn(n_images: int, most: int, seed: int) -> NDArray[np.int64]:
    """Return the places of at most `most` of `n_images` images in random order, so that the first are a sample of all.

    For networks that learn their training images by heart: those calibrate them, and images of another split judge.
    """
    return np.random.default_rng(seed).permutation(n_images)[:most]
