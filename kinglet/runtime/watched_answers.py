"""What monitoring counts of a model's answers, by the problem that it solves.

Images are independent of each other; the objects in one of them, its tiles and the clips of one video are not. So every
image has the same weight, shared out among the values that it gives: of ten objects each counts a tenth. A test on
such counts is no surer than if one value of each image had been drawn at random.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from kinglet.runtime import bundles
from kinglet.runtime.detection import Detections
from kinglet.runtime.preprocessing import Placement

CONFIDENCE, OBJECTS, OBJECT_SIZE, SHARE_OF = "confidence", "objects", "object size", "share of "
# What an image counts in whole numbers, where it may give several values: up to 16 of them get equal parts.
SHARED_WEIGHT = 720_720


@dataclass(frozen=True)
class Values:
    """Numbers that images gave. values: float64 (n,). images: int64 (n,), the number of the image that each is of."""

    values: NDArray[np.float64]
    images: NDArray[np.int64]


@dataclass(frozen=True)
class Answers:
    """What a model answered to some images.

    columns: the values of each column of `Watched.columns`. composition: float64 (n_images, n_classes), the share that
    each class has in the answer to an image; a row sums to 1, or to 0 where nothing was found. sample: probabilities of
    independent answers, float32 (n, n_classes), none where answers are no probabilities.
    """

    columns: dict[str, Values]
    composition: NDArray[np.float64]
    sample: NDArray[np.float32]


@dataclass(frozen=True)
class Watched:
    """What is counted of a problem.

    columns: of the answers, from the names of the classes. weight: what an image counts. has_probabilities: whether an
    answer is one class of all, with probabilities. images: what those are called that are independent.
    """

    columns: Callable[[Sequence[str]], tuple[str, ...]]
    weight: int
    has_probabilities: bool
    images: str


WATCHED = {
    bundles.CLASSIFICATION: Watched(lambda _: (CONFIDENCE,), 1, True, "images"),
    bundles.DETECTION: Watched(lambda _: (OBJECTS, CONFIDENCE, OBJECT_SIZE), SHARED_WEIGHT, False, "images"),
    bundles.SEGMENTATION: Watched(
        lambda classes: (CONFIDENCE, *(SHARE_OF + name for name in classes)), SHARED_WEIGHT, False, "images"
    ),
    bundles.VIDEO: Watched(lambda _: (CONFIDENCE,), SHARED_WEIGHT, True, "videos"),
}


def one_each(values: NDArray[np.float64]) -> Values:
    """Return values of which every image gave one."""
    return Values(values, np.arange(len(values)))


def middle_of(n_frames: int) -> int:
    """Return which frame of a clip is measured: one tells the light and the lens as well as all do."""
    return n_frames // 2


def class_answers(probabilities: NDArray[np.float32], images: NDArray[np.int64] | None = None) -> Answers:
    """Return the answers that are one class each.

    probabilities: float32 (n, n_classes). images: int64 (n,), the number of the image or video that each is of, from 0
    and ascending; None where every image has one.
    """
    own = np.arange(len(probabilities)) if images is None else images
    confidence = Values(probabilities.max(axis=1).astype(np.float64), own)
    answered = np.eye(probabilities.shape[1])[probabilities.argmax(axis=1)]
    return Answers({CONFIDENCE: confidence}, mean_of_each(answered, own), probabilities[first_of_each(own)])


def object_answers(found: Sequence[Detections], sizes: Sequence[tuple[int, int] | None], n_classes: int) -> Answers:
    """Return the answers of a detector.

    found: the objects of each image. sizes: width and height of each image in pixels, None where they are not known,
    and then its objects have no size. That is the square root of an object's share of the image's area, in [0, 1].
    """
    counts = np.array([len(objects) for objects in found], np.int64)
    own = np.repeat(np.arange(len(found)), counts)
    is_sized = np.repeat(np.array([size is not None for size in sizes], bool), counts)
    shares = [
        np.sqrt(np.prod(objects.xyxy[:, 2:].astype(np.float64) - objects.xyxy[:, :2], axis=1) / (size[0] * size[1]))
        for objects, size in zip(found, sizes, strict=True)
        if size is not None
    ]
    composition = np.array([np.bincount(objects.labels, minlength=n_classes) for objects in found], np.float64)
    return Answers(
        {
            OBJECTS: one_each(counts.astype(np.float64)),
            CONFIDENCE: Values(joined([objects.scores.astype(np.float64) for objects in found]), own),
            OBJECT_SIZE: Values(joined(shares), own[is_sized]),
        },
        composition.reshape(len(found), n_classes) / np.maximum(counts, 1)[:, None],
        np.empty((0, n_classes), np.float32),
    )


def mask_facts(
    logits: NDArray[np.float32], placements: Sequence[Placement]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return how sure masks are, float64 (n,), and the share of each class in them, float64 (n, n_classes).

    Both at the resolution of the logits. logits: float32 (n, n_classes, h, w), before softmax. placements: where each
    image, or tile of one, lies in the input. A mask is as sure as the class that is answered is probable, on average
    over the image.
    """
    n_classes = logits.shape[1]
    confidences, shares = np.empty(len(logits)), np.empty((len(logits), n_classes))
    for place, (of_image, placed) in enumerate(zip(logits, placements, strict=True)):
        cells = shown_cells(of_image, placed)
        # The probability of the likeliest class: e^(best - best) over the sum.
        confidences[place] = (1 / np.exp(cells - cells.max(axis=0)).sum(axis=0)).mean()
        shares[place] = np.bincount(cells.argmax(axis=0), minlength=n_classes) / cells.shape[1]
    return confidences, shares


