"""What predictors have in common whose answers lie in the pixels of the image: detectors and segmenters."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, Generic, TypeVar

import numpy as np
from numpy.typing import NDArray

from kinglet.runtime.opened_bundle import open_bundle
from kinglet.runtime.predictor import MAX_PIXELS, batches, read_image
from kinglet.runtime.preprocessing import InputTensor, Placement, placement, prepare

Found = TypeVar("Found")


class PlacedPredictor(ABC, Generic[Found]):
    """A model opened from a bundle, whose answer to an image is of the type `Found`; safe to call from threads."""

    problem: str

    def __init__(self, bundle: Path | str, threads: int | None = None, saturates: bool | None = None) -> None:
        """Open the bundle.

        threads, saturates: as for `Predictor`.
        Raises KingletError that names the file if one is missing, damaged or not what the checksums say, or says what
        opens the bundle if it is of another problem.
        """
        opened = open_bundle(Path(bundle), threads, saturates, self.problem)
        self.runtime, self.model_file, self.saturates = opened.runtime, opened.model_file, opened.saturates
        self.classes, self.preprocessing, self.facts = opened.classes, opened.preprocessing, opened.facts
        self._compute = opened.engine.run

    @abstractmethod
    def decode(self, outputs: NDArray[np.float32], placements: Sequence[Placement]) -> list[Found]:
        """Return the answers to images from the model's outputs; placements: of each image in the input."""

    def predict(self, images: Iterable[NDArray[np.uint8]]) -> list[Found]:
        """Return the answers to images of any size, each in pixels of its own image.

        images: uint8 arrays of shape (height, width) or (height, width, 1 or 3), RGB; or one array of
        shape (n, height, width, 1 or 3).
        Raises ValueError that says which image has another shape or type.
        """
        if isinstance(images, np.ndarray) and images.ndim != 4:
            raise ValueError(f"predict takes a list of images or an array of 4 dimensions, got shape {images.shape}")
        return [found for start, batch in batches(images) for found in self._find(batch, start)]

    def predict_files(self, paths: Sequence[Path | str], max_pixels: int = MAX_PIXELS) -> list[Found]:
        """Return the answers to image files, turned as their EXIF data say.

        Raises KingletError that names the first file which is missing or cannot be decoded.
        """
        return self.predict(read_image(Path(path), max_pixels) for path in paths)

    def outputs(self, tensors: InputTensor) -> NDArray[np.float32]:
        """Return what the model gives for inputs that are prepared already; `Engine.run` says the shape.

        tensors: as `kinglet.runtime.preprocessing.prepare` makes them, n at least 1.
        """
        return self._compute(tensors)

    def placement(self, width: int, height: int) -> Placement:
        """Return where an image of this size lies in the model's input."""
        return placement(width, height, self.preprocessing.input_size, self.preprocessing.fit)

    def _find(self, images: list[NDArray[np.uint8]], start: int) -> list[Found]:
        tensors: list[Any] = []
        placements = []
        for position, image in enumerate(images, start):
            try:
                tensors.append(prepare([np.asarray(image)], self.preprocessing))
            except ValueError as error:
                raise ValueError(f"image {position}: {error}") from None
            placements.append(self.placement(image.shape[1], image.shape[0]))
        return self.decode(self._compute(np.concatenate(tensors)), placements)
