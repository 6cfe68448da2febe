"""The report's chapter on images that the teacher has right and a smaller model wrong, and the other way round."""

from __future__ import annotations

from typing import Any

from pyarrow.parquet import ParquetFile

from kinglet.atomic import read_json
from kinglet.evidence.slices import NEGATIVE_FLIP
from tasks.artifacts import COMPARE
from tasks.report_page import SMALL_IMAGE, Pictures, png_uri


def chapter(chosen: str, classes: list[str], packed: Pictures, count: int) -> dict[str, Any] | None:
    """Return what the chapter shows; None where there is no model beside the teacher.

    packed: the images that `index` points into, uint8 (n, size, size, channels). count: pictures shown at most.
    """
    found = read_json(COMPARE / "comparisons.json")
    if not found["models"]:
        return None
    rows = [
        {**row, "name": name, "kind": "chosen" if name == chosen else ""}
        for name, row in sorted(found["models"].items(), key=lambda item: (-item[1]["negative_flips"], item[0]))
    ]
    return {
        "teacher": found["teacher"],
        "rows": rows,
        "n_negative": found["models"][chosen]["negative_flips"] if chosen in found["models"] else 0,
        "pictures": pictures(chosen, classes, packed, count),
    }


def pictures(chosen: str, classes: list[str], packed: Pictures, count: int) -> list[dict[str, Any]]:
    """Return the chosen model's negative flips with their pictures, those that the teacher was surest of first."""
    with ParquetFile(COMPARE / "flips.parquet") as opened:
        flips = opened.read().to_pylist()
    own = [row for row in flips if row["model"] == chosen and row["flip"] == NEGATIVE_FLIP]
    own.sort(key=lambda row: (-row["teacher_confidence"], row["index"]))
    return [
        {
            "picture": png_uri(packed[row["index"]]),
            "small": packed.shape[1] < SMALL_IMAGE,
            "path": row["path"],
            "label": classes[row["label"]],
            "teacher": classes[row["teacher_predicted"]],
            "teacher_confidence": row["teacher_confidence"],
            "predicted": classes[row["predicted"]],
            "confidence": row["confidence"],
        }
        for row in own[:count]
    ]
