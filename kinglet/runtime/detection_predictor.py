"""Objects from a detector's bundle: uint8 images in, boxes in the images' own pixels out.

Needs onnxruntime, numpy and Pillow only.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kinglet.errors import KingletError
from kinglet.runtime import bundles
from kinglet.runtime.detection import Detections
from kinglet.runtime.engines import RUNTIMES
from kinglet.runtime.golden_detections import TOLERANCES, largest_difference, objects_in
from kinglet.runtime.opened_bundle import open_bundle
from kinglet.runtime.predictor import MAX_PIXELS, batches, read_image
from kinglet.runtime.preprocessing import InputTensor, Placement, placement, prepare
from kinglet.runtime.thresholds import Thresholds


class DetectionPredictor:
    """A detector opened from a bundle; safe to call from several threads at once.

    >>> predictor = DetectionPredictor("artifacts/bundle")
    >>> found = predictor.predict([image])[0]
    >>> predictor.classes[found.labels[0]], found.scores[0], found.xyxy[0]
    ('red cell', 0.91, array([ 12.3,  40.1,  98.7, 131.0], dtype=float32))
    """

    problem = bundles.DETECTION

    def __init__(self, bundle: Path | str, threads: int | None = None, saturates: bool | None = None) -> None:
        """Open the bundle.

        threads, saturates: as for `Predictor`. `thresholds` holds those of the bundle.
        Raises KingletError that names the file if one is missing, damaged or not what the checksums say, or says what
        opens the bundle if it is no detector's.
        """
        opened = open_bundle(Path(bundle), threads, saturates, bundles.DETECTION)
        self.runtime, self.model_file, self.saturates = opened.runtime, opened.model_file, opened.saturates
        self.classes, self.preprocessing = opened.classes, opened.preprocessing
        self.thresholds = Thresholds(**opened.facts[bundles.THRESHOLDS])
        self._compute = opened.engine.run

    def predict(self, images: Iterable[NDArray[np.uint8]]) -> list[Detections]:
        """Return the objects in images of any size, each in pixels of its own image.

        images: uint8 arrays of shape (height, width) or (height, width, 1 or 3), RGB; or one array of
        shape (n, height, width, 1 or 3).
        Raises ValueError that says which image has another shape or type.
        """
        if isinstance(images, np.ndarray) and images.ndim != 4:
            raise ValueError(f"predict takes a list of images or an array of 4 dimensions, got shape {images.shape}")
        return [found for start, batch in batches(images) for found in self._find(batch, start)]

    def predict_files(self, paths: Sequence[Path | str], max_pixels: int = MAX_PIXELS) -> list[Detections]:
        """Return the objects in image files, turned as their EXIF data say.

        Raises KingletError that names the first file which is missing or cannot be decoded.
        """
        return self.predict(read_image(Path(path), max_pixels) for path in paths)

    def outputs(self, tensors: InputTensor) -> NDArray[np.float32]:
        """Return logits and boxes of inputs that are prepared already, side by side, float32 (n, places, classes + 4).

        tensors: as `kinglet.runtime.preprocessing.prepare` makes them, n at least 1.
        """
        return self._compute(tensors)

    def placement(self, width: int, height: int) -> Placement:
        """Return where an image of this size lies in the model's input."""
        return placement(width, height, self.preprocessing.input_size, self.preprocessing.fit)

    def decode(self, outputs: NDArray[np.float32], placements: Sequence[Placement]) -> list[Detections]:
        """Return the objects in images from the detector's outputs; placements: of each image in the input."""
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
            images, objects = expected["images"], objects_in(expected[own], len(expected["images"]))
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

    def _find(self, images: list[NDArray[np.uint8]], start: int) -> list[Detections]:
        tensors: list[Any] = []
        placements = []
        for position, image in enumerate(images, start):
            try:
                tensors.append(prepare([np.asarray(image)], self.preprocessing))
            except ValueError as error:
                raise ValueError(f"image {position}: {error}") from None
            placements.append(self.placement(image.shape[1], image.shape[0]))
        return self.decode(self._compute(np.concatenate(tensors)), placements)
