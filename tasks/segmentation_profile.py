"""What `profile` notes of the masks of a data set for segmentation."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from PIL import Image

from kinglet.atomic import read_json
from kinglet.data.masks.statistics import class_pixels, mask_words
from tasks.artifacts import MASK_CLASSES, MASKS, SOURCE_FACTS
from tasks.label_facts import LabelFacts


def mask_facts(images: pd.DataFrame) -> LabelFacts:
    """Return what the masks of images say; images: the manifest.

    class_pixels: of each class, in the order of their index; empty for an image without a usable mask. void_pixels:
    those without a class. dominant_class: the one with most pixels, "" without a mask. mask: words that are equal for
    equal masks, "" without one.
    """
    classes: list[str] = read_json(MASK_CLASSES)
    pixels, void, words = np.zeros((len(images), len(classes)), np.int64), np.zeros(len(images), np.int64), []
    for row, index in enumerate(images["index"].tolist()):
        file = MASKS / f"{index}.png"
        if not file.exists():
            words.append("")
            continue
        with Image.open(file) as image:
            mask = np.asarray(image)
        pixels[row], void[row] = class_pixels(mask, len(classes))
        words.append(mask_words(mask))
    mask_of, has_mask = np.array(words, object), np.array([bool(word) for word in words], bool)
    dominant = np.array([classes[index] for index in pixels.argmax(axis=1)], object)
    counts = dict(zip(classes, map(int, pixels.sum(axis=0)), strict=True))
    return LabelFacts(
        images=images.assign(
            class_pixels=pd.Series([list(row) if has else [] for row, has in zip(pixels, has_mask, strict=True)]),
            void_pixels=void,
            dominant_class=np.where(has_mask, dominant, ""),
            mask=mask_of,
        ),
        labels=mask_of,
        class_counts=counts,
        facts=data_set_facts(classes, pixels[has_mask], void[has_mask], read_json(SOURCE_FACTS)["annotations"]),
    )


def data_set_facts(
    classes: list[str], pixels: NDArray[np.int64], void: NDArray[np.int64], annotations: dict[str, Any]
) -> dict[str, Any]:
    """Return the facts about masks as a whole, JSON-ready; classes count pixels here, not images.

    pixels: int64 (n, n_classes), of the images with a mask; void: int64 (n,).
    """
    counts = pixels.sum(axis=0)
    total = max(int(counts.sum() + void.sum()), 1)
    shown = counts[counts > 0]
    return {
        "n_unlabelled": 0,
        "n_classes": len(shown),
        "class_counts": dict(zip(classes, map(int, counts), strict=True)),
        "class_imbalance": float(shown.max() / shown.min()) if len(shown) else 0.0,
        "masks": {
            **annotations,
            # In the order of their index, which the names of a JSON object do not keep.
            "classes": classes,
            "images_by_class": dict(zip(classes, map(int, (pixels > 0).sum(axis=0)), strict=True)),
            "share_by_class": dict(zip(classes, (round(float(count) / total, 6) for count in counts), strict=True)),
            "void_share": round(float(void.sum()) / total, 6),
            "images_of_one_class": int(((pixels > 0).sum(axis=1) == 1).sum()),
        },
    }
