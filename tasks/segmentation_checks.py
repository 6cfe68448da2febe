"""What `check_data` judges of images with masks."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from kinglet.atomic import read_json
from kinglet.data.duplicates import BLANK_CONTRAST
from kinglet.data.expectations import MASKS
from kinglet.data.mask_expectations import mask_checks
from kinglet.data.masks.faults import FAULTS
from kinglet.data.quality import NO_LABEL, judge_images, quarantine
from tasks.artifacts import PROFILE
from tasks.data_settings import Check as Limits
from tasks.judged_images import LISTED, Judged, drift_columns


def judge_masked(limits: Limits) -> Judged:
    """Return the judgements on images with masks, and on the masks."""
    profiled = pd.read_parquet(PROFILE / "images.parquet")
    found = read_json(PROFILE / "dataset.json")["masks"]
    # Two images of the same pixels contradict each other where their masks differ, as others do by their classes.
    images = judge_images(profiled.assign(label=profiled["mask"]), limits.outlier_deviations, BLANK_CONTRAST)
    classes: list[str] = found["classes"]
    pixels = np.array([list(row) or [0] * len(classes) for row in images["class_pixels"]], np.int64)
    total = pixels.sum(axis=1) + images["void_pixels"].to_numpy()
    images["one_class"] = (pixels > 0).sum(axis=1) == 1
    images["mostly_void"] = images["void_pixels"].to_numpy() > limits.max_void * total
    quarantined = with_faults(quarantine(images, limits.quarantine_conflicting_labels), images)
    kept = ~images["path"].isin(set(quarantined["path"])).to_numpy()
    occurrences = dict(zip(classes, map(int, pixels[kept].sum(axis=0)), strict=True))
    masks = mask_table(images, found)
    return Judged(
        images=images,
        quarantined=quarantined,
        usable=dict(zip(classes, map(int, (pixels[kept] > 0).sum(axis=0)), strict=True)),
        occurrences=occurrences,
        n_usable=int(kept.sum()),
        checks=mask_checks(
            min_images_per_class=limits.min_images_per_class,
            max_class_imbalance=limits.max_class_imbalance,
            max_unreadable=limits.max_unreadable,
            max_conflicting=limits.max_conflicting,
            max_dropped_annotations=limits.max_dropped_annotations,
            max_void=limits.max_void,
            max_one_class=limits.max_one_class,
            drift_threshold=limits.drift_threshold,
            drift_columns=drift_columns(),
        ),
        tables={MASKS: masks},
        listed=listed(images, found),
        counts={
            "pixels_by_class": occurrences,
            "void_share": found["void_share"],
            "n_dropped_annotations": int((~masks["usable"]).sum()),
            "n_one_class": int(images["one_class"].sum()),
            **{f"n_{fault}": int(masks[fault].sum()) for fault in FAULTS},
        },
    )


def with_faults(quarantined: pd.DataFrame, images: pd.DataFrame) -> pd.DataFrame:
    """Return the images to leave out with the reason why a mask cannot be used, where that is why."""
    problems = dict(zip(images["path"], images["problem"], strict=True))
    reasons = [
        f"mask: {problems[path]}" if reason == NO_LABEL else reason
        for path, reason in quarantined[["path", "reason"]].itertuples(index=False)
    ]
    return quarantined.assign(reason=reasons)


def mask_table(images: pd.DataFrame, found: dict[str, Any]) -> pd.DataFrame:
    """Return a row for every mask, those of no image behind the others, for the checks on them."""
    faults = [found["unusable"].get(path, "") for path in images["path"]]
    names = [*images["path"], *(f"{finding['place']}: {finding['reason']}" for finding in found["dropped"])]
    faults += ["none of an image"] * len(found["dropped"])
    columns = {fault: [of_mask == fault for of_mask in faults] for fault in FAULTS}
    return pd.DataFrame({"name": names, "usable": [not fault for fault in faults], **columns})


def listed(images: pd.DataFrame, found: dict[str, Any]) -> pd.DataFrame:
    """Return place and reason of every annotation that is left out, and of masks that are worth a look."""
    said = [(finding["place"], f"left out: {finding['reason']}") for finding in found["dropped"]]
    for image in images[images["one_class"] | images["mostly_void"]].itertuples():
        words = [f"all of one class: {image.dominant_class}"] if image.one_class else []
        words += [f"void in {image.void_pixels} pixels"] if image.mostly_void else []
        said.append((image.path, "; ".join(words)))
    return pd.DataFrame(said, columns=LISTED)
