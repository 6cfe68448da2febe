"""Objects from a detector's bundle: uint8 images in, boxes in the images' own pixels out.

Needs onnxruntime, numpy and Pillow only.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from kinglet.errors import KingletError
from kinglet.runtime import bundles
from kinglet.runtime.detection import Detections
from kinglet.runtime.engines import RUNTIMES
from kinglet.runtime.golden_detections import TOLERANCES, largest_difference, objects_in
from kinglet.runtime.placed_predictor import PlacedPredictor
from kinglet.runtime.predictor import batches
from kinglet.runtime.preprocessing import Placement, prepare
from kinglet.runtime.thresholds import Thresholds


class DetectionPredictor(PlacedPredictor[Detections]):
    """A detector opened from a bundle; safe to call from several threads at once.

    >>> predictor = DetectionPredictor("artifacts/bundle")
    >>> found = predictor.predict([image])[0]
    >>> predictor.classes[found.labels[0]], found.scores[0], found.xyxy[0]
    ('red cell', 0.91, array([ 12.3,  40.1,  98.7, 131.0], dtype=float32))
    """

    problem = bundles.DETECTION

    def __init__(self, bundle: Path | str, threads: int | None = None, saturates: bool | None = None) -> None:
        """Open the bundle; see `PlacedPredictor`. `thresholds` holds those of the bundle."""
        super().__init__(bundle, threads, saturates)
        self.thresholds = Thresholds(**self.facts[bundles.THRESHOLDS])

    def decode(self, outputs: NDArray[np.float32], placements: Sequence[Placement]) -> list[Detections]:
        """Return the objects in images from logits and boxes side by side, float32 (n, places, classes + 4)."""
        return self.thresholds.decode(outputs, placements)

    def check_golden(self, golden: Path, tolerance: float | None = None) -> float:
        """Find the objects of the golden images and return the largest difference of a score from the expected one.

        tolerance: of a score; None stands for GOLDEN_TOLERANCE, or EMULATED_TOLERANCE where the answers were emulated.
        Raises KingletError with the first object that is missing, unexpected, elsewhere or of another score: this
        machine does not answer as the one that made the bundle.
        """
        with np.load(golden, allow_pickle=False) as expected:
            own = bundles.SATURATED_DETECTIONS if self.saturates else bundles.EXACT_DETECTIONS
            own = own if own in expected else bundles.EXACT_DETECTIONS
            images = expected[bundles.GOLDEN_IMAGES]
            objects = objects_in(expected[own], len(images))
        if tolerance is None:
            tolerance = TOLERANCES[own]
        edge = self.preprocessing.input_size
        outputs = np.concatenate([self.outputs(prepare(batch, self.preprocessing)) for _, batch in batches(images)])
        placements = [self.placement(edge, edge)] * len(images)
        try:
            return largest_difference(objects, outputs, placements, self.thresholds, tolerance)
        except ValueError as error:
            raise KingletError(
                f"The detector's answers to {golden} are not the expected ones: {error}.",
                f"The bundle was made with another version of {RUNTIMES[self.runtime].title} or on another kind of "
                "processor.",
            ) from None