def mask_answers(
    confidences: NDArray[np.float64], shares: NDArray[np.float64], images: NDArray[np.int64], classes: Sequence[str]
) -> Answers:
    """Return the answers of a segmenter.

    confidences, shares: as `mask_facts` gives them. images: int64 (n,), the number of the image that each is of, from 0
    and ascending.
    """
    of_classes = {SHARE_OF + name: Values(shares[:, index], images) for index, name in enumerate(classes)}
    return Answers(
        {CONFIDENCE: Values(confidences, images), **of_classes},
        mean_of_each(shares, images),
        np.empty((0, len(classes)), np.float32),
    )


def shown_cells(logits: NDArray[np.float32], placed: Placement) -> NDArray[np.float64]:
    """Return the logits of the cells that show the image and no border, float64 (n_classes, n_cells).

    logits: (n_classes, h, w) of the square input.
    """
    n_classes, height, width = logits.shape
    rows = cells_between(placed.top, placed.height * placed.scale_y, height / placed.input_size, height)
    columns = cells_between(placed.left, placed.width * placed.scale_x, width / placed.input_size, width)
    return logits[:, rows, columns].reshape(n_classes, -1).astype(np.float64)


def cells_between(start: float, length: float, scale: float, count: int) -> slice:
    """Return the cells along one axis whose centres lie in the image, at least one of `count`."""
    first = min(max(int(np.ceil(start * scale - 0.5)), 0), count - 1)
    return slice(first, max(first + 1, min(int(np.ceil((start + length) * scale - 0.5)), count)))


def mean_of_each(rows: NDArray[np.float64], images: NDArray[np.int64]) -> NDArray[np.float64]:
    """Return the mean of the rows of each image, (n_images, n). images: of each row, from 0 and ascending."""
    starts = first_of_each(images)
    counts = np.diff([*starts, len(rows)])
    return np.asarray(np.add.reduceat(rows, starts, axis=0) / counts[:, None] if len(rows) else rows)


def first_of_each(images: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return the place of the first value of each image."""
    return np.unique(images, return_index=True)[1].astype(np.int64)


def joined(parts: Sequence[NDArray[np.float64]]) -> NDArray[np.float64]:
    """Return arrays as one; an empty one of none."""
    return np.concatenate(parts) if len(parts) else np.empty(0)
