"""The chapter `detections`: test images with the boxes that the teacher and the chosen model put there."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from kinglet.evidence.detection_matches import LOOSEST_IOU, WHOLE, Objects, match_objects
from kinglet.evidence.detection_outcomes import Outcomes, outcomes_of
from kinglet.runtime.preprocessing import Placement, placement
from tasks.chapters.pictures import inside_of, jpeg_uri
from tasks.detection_answers import BoxedImages

# How a box is drawn, by what became of it; missed ones are the true boxes.
RIGHT, FALSE, MISSED = "right", "false", "missed"


def chapter(
    names: list[str],
    found: dict[str, Objects],
    images: BoxedImages,
    classes: list[str],
    packed: NDArray[np.uint8],
    fit: str,
    count: int,
    shown_from: float,
) -> dict[str, Any]:
    """Return what the chapter shows: the images on which the last of the models has most wrong, every model beside.

    found: {model: what it finds in the test images}. packed: what images.rows point into. fit: how images became
    square. count: images shown at most.
    """
    outcomes = {
        name: outcomes_of(
            match_objects(images.truths, found[name], len(images), len(classes), ious=LOOSEST_IOU, sizes=WHOLE),
            shown_from,
        )
        for name in names
    }
    wrong = wrong_in_images(outcomes[names[-1]], found[names[-1]], images)
    order = np.lexsort((images.rows, -wrong))[:count]
    return {
        "names": names,
        "n_images": len(images),
        "pictures": [
            picture(
                int(place),
                {name: (found[name], outcomes[name]) for name in names},
                images,
                classes,
                packed[images.rows[place]],
                fit,
            )
            for place in order
        ],
    }


def wrong_in_images(outcomes: Outcomes, found: Objects, images: BoxedImages) -> NDArray[np.int64]:
    """Return how many objects are missed and how many boxes are false in every image, together, int64 (n_images,)."""
    missed = np.bincount(images.truths.images[~outcomes.is_found], minlength=len(images))
    return np.asarray(missed + np.bincount(found.images[outcomes.is_false], minlength=len(images)))


def picture(
    place: int,
    of_models: dict[str, tuple[Objects, Outcomes]],
    images: BoxedImages,
    classes: list[str],
    square: NDArray[np.uint8],
    fit: str,
) -> dict[str, Any]:
    """Return one image without the borders of its square, and the boxes of every model in pixels of what is left."""
    width, height = images.sizes[place].tolist()
    placed = placement(width, height, len(square), fit)
    inside = inside_of(placed)
    shown = square[inside[1] : inside[3], inside[0] : inside[2]]
    return {
        "uri": jpeg_uri(shown),
        "width": shown.shape[1],
        "height": shown.shape[0],
        "path": images.paths[place],
        "models": [
            {"name": name, **boxes_of(place, found, outcomes, images, classes, placed, inside)}
            for name, (found, outcomes) in of_models.items()
        ],
    }


def boxes_of(
    place: int,
    found: Objects,
    outcomes: Outcomes,
    images: BoxedImages,
    classes: list[str],
    placed: Placement,
    inside: NDArray[np.int64],
) -> dict[str, Any]:
    """Return a model's boxes in one image with what became of them, and how many there are of each kind."""
    boxes, counts = [], {}
    for kind, of_kind, rows in (
        (RIGHT, found, outcomes.is_right),
        (FALSE, found, outcomes.is_false),
        (MISSED, images.truths, ~outcomes.is_found),
    ):
        own = of_kind.take(rows & (of_kind.images == place))
        corners = placed.to_input(own.xyxy.astype(np.float64)) - np.tile(inside[:2], 2)
        counts[kind] = len(own)
        for row, (x1, y1, x2, y2) in enumerate(np.round(corners, 1).tolist()):
            sure = "" if own.scores is None else f" {100 * float(own.scores[row]):.0f} %"
            boxes.append(
                {
                    "kind": kind,
                    "x": x1,
                    "y": y1,
                    "width": round(x2 - x1, 1),
                    "height": round(y2 - y1, 1),
                    "title": f"{classes[int(own.labels[row])]}{sure}, {kind}",
                }
            )
    return {"boxes": boxes, **counts}
