"""What the test images of a data set for detection hold, before anything is trained.

How much they can prove about a difference in average precision is not reckoned: it depends on how the scores of all
boxes are ordered, which nobody knows beforehand. The intervals of `evaluate` say it afterwards.
"""

from __future__ import annotations

import sys
from typing import Any

import pandas as pd

from kinglet.data.splits import any_number_each
from kinglet.errors import KingletError
from tasks.artifacts import PROFILE, SPLIT
from tasks.parameters import Parameters

# As for slices: with fewer images a score moves with each of them.
FEWEST_TEST_IMAGES = 20


def plan_of_boxes(_parameters: Parameters) -> dict[str, Any]:
    """Return how many images and boxes of each class every part has, JSON-ready, and print where the test has few.

    Raises KingletError if no test image is there to judge on.
    """
    split = pd.read_parquet(SPLIT / "manifest.parquet", columns=["index", "split"])
    labels = pd.read_parquet(PROFILE / "images.parquet", columns=["index", "box_labels"]).set_index("index")
    classes = any_number_each([list(of_image) for of_image in labels.loc[split["index"], "box_labels"]])
    sides = split["split"].to_numpy(object)
    if not (sides == "test").any():
        raise KingletError("The test split has no images to prove anything on.", "Raise split.test in params.yaml.")
    parts: dict[str, dict[str, Any]] = {}
    for part in sorted(set(sides)):
        rows = sides == part
        shown, boxes = classes.shown[rows], classes.occurrences[rows]
        parts[part] = {
            "images": int(rows.sum()),
            "images_without_boxes": int((~shown.any(axis=1)).sum()),
            "boxes": int(boxes.sum()),
            "images_by_class": dict(zip(classes.names, map(int, shown.sum(axis=0)), strict=True)),
            "boxes_by_class": dict(zip(classes.names, map(int, boxes.sum(axis=0)), strict=True)),
        }
    test = parts["test"]
    few = [label for label, images in test["images_by_class"].items() if images < FEWEST_TEST_IMAGES]
    for label in few:
        print(
            f"warning: class {label!r} is on {test['images_by_class'][label]} test images "
            f"({test['boxes_by_class'][label]} boxes), fewer than {FEWEST_TEST_IMAGES}: its average precision will "
            "move with every image.",
            file=sys.stderr,
        )
    return {
        "problem": "detection",
        "test_images": test["images"],
        "test_boxes": test["boxes"],
        "boxes_per_test_image": round(test["boxes"] / test["images"], 2),
        "classes_on_few_test_images": few,
        "parts": parts,
    }
