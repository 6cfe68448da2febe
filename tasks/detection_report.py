"""The page with the evidence on detectors: the same look as that on classifiers, with the scores of boxes."""

from __future__ import annotations

import platform
from importlib.metadata import version
from typing import Any

import numpy as np

from kinglet.atomic import read_json
from kinglet.evidence.bootstrap import Interval
from kinglet.evidence.charts import Point, accuracy_against_latency
from kinglet.evidence.corruptions.kinds import KINDS
from kinglet.evidence.forest_chart import Line, forest
from kinglet.evidence.non_inferiority import NOT_WORSE, WORSE
from tasks.artifacts import (
    BENCHMARK,
    CHECK_DATA,
    COMPARE,
    EVALUATE,
    ROBUSTNESS,
    SELECT,
    SPLIT,
    packed_images,
    read_input_sizes,
)
from tasks.chapters import detections, tracking, verdict
from tasks.chapters.comparisons import VERDICT_STYLES
from tasks.chapters.data import findings, read_quarantine
from tasks.chapters.settings import settings_rows
from tasks.chapters.slices import CORRECTIONS, read_rows
from tasks.detection_answers import read_boxed, read_found
from tasks.parameters import Parameters
from tasks.report_page import MAX_LISTED, render
from tasks.report_rows import count_rows, model_rows, signed

TEMPLATE = "detection_report_template.html"
SPLITS = ("train", "validation", "test", "sealed")
SCORES = ("map_50", "map", "map_75", "mar_100", "map_small", "map_medium", "map_large", "precision", "recall", "f1")
# As they are printed; the library's names elsewhere.
WORDS = {
    "map_50": "mAP50",
    "map": "mAP50–95",  # noqa: RUF001 - an en dash
    "map_75": "mAP75",
    "mar_100": "recall, mean over IoUs",
    "map_small": "mAP50–95, small objects",  # noqa: RUF001
    "map_medium": "mAP50–95, medium objects",  # noqa: RUF001
    "map_large": "mAP50–95, large objects",  # noqa: RUF001
    "precision": "precision of what is shown",
    "recall": "recall of what is shown",
    "f1": "F1 of what is shown",
}
MAX_SLICES = 12


def page_on_detectors(parameters: Parameters) -> str:
    """Return the page on models that find objects in images."""
    evaluation, choice = read_json(EVALUATE / "scores.json"), read_json(SELECT / "choice.json")
    latency, counts = read_json(BENCHMARK / "latency.json"), read_json(SPLIT / "counts.json")
    comparisons = read_json(COMPARE / "comparisons.json")
    classes, teacher, chosen = evaluation["classes"], evaluation["teacher"], choice["chosen"]
    scores, shown_from = evaluation["models"], evaluation["shown_from"]
    rows = model_rows(scores, latency["models"], teacher, chosen, choice["front"])
    images = read_boxed("test", classes)
    names = list(dict.fromkeys([teacher, chosen]))
    packed = np.load(packed_images(read_input_sizes().all[-1]), mmap_mode="r")
    counted = {split: counts[split] for split in SPLITS if split in counts}
    page = {
        "title": parameters.report.title,
        "gate": verdict.chapter(),
        "verdict": headline(rows, teacher, chosen, comparisons),
        "word": "teacher",
        "chosen_word": "chosen",
        "rows": rows,
        "chosen": rows[chosen],
        "teacher": rows[teacher],
        "confidence": parameters.evaluate.confidence,
        "shown_from": shown_from,
        "reason": choice["reason"],
        "charts": charts(rows, scores, teacher, parameters),
        "comparisons": comparison_chapter(comparisons, chosen),
        "scores": score_rows(chosen, teacher),
        "by_class": class_rows(scores, classes, teacher, chosen),
        "slices": slice_chapter(comparisons, chosen),
        "robustness": robustness_chapter(teacher, chosen),
        "detections": detections.chapter(
            names,
            read_found(names, images, "test"),
            images,
            classes,
            packed,
            parameters.data.fit,
            parameters.report.sample_errors,
            shown_from,
        ),
        "tracking": tracking.chapter() if parameters.problem == "tracking" else None,
        "findings": findings(read_json(CHECK_DATA / "checks.json")),
        "quarantined": read_quarantine(CHECK_DATA / "quarantine.csv"),
        "max_listed": MAX_LISTED,
        "counted": "Objects",
        "counts": count_rows(counted, classes, tuple(counted)),
        "splits": tuple(counted),
        "settings": settings_rows(parameters),
        "benchmark": latency,
        "versions": {
            "Python": platform.python_version(),
            **{name: version(name) for name in ("onnxruntime", "numpy", "pillow", "pycocotools")},
        },
    }
    return render(page, TEMPLATE)


