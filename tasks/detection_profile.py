"""What `profile` notes of the boxes of a data set for detection."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from kinglet.atomic import atomic_path, read_json
from kinglet.data.annotations.box_quality import annotation_words, input_scales
from tasks.artifacts import BOX_FACTS, BOXES, SOURCE_FACTS, read_input_sizes
from tasks.label_facts import LabelFacts

# Quantiles of the boxes' size in pixels, the square root of the area.
SIDES = {"p5": 0.05, "p50": 0.5, "p95": 0.95}


def box_facts(images: pd.DataFrame) -> LabelFacts:
    """Return what the boxes of images say, and write boxes.parquet: a row per box, with what is measured of it.

    images: the manifest. Images that cannot be decoded show nothing.
    """
    source = read_json(SOURCE_FACTS)
    decoded = images.loc[images["decode_ok"], ["index", "path", "width", "height"]]
    boxes = pd.read_parquet(BOXES).join(decoded.set_index("index"), on="index", how="inner")
    boxes["side"] = np.sqrt((boxes["x2"] - boxes["x1"]) * (boxes["y2"] - boxes["y1"]))
    scales = input_scales(
        boxes["width"].to_numpy(), boxes["height"].to_numpy(), read_input_sizes().teacher, source["fit"]
    )
    boxes["input_side"] = boxes["side"] * scales
    with atomic_path(BOX_FACTS) as path:
        boxes.to_parquet(path, index=False)
    of_image = dict(iter(boxes.groupby("index", sort=True)))
    empty = boxes.iloc[:0]
    parts = [of_image.get(index, empty) for index in images["index"].tolist()]
    labels = pd.Series([part["label"].tolist() for part in parts], dtype=object, index=images.index)
    annotation = np.array([annotation_words(part) for part in parts], object)
    counts = {str(label): int(count) for label, count in boxes["label"].value_counts().sort_index().items()}
    return LabelFacts(
        images=images.assign(
            n_boxes=[len(part) for part in parts],
            box_labels=labels,
            annotation=annotation,
        ),
        labels=annotation,
        class_counts=counts,
        facts=data_set_facts(boxes, counts, len(decoded) - len(of_image), source["annotations"]),
    )


def data_set_facts(
    boxes: pd.DataFrame, counts: dict[str, int], n_without: int, annotations: dict[str, Any]
) -> dict[str, Any]:
    """Return the facts about boxes as a whole, JSON-ready; classes count boxes here, not images."""
    quantiles = {name: round(float(boxes["side"].quantile(share)), 2) for name, share in SIDES.items()}
    return {
        "n_unlabelled": 0,
        "n_classes": len(counts),
        "class_counts": counts,
        "class_imbalance": max(counts.values()) / min(counts.values()) if counts else 0.0,
        "boxes": {
            **annotations,
            "images_by_class": {
                label: int(part["index"].nunique()) for label, part in boxes.groupby("label", sort=True)
            },
            "images_without_boxes": n_without,
            "side_pixels": quantiles,
        },
    }
