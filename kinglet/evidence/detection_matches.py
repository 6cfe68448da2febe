"""Which detection found which object, by COCO's rules: one matching, from which every score of a detector follows."""

from __future__ import annotations

import io
from collections.abc import Sequence
from contextlib import redirect_stdout
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from kinglet.runtime.detection import Detections

# From which overlap a detection counts as the object's: AP is the mean over these.
IOUS = np.linspace(0.5, 0.95, 10)
LOOSEST_IOU = IOUS[:1]
# Areas of boxes in pixels of the image, from and to; an object of just 32 x 32 is small and medium.
ALL_SIZES = "all"
SIZES = {
    ALL_SIZES: (0.0, 1e10),
    "small": (0.0, 32.0**2),
    "medium": (32.0**2, 96.0**2),
    "large": (96.0**2, 1e10),
}
WHOLE = {ALL_SIZES: SIZES[ALL_SIZES]}
# Of one class in one image, the surest.
MAX_DETECTIONS = 100


@dataclass(frozen=True)
class Objects:
    """Boxes of several images: the true ones, or those that a model found.

    images: int64 (n,), each box's image as a number in [0, n_images). labels: int64 (n,), in [0, n_classes). xyxy:
    float (n, 4), pixels of the image, with a positive area. scores: float (n,), in [0, 1]; None for true ones.
    """

    images: NDArray[np.int64]
    labels: NDArray[np.int64]
    xyxy: NDArray[np.floating[Any]]
    scores: NDArray[np.floating[Any]] | None = None

    def __len__(self) -> int:
        return len(self.labels)

    def take(self, rows: NDArray[Any]) -> Objects:
        """Return some of them; rows: places, or bool (n,)."""
        scores = None if self.scores is None else self.scores[rows]
        return Objects(self.images[rows], self.labels[rows], self.xyxy[rows], scores)

    def is_same(self, other: Objects) -> bool:
        """Return whether two models found the very same."""
        return all(
            np.array_equal(np.asarray(getattr(self, name)), np.asarray(getattr(other, name)))
            for name in ("images", "labels", "xyxy", "scores")
        )

    @property
    def areas(self) -> NDArray[np.float64]:
        """Their areas in pixels, float64 (n,)."""
        xyxy = self.xyxy.astype(np.float64)
        return np.asarray((xyxy[:, 2] - xyxy[:, 0]) * (xyxy[:, 3] - xyxy[:, 1]))


def objects_of(found: Sequence[Detections]) -> Objects:
    """Return the detections of several images as one table, image by image."""
    empty = Detections(np.zeros((0, 4), np.float32), np.zeros(0, np.int64), np.zeros(0, np.float32))
    parts = [*found, empty]
    return Objects(
        np.repeat(np.arange(len(found)), [len(of_image) for of_image in found]),
        np.concatenate([part.labels for part in parts]),
        np.concatenate([part.xyxy for part in parts]),
        np.concatenate([part.scores for part in parts]),
    )


@dataclass(frozen=True)
class Matches:
    """How a model's detections and the objects of the same images found each other.

    truths, found: the two; found.scores is not None. n_images, n_classes: how many there are. sizes: names, and what
    the first axis of the others counts. right: detections that found an object, bool (n_sizes, n_ious, n_found).
    counted: those that are right or false, bool of the same shape; the others are of another size, or beyond
    MAX_DETECTIONS. belongs: which objects are of a size, bool (n_sizes, n_truths). found_by: which detection found the
    object, of all sizes, by the first IoU, int64 (n_truths,); -1: none did.
    """

    truths: Objects
    found: Objects
    n_images: int
    n_classes: int
    sizes: tuple[str, ...]
    right: NDArray[np.bool_]
    counted: NDArray[np.bool_]
    belongs: NDArray[np.bool_]
    found_by: NDArray[np.int64]

    @property
    def scores(self) -> NDArray[np.float64]:
        """The scores of the detections, float64 (n_found,)."""
        return np.asarray(self.found.scores, np.float64)


