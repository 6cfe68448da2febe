"""A detector's scores over images and over resamples of them, for `image_bootstrap` to make intervals of."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from kinglet.evidence.bootstrap import Method, require_examples
from kinglet.evidence.detection_matches import Matches
from kinglet.evidence.detection_scores import CLASS_SCORES, detection_scores
from kinglet.evidence.image_bootstrap import RESAMPLES, DrawnScores, draw_images


def draw_scores(
    matches: Matches, shown_from: float, *, method: Method = "percentile", resamples: int = RESAMPLES, seed: int = 0
) -> DrawnScores:
    """Return all scores of a model over the images and over resamples of them; see `detection_scores`.

    Two models of the same images and seed are drawn alike.
    Raises ValueError without images.
    """
    n = require_examples(matches.n_images)
    names = detection_scores(matches, np.ones((1, n)), shown_from).names

    def table(weights: NDArray[np.float64]) -> NDArray[np.float64]:
        return detection_scores(matches, weights, shown_from).table

    rests_on = images_behind(matches, names)
    return draw_images(table, names, CLASS_SCORES, rests_on, n, method=method, resamples=resamples, seed=seed)


def images_behind(matches: Matches, names: tuple[str, ...]) -> NDArray[np.int64]:
    """Return how many images have objects that a score is about, int64 (n_scores,)."""

    def images_with(rows: NDArray[np.bool_]) -> int:
        return len(np.unique(matches.truths.images[rows]))

    of_size = {f"map_{size}": images_with(matches.belongs[place]) for place, size in enumerate(matches.sizes)}
    of_class = [images_with(matches.truths.labels == label) for label in range(matches.n_classes)]
    everything = images_with(np.ones(len(matches.truths), bool))
    return np.array([*(of_size.get(name, everything) for name in names), *of_class * len(CLASS_SCORES)], np.int64)
