"""What can be told of a detection data set by its boxes alone, before anything is trained."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from kinglet.data.annotations.boxes import AnnotatedImage, Annotations
from kinglet.runtime.boxes import box_iou

# COCO calls objects of less than 32 x 32 pixels small; half as wide and high, few detectors see them at all.
TINY_AREA = 16 * 16
# A box of nearly the whole image is often a label for the image.
HUGE_SHARE = 0.95
# Two boxes of one class that share so much are one object, drawn twice.
SAME_OBJECT_IOU = 0.9


@dataclass(frozen=True)
class BoxFacts:
    """Counts over a data set.

    boxes: {class: number of boxes}. images: {class: number of images that show it}. without_boxes: images that show
    none. tiny: boxes of less than 16 x 16 pixels. huge: boxes of at least 95 % of their image. drawn_twice: pairs of
    boxes of one class with an intersection over union of at least 0.9. splits: {part: images}, "" where none is given.
    """

    boxes: dict[str, int]
    images: dict[str, int]
    without_boxes: int
    tiny: int
    huge: int
    drawn_twice: int
    splits: dict[str, int]


def box_facts(annotations: Annotations) -> BoxFacts:
    """Return the counts of a data set; classes that no image shows count 0."""
    boxes, images = Counter(dict.fromkeys(annotations.classes, 0)), Counter(dict.fromkeys(annotations.classes, 0))
    tiny = huge = drawn_twice = 0
    for image in annotations.images:
        labels = [box.label for box in image.boxes]
        boxes.update(labels)
        images.update(set(labels))
        areas = box_areas(coordinates(image))
        tiny += int((areas < TINY_AREA).sum())
        huge += int((areas >= HUGE_SHARE * image.width * image.height).sum())
        drawn_twice += pairs_drawn_twice(image)
    return BoxFacts(
        boxes=dict(sorted(boxes.items())),
        images=dict(sorted(images.items())),
        without_boxes=sum(not image.boxes for image in annotations.images),
        tiny=tiny,
        huge=huge,
        drawn_twice=drawn_twice,
        splits=dict(sorted(Counter(image.split for image in annotations.images).items())),
    )


def coordinates(image: AnnotatedImage) -> NDArray[np.float64]:
    """Return the boxes of an image, float64 of shape (n_boxes, 4), xyxy in pixels."""
    return np.array([box.xyxy for box in image.boxes], np.float64).reshape(-1, 4)


def pairs_drawn_twice(image: AnnotatedImage) -> int:
    """Return how many pairs of boxes of one class cover nearly the same."""
    xyxy, labels = coordinates(image), np.array([box.label for box in image.boxes])
    same = (box_iou(xyxy, xyxy) >= SAME_OBJECT_IOU) & (labels[:, None] == labels[None, :])
    return int(np.triu(same, k=1).sum())


def box_areas(xyxy: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return areas in square pixels, shape (n,), of boxes of shape (n, 4)."""
    return (xyxy[:, 2] - xyxy[:, 0]) * (xyxy[:, 3] - xyxy[:, 1])


def usual_side(annotations: Annotations, share: float) -> float:
    """Return a quantile of the boxes' size in pixels, the square root of the area; 0 if there are none."""
    areas: Sequence[NDArray[np.float64]] = [box_areas(coordinates(image)) for image in annotations.images]
    sides = np.sqrt(np.concatenate(areas)) if areas else np.zeros(0)
    return float(np.quantile(sides, share)) if len(sides) else 0.0
