"""Scores of a detector under any weights of its images, so that resampling them costs sums and no matching.

An image that is drawn twice counts twice: each of its detections is a block of equal ones in the ranking. Precision
rises along a block of right ones, so its end alone matters, and the scores are those of the images written out.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from kinglet.evidence.detection_matches import ALL_SIZES, Matches
from kinglet.evidence.metrics import ratio

# At which recalls the precision is averaged, and the smallest number that COCO adds to a count before it divides.
RECALLS = np.linspace(0.0, 1.0, 101)
SMALLEST = np.spacing(1)
CLASS_SCORES = ("map", "map_50", "precision", "recall", "f1")
# Numbers in one block of resampled detections, 8 bytes each.
CELLS_PER_BLOCK = 4_000_000

Weights = NDArray[np.float64]


@dataclass(frozen=True)
class Scores:
    """The scores of a detector under several weightings of its images, as columns of one table.

    names: of the overall scores. table: float64 (n_weightings, n_names + len(CLASS_SCORES) * n_classes), the overall
    scores, then each of CLASS_SCORES for all classes; NaN where no object defines a score.
    """

    names: tuple[str, ...]
    table: NDArray[np.float64]


@dataclass(frozen=True)
class Ranking:
    """The detections of one class and size, the surest first, and the objects that there were to find.

    images: of each detection, int64 (n,). right, counted: bool (n_ious, n). objects: in each image,
    float64 (n_images,).
    """

    images: NDArray[np.int64]
    right: NDArray[np.bool_]
    counted: NDArray[np.bool_]
    objects: NDArray[np.float64]

    @cached_property
    def all_counted(self) -> bool:
        """Whether every detection is right or false by every IoU."""
        return bool(self.counted.all())


def detection_scores(matches: Matches, weights: Weights, shown_from: float) -> Scores:
    """Return the scores under each of the weightings.

    matches: by all of IOUS and SIZES. weights: how often each image counts, float64 (n_weightings, n_images), whole
    numbers. shown_from: the score from which a detection counts for precision, recall and F1, at an IoU of 0.5.
    Overall: map (mean over classes and IoUs of 0.50 to 0.95), map_50, map_75, mar_100 (recall, mean as map), map_small,
    map_medium, map_large, and precision, recall and f1 of all objects together.
    Source: Lin et al. 2014, with the 101 recalls of pycocotools.
    """
    precisions, recalls = average_precisions(matches, weights)
    by_class = precisions[:, 0]
    shown = shown_scores(matches, weights, shown_from)
    overall = {
        "map": mean_of_known(by_class, (1, 2)),
        "map_50": mean_of_known(by_class[:, :, 0], 1),
        "map_75": mean_of_known(by_class[:, :, 5], 1),
        "mar_100": mean_of_known(recalls, (1, 2)),
        **{
            f"map_{size}": mean_of_known(precisions[:, place], (1, 2))
            for place, size in enumerate(matches.sizes)
            if size != ALL_SIZES
        },
        **{name: of_all[:, -1] for name, of_all in shown.items()},
    }
    columns = [
        by_class.mean(axis=2),
        by_class[:, :, 0],
        *(of_all[:, :-1] for of_all in shown.values()),
    ]
    return Scores(tuple(overall), np.concatenate([np.column_stack(list(overall.values())), *columns], axis=1))


def map_50(matches: Matches, weights: Weights) -> NDArray[np.float64]:
    """Return the mean over classes of the average precision by the first IoU of the matches, float64 (n_weightings,).

    Without any object it is NaN.
    """
    return mean_of_known(average_precisions(matches, weights)[0][:, 0, :, 0], 1)


def average_precisions(matches: Matches, weights: Weights) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the average precision of every size, class and IoU, and the recall, of all sizes, of every class and IoU.

    float64 (n_weightings, n_sizes, n_classes, n_ious) and (n_weightings, n_classes, n_ious); NaN without objects.
    """
    n_sizes, n_ious, _ = matches.right.shape
    precisions = np.full((len(weights), n_sizes, matches.n_classes, n_ious), np.nan)
    recalls = np.full((len(weights), matches.n_classes, n_ious), np.nan)
    for size in range(n_sizes):
        for label in range(matches.n_classes):
            ranking = ranking_of(matches, size, label)
            if not ranking.objects.any():
                continue
            step = max(1, CELLS_PER_BLOCK // max(1, len(ranking.images)))
            for first in range(0, len(weights), step):
                rows = slice(first, first + step)
                precisions[rows, size, label], recall = precision_and_recall(ranking, weights[rows])
                if size == 0:
                    recalls[rows, label] = recall
    return precisions, recalls


def ranking_of(matches: Matches, size: int, label: int) -> Ranking:
    """Return the detections of a class that count for a size by any IoU, the surest first."""
    own = np.flatnonzero((matches.found.labels == label) & matches.counted[size].any(axis=0))
    # By image first: of equal scores, COCO ranks the earlier image's first.
    own = own[np.argsort(matches.found.images[own], kind="stable")]
    own = own[np.argsort(-matches.scores[own], kind="stable")]
    objects = matches.truths.images[matches.belongs[size] & (matches.truths.labels == label)]
    return Ranking(
        images=matches.found.images[own],
        right=matches.right[size][:, own],
        counted=matches.counted[size][:, own],
        objects=np.bincount(objects, minlength=matches.n_images).astype(np.float64),
    )


def precision_and_recall(ranking: Ranking, weights: Weights) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return average precision and recall by every IoU, float64 (n_weightings, n_ious); NaN without objects."""
    objects = weights @ ranking.objects
    n_ious = len(ranking.right)
    precisions, recalls = np.zeros((len(weights), n_ious)), np.zeros((len(weights), n_ious))
    drawn = weights[:, ranking.images]
    counts = np.cumsum(drawn, axis=1) if ranking.all_counted else None
    for place, (right, counted) in enumerate(zip(ranking.right, ranking.counted, strict=True)):
        hits = np.flatnonzero(right)
        if not len(hits):
            continue
        so_far = (np.cumsum(drawn * counted, axis=1) if counts is None else counts)[:, hits]
        right_so_far = np.cumsum(drawn[:, hits], axis=1)
        precisions[:, place] = area_under(right_so_far, so_far, objects)
        recalls[:, place] = ratio(right_so_far[:, -1], objects)
    unknown = objects == 0
    precisions[unknown], recalls[unknown] = np.nan, np.nan
    return precisions, recalls


def area_under(
    right_so_far: NDArray[np.float64], so_far: NDArray[np.float64], objects: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Return the average over RECALLS of the best precision at that recall or above, float64 (n_weightings,).

    right_so_far, so_far: right and all detections up to and with each right one, (n_weightings, n_right). objects:
    (n_weightings,).
    """
    precision = right_so_far / (so_far + SMALLEST)
    best_from_here = np.maximum.accumulate(precision[:, ::-1], axis=1)[:, ::-1]
    recall = ratio(right_so_far, np.broadcast_to(objects[:, None], right_so_far.shape))
    reached = recalls_reached(recall)
    gained = np.diff(reached, axis=1, prepend=0)
    return np.asarray((best_from_here * gained).sum(axis=1) / len(RECALLS))


def recalls_reached(recall: NDArray[np.float64]) -> NDArray[np.int64]:
    """Return how many of RECALLS are at most each of these: `np.searchsorted(RECALLS, recall, "right")`, but faster."""
    reached = np.floor(recall * (len(RECALLS) - 1) + 1e-6).astype(np.int64) + 1
    # RECALLS are rounded as well: 7 of 100 objects do not reach 0.07, which is a bit more.
    reached -= RECALLS[reached - 1] > recall
    return np.asarray(reached)


def shown_scores(matches: Matches, weights: Weights, shown_from: float) -> dict[str, NDArray[np.float64]]:
    """Return precision, recall and F1 of the detections that are shown, float64 (n_weightings, n_classes + 1).

    The last column is of all classes together. 0 where nothing is shown; NaN without objects.
    """
    shown = matches.counted[0, 0] & (matches.scores >= shown_from)
    right = shown & matches.right[0, 0]
    of_found = matches.found.images, matches.found.labels
    n_shown, n_right = (
        weighted_counts(matches, weights, *(part[rows] for part in of_found)) for rows in (shown, right)
    )
    n_objects = weighted_counts(matches, weights, matches.truths.images, matches.truths.labels)
    known = np.where(n_objects > 0, 0.0, np.nan)
    return {
        "precision": ratio(n_right, n_shown) + known,
        "recall": ratio(n_right, n_objects) + known,
        "f1": ratio(2 * n_right, n_objects + n_shown) + known,
    }


def weighted_counts(
    matches: Matches, weights: Weights, images: NDArray[np.int64], labels: NDArray[np.int64]
) -> NDArray[np.float64]:
    """Return how many boxes of every class there are, and of all, float64 (n_weightings, n_classes + 1)."""
    cells = np.bincount(images * matches.n_classes + labels, minlength=matches.n_images * matches.n_classes)
    by_class = weights @ cells.reshape(matches.n_images, matches.n_classes).astype(np.float64)
    return np.column_stack([by_class, by_class.sum(axis=1)])


def mean_of_known(values: NDArray[np.float64], axes: int | tuple[int, ...]) -> NDArray[np.float64]:
    """Return the mean of what is not NaN along these axes; NaN where nothing is known."""
    known = ~np.isnan(values)
    count = known.sum(axis=axes)
    return np.asarray(ratio(np.where(known, values, 0).sum(axis=axes), count) + np.where(count > 0, 0.0, np.nan))