def headline(rows: dict[str, Any], teacher: str, chosen: str, comparisons: dict[str, Any]) -> dict[str, str]:
    """Return the headline sentence and what may be claimed from the test images."""
    if chosen == teacher:
        return {
            "headline": f"Nothing smaller fits the budget: {teacher}, the teacher itself, is the model to ship.",
            "claim": "No other model was within the limits on speed, size and mAP50 on the validation images.",
        }
    row, judged, n = rows[chosen], comparisons["models"][chosen], comparisons["test_images"]
    difference = Interval(**judged["difference"])
    change = f"{abs(100 * difference.value):.2f} points of mAP50 {'below' if difference.value < 0 else 'above'} it"
    if difference.low <= 0 <= difference.high:
        change = "not measurably worse"
    said = f"{chosen} is {row['speedup']:.1f} times as fast as the teacher, {row['shrink']:.1f} times smaller"
    margin = f"{100 * judged['margin']:g} {'point' if judged['margin'] == 0.01 else 'points'} of mAP50"
    at_worst = f"{signed(judged['at_worst'])} points at worst"
    if judged["verdict"] == NOT_WORSE:
        claim = f"Established on {n:,} test images: it loses at most {margin} to the teacher ({at_worst})."
    elif judged["verdict"] == WORSE or judged["would_show"] != NOT_WORSE:
        claim = f"On the test images it lies beyond the {margin} that the budget allows ({at_worst})."
    else:
        claim = (
            f"Not established: that it loses at most {margin} to the teacher. {n:,} test images leave {at_worst}; "
            f"it would take about {judged['images_needed']:,}."
        )
    return {"headline": f"{said} and {change}.", "claim": claim}


def charts(rows: dict[str, Any], scores: dict[str, Any], teacher: str, parameters: Parameters) -> dict[str, str]:
    """Return the chart of mAP50 against latency, for a wide and for a narrow page."""
    points = [
        Point(
            name,
            Interval(row["p50_ms"], row["p50_low_ms"], row["p50_high_ms"]),
            Interval(**scores[name]["validation"]["map_50"]),
            row["kind"],
        )
        for name, row in rows.items()
    ]
    limits: dict[str, Any] = {
        "lowest_accuracy": scores[teacher]["validation"]["map_50"]["value"] - parameters.select.max_accuracy_drop,
        "highest_latency_ms": parameters.select.latency_ms,
        "score": "mAP50",
    }
    return {
        "wide": accuracy_against_latency(points, width=900, height=430, **limits),
        "narrow": accuracy_against_latency(points, width=380, height=380, **limits),
    }


def comparison_chapter(comparisons: dict[str, Any], chosen: str) -> dict[str, Any] | None:
    """Return what the images prove of every model beside the teacher; None where there is no other model."""
    rows = [
        {**row, "name": name, "kind": "chosen" if name == chosen else "", "style": VERDICT_STYLES[row["verdict"]]}
        for name, row in sorted(comparisons["models"].items())
    ]
    if not rows:
        return None
    lines = [
        Line(row["name"], Interval(row["difference"]["value"], row["at_worst"], row["at_best"]), row["kind"] or "other")
        for row in rows
    ]
    title, axis = "mAP50 of every model minus that of the teacher", "points against the teacher"
    margin = comparisons["margin"]
    return {
        **comparisons,
        "rows": rows,
        "charts": {
            name: forest(lines, width, title, axis, -margin) for name, width in (("wide", 900), ("narrow", 380))
        },
    }


def score_rows(chosen: str, teacher: str) -> list[dict[str, Any]]:
    """Return every score of the teacher and the chosen model with its interval, and their paired difference."""
    scores = read_json(EVALUATE / "intervals.json")["models"]
    differences = {} if chosen == teacher else read_json(COMPARE / "differences.json")[chosen]
    return [
        {
            "name": WORDS[score],
            "teacher": scores[teacher][score],
            "chosen": scores[chosen][score],
            "difference": differences.get(score),
        }
        for score in SCORES
        if scores[teacher][score]
    ]


def class_rows(scores: dict[str, Any], classes: list[str], teacher: str, chosen: str) -> list[dict[str, Any]]:
    """Return the test scores of every class that the images show, the chosen model's weakest first."""
    of_teacher, of_chosen = scores[teacher]["test"], scores[chosen]["test"]
    rows = [
        {
            "label": label,
            "objects": of_chosen["support"][label],
            "teacher": of_teacher["per_class"][label],
            "chosen": of_chosen["per_class"][label],
        }
        for label in classes
        if of_chosen["support"][label]
    ]
    return sorted(rows, key=lambda row: (row["chosen"]["map_50"]["value"], row["label"]))


def slice_chapter(comparisons: dict[str, Any], chosen: str) -> dict[str, Any] | None:
    """Return the parts of the images on which the chosen model loses most; None where there are none."""
    rows = [with_change(row) for row in read_rows() if row["model"] == chosen]
    if not rows:
        return None
    return {
        "rows": rows[:MAX_SLICES],
        "n": len(rows),
        "n_hurt": comparisons["models"][chosen]["slices_hurt"],
        "correction": CORRECTIONS[comparisons["correction"]],
    }


def with_change(row: dict[str, str]) -> dict[str, Any]:
    """Return a row of slices.csv with its numbers as numbers."""
    numbers = {name: float(row[name]) for name in ("teacher_map_50", "map_50", "p_corrected")}
    change = {
        end: float(row[name]) for end, name in (("value", "change"), ("low", "change_low"), ("high", "change_high"))
    }
    counts = {name: int(row[name]) for name in ("images", "objects")}
    return {**row, **numbers, **counts, "change": change, "is_established": row["is_established"] == "True"}


def robustness_chapter(teacher: str, chosen: str) -> dict[str, Any]:
    """Return what corrupted images say of every model, and kind by kind of the teacher and the chosen one."""
    found = read_json(ROBUSTNESS / "scores.json")
    models = found["models"]
    shown = [name for name in dict.fromkeys([teacher, chosen]) if name in models]
    return {
        **found,
        "shown": shown,
        "kinds": [
            {"name": kind.replace("_", " "), "scores": [float(np.mean(models[name]["kinds"][kind])) for name in shown]}
            for kind in KINDS
        ],
    }
