"""What `check_data` judges: the images, and what is expected of them. Here for images that have one class each.

Boxes are judged by `tasks.detection_checks`, masks by `tasks.segmentation_checks`.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import pandas as pd

from kinglet.atomic import read_json
from kinglet.data.duplicates import BLANK_CONTRAST
from kinglet.data.expectations import Check, checks
from kinglet.data.quality import judge_images, quarantine, usable_class_counts
from tasks.artifacts import PROFILE
from tasks.data_settings import Check as Limits

LISTED = ["place", "reason"]


@dataclass(frozen=True)
class Judged:
    """A data set with all judgements on it.

    images: a row per image with the columns of `judge_images`. quarantined: path and reason of those that are left
    out. usable: {class: usable images that show it}. occurrences: {class: what its balance is judged by}. n_usable:
    usable images. tables: {name: rows} that checks read besides. listed: place and reason of annotations to look at.
    counts: what checks.json says besides.
    """

    images: pd.DataFrame
    quarantined: pd.DataFrame
    usable: dict[str, int]
    occurrences: dict[str, int]
    n_usable: int
    checks: list[Check]
    tables: dict[str, pd.DataFrame] = field(default_factory=dict)
    listed: pd.DataFrame = field(default_factory=lambda: pd.DataFrame(columns=LISTED))
    counts: dict[str, Any] = field(default_factory=dict)


def judge_classes(limits: Limits) -> Judged:
    """Return the judgements on images that have a class each."""
    images = judge_images(pd.read_parquet(PROFILE / "images.parquet"), limits.outlier_deviations, BLANK_CONTRAST)
    quarantined = quarantine(images, limits.quarantine_conflicting_labels)
    usable = usable_class_counts(images, quarantined)
    return Judged(
        images=images,
        quarantined=quarantined,
        usable=usable,
        occurrences=usable,
        n_usable=sum(usable.values()),
        checks=checks(
            min_images_per_class=limits.min_images_per_class,
            max_class_imbalance=limits.max_class_imbalance,
            max_unreadable=limits.max_unreadable,
            max_conflicting=limits.max_conflicting,
            drift_threshold=limits.drift_threshold,
            drift_columns=drift_columns(),
        ),
    )


def drift_columns() -> list[str]:
    """Return the names of what was compared with the accepted version, sorted; none if there is no such version."""
    return sorted(read_json(PROFILE / "dataset.json")["drift"]["stability_index"])
