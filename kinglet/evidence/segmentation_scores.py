"""Scores of a segmenter under any weights of its images, so that resampling them costs sums and no look at a pixel."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from kinglet.evidence.bootstrap import Method
from kinglet.evidence.image_bootstrap import RESAMPLES, DrawnScores, draw_images
from kinglet.evidence.mask_boundaries import boundary_counts, boundary_f1
from kinglet.evidence.mask_scores import class_dice, class_iou, mask_confusion, mean_dice, mean_iou, pixel_accuracy

SCORES = ("miou", "dice", "pixel_accuracy", "boundary_f1")
CLASS_SCORES = ("iou", "dice", "boundary_f1")
# Numbers in one block of confusions, 8 bytes each.
CELLS_PER_BLOCK = 4_000_000


@dataclass(frozen=True)
class MaskCounts:
    """What is known of a model's masks of n images: enough for every score, and for its spread over the images.

    confusions: int64 (n, n_classes, n_classes), rows by what pixels are, void left out. boundaries: int64
    (n, n_classes, 4) of `boundary_counts`. digests: SHA-256 of each predicted mask, str (n,).
    """

    confusions: NDArray[np.int64]
    boundaries: NDArray[np.int64]
    digests: NDArray[np.str_]

    def __len__(self) -> int:
        return len(self.confusions)

    @property
    def n_classes(self) -> int:
        """The number of classes."""
        return self.confusions.shape[1]

    @property
    def pixels(self) -> NDArray[np.int64]:
        """The labelled pixels of every image and class, int64 (n, n_classes)."""
        return np.asarray(self.confusions.sum(axis=2))

    def together(self, wholes: NDArray[np.int64]) -> MaskCounts:
        """Return what is known of whole images, from that of their tiles; see `of_wholes`.

        The digest of an image is those of its tiles, one behind the other.
        """
        order = np.argsort(wholes, kind="stable")
        starts = np.flatnonzero(np.diff(wholes[order], prepend=-1))
        digests = ["".join(part) for part in np.split(self.digests[order], starts[1:])]
        return MaskCounts(of_wholes(self.confusions, wholes), of_wholes(self.boundaries, wholes), np.array(digests))

    def is_same(self, other: MaskCounts) -> bool:
        """Return whether two models gave the very same masks."""
        return np.array_equal(self.digests, other.digests)


def of_wholes(counts: NDArray[np.int64], wholes: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return counts of tiles added up to those of the whole images, which are what chance draws.

    counts: int64 (n_tiles, ...). wholes: the number of the image of each, int64 (n_tiles,), every one from 0 on.
    """
    added = np.zeros((int(wholes.max()) + 1, *counts.shape[1:]), np.int64)
    np.add.at(added, wholes, counts)
    return added


def count_masks(
    truth: NDArray[np.uint8], predicted: NDArray[np.uint8], n_classes: int
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return confusion and boundary counts of one image; raises ValueError as `mask_confusion` does."""
    return mask_confusion(truth, predicted, n_classes), boundary_counts(truth, predicted, n_classes)


def segmentation_scores(counts: MaskCounts, weights: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the scores under each of the weightings, float64 (n_weightings, 4 + 3 * n_classes).

    weights: how often each image counts, float64 (n_weightings, n_images), whole numbers. Columns: SCORES, then each of
    CLASS_SCORES for all classes; NaN where no pixel defines one. miou, dice and pixel_accuracy are of the confusions
    added up over the images. boundary_f1 is the mean over the images that show a boundary of the class, or for which
    one is predicted; the overall one is the mean over the classes.
    """
    step = max(1, CELLS_PER_BLOCK // counts.n_classes**2)
    parts = [scores_of_block(counts, weights[first : first + step]) for first in range(0, len(weights), step)]
    return np.concatenate(parts)


def scores_of_block(counts: MaskCounts, weights: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return `segmentation_scores` of a few weightings."""
    confusion = weighted(counts.confusions, weights)
    f1 = boundary_f1(counts.boundaries)
    known = (~np.isnan(f1)).astype(np.float64)
    images = weights @ known
    by_class = np.divide(weights @ np.nan_to_num(f1), images, out=np.full(images.shape, np.nan), where=images > 0)
    n_known = (~np.isnan(by_class)).sum(axis=1)
    overall = np.divide(
        np.nan_to_num(by_class).sum(axis=1), n_known, out=np.full(len(weights), np.nan), where=n_known > 0
    )
    first = [mean_iou(confusion), mean_dice(confusion), pixel_accuracy(confusion), overall]
    return np.column_stack([*first, class_iou(confusion), class_dice(confusion), by_class])


def miou(confusions: NDArray[np.int64], weights: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the mean over classes of the intersection over union under each weighting, float64 (n_weightings,).

    confusions: of every image, int64 (n_images, n_classes, n_classes).
    """
    step = max(1, CELLS_PER_BLOCK // confusions.shape[1] ** 2)
    blocks = [weights[first : first + step] for first in range(0, len(weights), step)]
    return np.concatenate([mean_iou(weighted(confusions, block)) for block in blocks])


def weighted(confusions: NDArray[np.int64], weights: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the confusions added up under each weighting, float64 (n_weightings, n_classes, n_classes)."""
    n, edge, _ = confusions.shape
    return (weights @ confusions.reshape(n, -1).astype(np.float64)).reshape(-1, edge, edge)


def draw_masks(
    counts: MaskCounts, *, method: Method = "percentile", resamples: int = RESAMPLES, seed: int = 0
) -> DrawnScores:
    """Return all scores of a model over the images and over resamples of them; see `segmentation_scores`.

    Two models of the same images and seed are drawn alike.
    Raises ValueError without images.
    """
    shown = counts.pixels > 0
    everything, by_class = int(shown.any(axis=1).sum()), shown.sum(axis=0).tolist()
    rests_on = np.array([everything] * len(SCORES) + by_class * len(CLASS_SCORES), np.int64)
    return draw_images(
        lambda weights: segmentation_scores(counts, weights),
        SCORES,
        CLASS_SCORES,
        rests_on,
        len(counts),
        method=method,
        resamples=resamples,
        seed=seed,
    )
