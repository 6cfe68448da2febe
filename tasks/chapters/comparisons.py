"""The report's chapter on what the test images prove about every model beside the teacher."""

from __future__ import annotations

from typing import Any

from kinglet.atomic import read_json
from kinglet.evidence.bootstrap import Interval
from kinglet.evidence.forest_chart import Line, forest
from tasks.artifacts import COMPARE, EVALUATE, PLAN
from tasks.report_rows import percent, signed

# In the order in which they are shown; top_K_accuracy stands after the accuracy.
SCORES = (
    "accuracy",
    "top",
    "f1_macro",
    "precision_macro",
    "recall_macro",
    "f1_weighted",
    "precision_weighted",
    "recall_weighted",
)
# Neither is a share: they are shown as they are, and lower is better.
PLAIN_SCORES = ("log_loss", "ece")
WORDS = {"ece": "expected calibration error", "f1_macro": "F1 macro", "f1_weighted": "F1 weighted"}
VERDICT_STYLES = {"not worse": "passed", "worse": "critical", "not established": "warning"}


def chapter(chosen: str) -> dict[str, Any] | None:
    """Return what the chapter shows; None where there is no model beside the teacher."""
    found = read_json(COMPARE / "comparisons.json")
    if not found["models"]:
        return None
    names = sorted(found["models"], key=lambda name: (name != chosen, -found["models"][name]["accuracy"], name))
    rows = [
        {
            **found["models"][name],
            "name": name,
            "kind": "chosen" if name == chosen else "",
            "style": VERDICT_STYLES[found["models"][name]["verdict"]],
        }
        for name in names
    ]
    return {
        **{key: found[key] for key in ("teacher", "margin", "confidence", "power", "test_images")},
        "rows": rows,
        "charts": charts(rows, found["margin"]),
        "scores": score_rows(chosen, found["teacher"]),
        "plan": read_json(PLAN / "plan.json"),
    }


def charts(rows: list[dict[str, Any]], margin: float) -> dict[str, str]:
    """Return the chart of the differences, for a wide and for a narrow page."""
    # The bounds that the verdict goes by, not the two-sided interval: a line that stays right of the limit is a proof.
    lines = [
        Line(
            row["name"],
            Interval(row["difference"]["value"], row["at_worst"], row["at_best"]),
            row["kind"] or "other",
        )
        for row in rows
    ]
    title, axis = "Accuracy of every model minus that of the teacher", "points against the teacher"
    return {name: forest(lines, width, title, axis, -margin) for name, width in (("wide", 900), ("narrow", 380))}


def score_rows(chosen: str, teacher: str) -> list[dict[str, Any]]:
    """Return every score of the teacher and the chosen model with its interval, and their paired difference."""
    if chosen == teacher:
        return []
    scores = read_json(EVALUATE / "intervals.json")["models"]
    differences = read_json(COMPARE / "differences.json")[chosen]
    return [
        {
            "name": WORDS.get(score, score.replace("_", " ")),
            "unit": "" if score in PLAIN_SCORES else "%",
            "teacher": in_words(score, scores[teacher][score]),
            "chosen": in_words(score, scores[chosen][score]),
            "difference": difference_in_words(score, difference),
            "is_established": not difference["low"] <= 0 <= difference["high"],
            "is_loss": (difference["value"] < 0) != (score in PLAIN_SCORES),
        }
        for score, difference in sorted(differences.items(), key=lambda item: place_of(item[0]))
        if score != "per_class"
    ]


def place_of(score: str) -> tuple[int, str]:
    """Return where a score is shown."""
    known = "top" if score.startswith("top_") else score
    return SCORES.index(known) if known in SCORES else len(SCORES), score


def in_words(score: str, interval: dict[str, float]) -> dict[str, str]:
    """Return a score and its interval as they are printed."""
    value, low, high = (interval[end] for end in ("value", "low", "high"))
    shown = [f"{end:.4f}" if score in PLAIN_SCORES else percent(end) for end in (value, low, high)]
    return {"value": shown[0], "interval": f"{shown[1]}–{shown[2]}"}  # noqa: RUF001 - an en dash


def difference_in_words(score: str, interval: dict[str, float]) -> dict[str, str]:
    """Return a difference and its interval as they are printed, with signs."""
    # Signed by the same words as points are: a hundredth of the number, with four digits.
    scale, digits = (0.01, 4) if score in PLAIN_SCORES else (1, 2)
    value, low, high = (signed(scale * interval[end], digits) for end in ("value", "low", "high"))
    return {"value": value, "interval": f"{low} to {high}"}
