"""Masks from a segmenter's bundle: uint8 images in, the class of every pixel out.

Needs onnxruntime, numpy and Pillow only.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from kinglet.errors import KingletError
from kinglet.runtime import bundles
from kinglet.runtime.engines import RUNTIMES
from kinglet.runtime.placed_predictor import PlacedPredictor
from kinglet.runtime.predictor import batches
from kinglet.runtime.preprocessing import TILE, Placement, match_channels, prepare
from kinglet.runtime.segmentation import Mask, decode_masks
from kinglet.runtime.tiles import Tile, put_together, seen_tiles


class SegmentationPredictor(PlacedPredictor[Mask]):
    """A segmenter opened from a bundle; safe to call from several threads at once.

    >>> predictor = SegmentationPredictor("artifacts/bundle")
    >>> mask = predictor.predict([image])[0]  # uint8, as high and wide as the image
    >>> predictor.shares(mask)
    {'cell': 0.77, 'membrane': 0.23}
    """

    problem = bundles.SEGMENTATION

    def decode(self, outputs: NDArray[np.float32], placements: Sequence[Placement]) -> list[Mask]:
        """Return the masks of images from the segmenter's logits; placements: of each image in the input."""
        return decode_masks(outputs, placements, [(placed.width, placed.height) for placed in placements])

    def tiles(self, width: int, height: int) -> list[Tile]:
        """Return the tiles that an image of this size is computed in: one, unless the bundle's `fit` is "tile"."""
        return seen_tiles(width, height, self.preprocessing)

    def _find(self, images: list[NDArray[np.uint8]], start: int) -> list[Mask]:
        if self.preprocessing.fit != TILE:
            return super()._find(images, start)
        return [self._of_tiles(image, position) for position, image in enumerate(images, start)]

    def _of_tiles(self, image: NDArray[np.uint8], position: int) -> Mask:
        try:
            pixels = match_channels(np.asarray(image), self.preprocessing.channels)
        except ValueError as error:
            raise ValueError(f"image {position}: {error}") from None
        tiles = self.tiles(pixels.shape[1], pixels.shape[0])
        of_one_tile = super()._find
        cut = batches(tile.cut(pixels) for tile in tiles)
        return put_together(tiles, [mask for _, batch in cut for mask in of_one_tile(batch, position)])

    def shares(self, mask: Mask) -> dict[str, float]:
        """Return the share of a mask's pixels that each class has, in [0, 1]; together they are 1."""
        counts = np.bincount(mask.ravel(), minlength=len(self.classes))
        return dict(zip(self.classes, (counts / mask.size).tolist(), strict=True))

    def check_golden(self, golden: Path, tolerance: float | None = None) -> float:
        """Make the masks of the golden images and return the largest share of an image's pixels that are others.

        tolerance: the largest share that may differ; None stands for the one that the golden file states.
        Raises KingletError with the first image that differs by more: this machine does not answer as the one that made
        the bundle.
        """
        with np.load(golden, allow_pickle=False) as expected:
            own = bundles.SATURATED_MASKS if self.saturates else bundles.EXACT_MASKS
            own = own if own in expected else bundles.EXACT_MASKS
            images, masks = expected[bundles.GOLDEN_IMAGES], expected[own]
            stated = float(expected[bundles.MASK_TOLERANCES[own]].item())
        allowed = stated if tolerance is None else tolerance
        edge = self.preprocessing.input_size
        largest = 0.0
        for start, batch in batches(images):
            outputs = self.outputs(prepare(batch, self.preprocessing))
            found = self.decode(outputs, [self.placement(edge, edge)] * len(batch))
            for number, (mask, golden_mask) in enumerate(zip(found, masks[start:], strict=False), start):
                share = float((mask != golden_mask).mean())
                if share > allowed:
                    raise KingletError(
                        f"The segmenter's answers to {golden} are not the expected ones: in image {number}, "
                        f"{100 * share:.2g} % of the pixels are of another class; at most {100 * allowed:g} % may be.",
                        f"The bundle was made with another version of {RUNTIMES[self.runtime].title} or on another "
                        "kind of processor.",
                    )
                largest = max(largest, share)
        return largest
