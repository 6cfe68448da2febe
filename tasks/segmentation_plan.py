"""What the test images of a data set for segmentation hold, before anything is trained.

How much they can prove about a difference in intersection over union is not reckoned: it depends on how the errors of
models spread over images, which nobody knows beforehand. The intervals of `evaluate` say it afterwards.
"""

from __future__ import annotations

import sys
from typing import Any

import numpy as np
import pandas as pd

from kinglet.atomic import read_json
from kinglet.errors import KingletError
from tasks.artifacts import PROFILE, SPLIT
from tasks.detection_plan import FEWEST_TEST_IMAGES
from tasks.parameters import Parameters


def plan_of_masks(_parameters: Parameters) -> dict[str, Any]:
    """Return how many images and pixels of each class every part has, JSON-ready, and print where the test has few.

    Raises KingletError if no test image is there to judge on.
    """
    split = pd.read_parquet(SPLIT / "manifest.parquet", columns=["index", "split"])
    facts = pd.read_parquet(PROFILE / "images.parquet", columns=["index", "class_pixels", "void_pixels"])
    of_images = facts.set_index("index").loc[split["index"]]
    classes: list[str] = read_json(SPLIT / "classes.json")
    pixels = np.array(of_images["class_pixels"].tolist(), np.int64).reshape(-1, len(classes))
    void, sides = of_images["void_pixels"].to_numpy(), split["split"].to_numpy(object)
    if not (sides == "test").any():
        raise KingletError("The test split has no images to prove anything on.", "Raise split.test in params.yaml.")
    parts: dict[str, dict[str, Any]] = {}
    for part in sorted(set(sides)):
        rows = sides == part
        parts[part] = {
            "images": int(rows.sum()),
            "void_pixels": int(void[rows].sum()),
            "images_by_class": dict(zip(classes, map(int, (pixels[rows] > 0).sum(axis=0)), strict=True)),
            "pixels_by_class": dict(zip(classes, map(int, pixels[rows].sum(axis=0)), strict=True)),
        }
    test = parts["test"]
    few = [label for label, images in test["images_by_class"].items() if images < FEWEST_TEST_IMAGES]
    for label in few:
        print(
            f"warning: class {label!r} is on {test['images_by_class'][label]} test images "
            f"({test['pixels_by_class'][label]:,} pixels), fewer than {FEWEST_TEST_IMAGES}: its intersection over "
            "union will move with every image.",
            file=sys.stderr,
        )
    return {
        "problem": "segmentation",
        "test_images": test["images"],
        "classes_on_few_test_images": few,
        "parts": parts,
    }
