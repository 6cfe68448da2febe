"""What `check_data` judges of images with boxes."""

from __future__ import annotations

from typing import Any

import pandas as pd

from kinglet.atomic import read_json
from kinglet.data.annotations.box_quality import judge_boxes
from kinglet.data.box_expectations import box_checks
from kinglet.data.duplicates import BLANK_CONTRAST
from kinglet.data.expectations import BOXES
from kinglet.data.quality import judge_images, quarantine
from tasks.artifacts import BOX_FACTS, PROFILE
from tasks.data_settings import Check as Limits
from tasks.judged_images import LISTED, Judged, drift_columns

FLAGS = ["tiny", "huge", "drawn_twice", "other_class"]


def judge_annotated(limits: Limits) -> Judged:
    """Return the judgements on images with boxes, and on the boxes."""
    profiled = pd.read_parquet(PROFILE / "images.parquet")
    # Two images of the same pixels contradict each other where their boxes differ, as others do by their classes.
    images = judge_images(profiled.assign(label=profiled["annotation"]), limits.outlier_deviations, BLANK_CONTRAST)
    images["without_boxes"] = images["readable"] & (images["n_boxes"] == 0)
    quarantined = quarantine(images, limits.quarantine_conflicting_labels)
    boxes = judge_boxes(
        pd.read_parquet(BOX_FACTS),
        tiny_pixels=limits.tiny_box_pixels,
        huge_share=limits.huge_box_share,
        same_object_iou=limits.same_object_iou,
    )
    found = read_json(PROFILE / "dataset.json")["boxes"]
    kept = boxes[~boxes["path"].isin(set(quarantined["path"]))]
    labels = sorted(set(boxes["label"]))
    occurrences = {label: int((kept["label"] == label).sum()) for label in labels}
    return Judged(
        images=images,
        quarantined=quarantined,
        usable={label: int(kept.loc[kept["label"] == label, "index"].nunique()) for label in labels},
        occurrences=occurrences,
        n_usable=len(images) - len(quarantined),
        checks=box_checks(
            min_images_per_class=limits.min_images_per_class,
            max_class_imbalance=limits.max_class_imbalance,
            max_unreadable=limits.max_unreadable,
            max_conflicting=limits.max_conflicting,
            max_dropped_annotations=limits.max_dropped_annotations,
            max_without_boxes=limits.max_without_boxes,
            drift_threshold=limits.drift_threshold,
            drift_columns=drift_columns(),
        ),
        tables={BOXES: annotation_table(boxes, found["dropped"])},
        listed=listed(boxes, found),
        counts={
            "n_boxes": len(kept),
            "boxes_by_class": occurrences,
            "n_without_boxes": int(images["without_boxes"].sum()),
            "n_dropped_annotations": len(found["dropped"]),
            "n_cut_boxes": len(found["cut"]),
            **{f"n_{flag}": int(boxes[flag].sum()) for flag in FLAGS},
        },
    )


def annotation_table(boxes: pd.DataFrame, dropped: list[dict[str, str]]) -> pd.DataFrame:
    """Return a row for every annotation, those that are left out behind the others, for the checks on them."""
    used = boxes[["name", *FLAGS]].assign(usable=True)
    names = [f"{finding['place']}: {finding['reason']}" for finding in dropped]
    left_out = pd.DataFrame({"name": names, **dict.fromkeys(FLAGS, False), "usable": False})
    return pd.concat([used, left_out], ignore_index=True) if dropped else used


def listed(boxes: pd.DataFrame, found: dict[str, Any]) -> pd.DataFrame:
    """Return place and reason of every annotation that is left out, was cut or is odd, in this order."""
    odd = boxes[boxes["remark"] != ""]
    rows = [
        *((finding["place"], f"left out: {finding['reason']}") for finding in found["dropped"]),
        *((finding["place"], f"used as cut: {finding['reason']}") for finding in found["cut"]),
        *zip(odd["name"], odd["remark"], strict=True),
    ]
    return pd.DataFrame(rows, columns=LISTED)