def match_objects(
    truths: Objects,
    found: Objects,
    n_images: int,
    n_classes: int,
    *,
    ious: NDArray[np.float64] = IOUS,
    sizes: dict[str, tuple[float, float]] = SIZES,
) -> Matches:
    """Return how detections and objects of the same images find each other.

    The surest detection of an image chooses first, each takes the object of its class that it overlaps most, if by at
    least the IoU, and every object is found once. sizes: {name: smallest and largest area in pixels}, the first being
    all. Raises ValueError for images or labels out of range, boxes without area and scores that are missing or not
    finite.
    Source: Lin et al. 2014, "Microsoft COCO: Common Objects in Context"; the matching is pycocotools' own.
    """
    for boxes in (truths, found):
        check_objects(boxes, n_images, n_classes)
    if found.scores is None or not np.isfinite(found.scores).all():
        raise ValueError("every detection needs a finite score")
    evaluation = coco_evaluation(truths, found, n_images, ious, sizes)
    shape = len(sizes), len(ious), len(found)
    right, counted = np.zeros(shape, bool), np.zeros(shape, bool)
    belongs, found_by = np.zeros((len(sizes), len(truths)), bool), np.full(len(truths), -1)
    for place, pairs in enumerate(evaluation.evalImgs):
        if pairs is None:
            continue
        size = place // n_images % len(sizes)
        # Numbers there begin at 1, as 0 means that nothing was matched.
        detections, objects = (np.array(pairs[name], np.int64) - 1 for name in ("dtIds", "gtIds"))
        ignored = pairs["dtIgnore"].astype(bool)
        right[size][:, detections] = (pairs["dtMatches"] > 0) & ~ignored
        counted[size][:, detections] = ~ignored
        belongs[size][objects] = pairs["gtIgnore"] == 0
        if size == 0:
            found_by[objects] = pairs["gtMatches"][0].astype(np.int64) - 1
    return Matches(truths, found, n_images, n_classes, tuple(sizes), right, counted, belongs, found_by)


def coco_evaluation(
    truths: Objects, found: Objects, n_images: int, ious: NDArray[np.float64], sizes: dict[str, tuple[float, float]]
) -> COCOeval:
    """Return pycocotools' evaluation of the detections, matched, nothing summed up yet."""
    # What it prints of its progress is no output of ours.
    with redirect_stdout(io.StringIO()):
        evaluation = COCOeval(as_coco(truths, n_images), as_coco(found, n_images), "bbox")
        evaluation.params.imgIds = list(range(n_images))
        evaluation.params.iouThrs = np.asarray(ious)
        evaluation.params.areaRng = [list(limits) for limits in sizes.values()]
        evaluation.params.areaRngLbl = list(sizes)
        evaluation.params.maxDets = [MAX_DETECTIONS]
        evaluation.evaluate()
    return evaluation


def as_coco(boxes: Objects, n_images: int) -> COCO:
    """Return the boxes as pycocotools takes annotations."""
    sides = np.concatenate([boxes.xyxy[:, :2], boxes.xyxy[:, 2:] - boxes.xyxy[:, :2]], axis=1, dtype=np.float64)
    scores = np.zeros(len(boxes)) if boxes.scores is None else boxes.scores
    columns = (boxes.images, boxes.labels, sides, sides[:, 2] * sides[:, 3], scores)
    annotations = [
        {"id": number, "image_id": image, "category_id": label, "bbox": xywh, "area": area, "score": score}
        for number, (image, label, xywh, area, score) in enumerate(
            zip(*(np.asarray(column).tolist() for column in columns), strict=True), 1
        )
    ]
    coco = COCO()
    coco.dataset = {
        "images": [{"id": image} for image in range(n_images)],
        "categories": [{"id": label} for label in np.unique(boxes.labels).tolist()],
        "annotations": [{**row, "iscrowd": 0} for row in annotations],
    }
    coco.createIndex()
    return coco


def check_objects(boxes: Objects, n_images: int, n_classes: int) -> None:
    """Raise ValueError unless all boxes are of these images and classes and have an area."""
    for name, values, limit in (("image", boxes.images, n_images), ("label", boxes.labels, n_classes)):
        if len(values) != len(boxes.xyxy):
            raise ValueError(f"{len(values)} numbers of {name}s for {len(boxes.xyxy)} boxes")
        if len(values) and not (values.min() >= 0 and values.max() < limit):
            raise ValueError(f"the {name} of a box must lie in 0..{limit - 1}, got {values.min()}..{values.max()}")
    if not (np.isfinite(boxes.xyxy).all() and (boxes.xyxy[:, 2:] > boxes.xyxy[:, :2]).all()):
        raise ValueError("every box needs finite corners and a positive area")
