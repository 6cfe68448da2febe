"""The chapter `label_errors`: images whose label is probably wrong, as pictures."""

from __future__ import annotations

import csv
from typing import Any

from kinglet.atomic import read_json
from tasks.artifacts import LABEL_ERROR_COUNTS, SUSPICIOUS_LABELS
from tasks.report_page import SMALL_IMAGE, Pictures, png_uri


def chapter(packed: Pictures, n_pictures: int) -> dict[str, Any] | None:
    """Return what the template shows, None where nothing was looked at.

    packed: the images that `index` points into. n_pictures: the most that are shown.
    """
    counts = read_json(LABEL_ERROR_COUNTS)
    if not counts["n"]:
        return None
    with SUSPICIOUS_LABELS.open(encoding="utf-8", newline="") as opened:
        rows = list(csv.DictReader(opened))
    by_class = [
        {"label": label, **of_class} for label, of_class in counts["by_class"].items() if of_class["suspicious"]
    ]
    return {
        **counts,
        "by_class": sorted(by_class, key=lambda row: (-row["suspicious"], row["label"])),
        "pictures": [
            {
                "picture": png_uri(packed[int(row["index"])]),
                "small": packed.shape[1] < SMALL_IMAGE,
                "path": row["path"],
                "label": row["label"],
                "likely": row["likely_label"],
                "confidence": float(row["confidence"]),
                "label_confidence": float(row["label_confidence"]),
            }
            for row in rows[:n_pictures]
        ],
    }
