"""The report's chapter on whom the chosen model hurts: its changes on parts of the test images."""

from __future__ import annotations

import csv
from typing import Any

from kinglet.atomic import read_json
from kinglet.evidence.bootstrap import Interval
from kinglet.evidence.forest_chart import Line, forest
from tasks.artifacts import COMPARE

# More lines than these are no chart any more; the table holds all.
MAX_LINES = 16
MAX_ROWS = 12
CORRECTIONS = {"holm": "Holm", "benjamini-hochberg": "Benjamini and Hochberg"}


def chapter(chosen: str) -> dict[str, Any] | None:
    """Return what the chapter shows; None where the teacher itself was chosen, or nothing was there to compare."""
    found = read_json(COMPARE / "comparisons.json")
    if chosen not in found["models"]:
        return None
    rows = [slice_of(row) for row in read_rows() if row["model"] == chosen]
    return {
        "rows": rows[:MAX_ROWS],
        "more": rows[MAX_ROWS:],
        "worst": rows[0] if rows and rows[0]["change"]["value"] < 0 else None,
        "charts": charts(rows[:MAX_LINES]) if rows else None,
        "n": len(rows),
        "n_charted": min(len(rows), MAX_LINES),
        "n_hurt": found["models"][chosen]["slices_hurt"],
        "too_small": found["slices_too_small"],
        "correction": CORRECTIONS[found["correction"]],
        "others": [
            {"name": name, **row["worst_slice"]}
            for name, row in sorted(found["models"].items())
            if name != chosen and row["worst_slice"] and row["worst_slice"]["change"] < 0
        ],
    }


def read_rows() -> list[dict[str, str]]:
    """Return the rows of slices.csv, worst first within each model."""
    with (COMPARE / "slices.csv").open(encoding="utf-8", newline="") as opened:
        return list(csv.DictReader(opened))


def slice_of(row: dict[str, str]) -> dict[str, Any]:
    """Return a row of the table with its numbers as numbers."""
    return {
        "column": row["column"],
        "value": row["value"],
        "images": int(row["images"]),
        "teacher_accuracy": float(row["teacher_accuracy"]),
        "accuracy": float(row["accuracy"]),
        "change": {
            "value": float(row["change"]),
            "low": float(row["change_low"]),
            "high": float(row["change_high"]),
        },
        "negative_flips": int(row["negative_flips"]),
        "positive_flips": int(row["positive_flips"]),
        "p_corrected": float(row["p_corrected"]),
        "is_established": row["is_established"] == "True",
    }


def charts(rows: list[dict[str, Any]]) -> dict[str, str]:
    """Return the chart of the changes, for a wide and for a narrow page."""
    lines = [
        Line(
            f"{row['value']} ({row['column']})",
            Interval(**row["change"]),
            "front" if row["is_established"] else "other",
        )
        for row in rows
    ]
    title, axis = "Accuracy on parts of the test images, against the teacher", "points against the teacher"
    return {name: forest(lines, width, title, axis) for name, width in (("wide", 900), ("narrow", 380))}
