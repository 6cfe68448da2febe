"""The page with the evidence on detectors: the same look as that on classifiers, with the scores of boxes."""

from __future__ import annotations

from typing import Any

import numpy as np

from kinglet.evidence.image_bootstrap import RESAMPLES
from kinglet.evidence.image_gate import MAP_50
from tasks.artifacts import packed_images, read_input_sizes
from tasks.chapters import cross_validation, detections, tracking
from tasks.detection_answers import read_boxed
from tasks.detection_answers import read_found as read_detections
from tasks.image_report import Words, page_of, read_found
from tasks.parameters import Parameters
from tasks.report_page import render

TEMPLATE = "detection_report_template.html"
# As they are printed; the library's names elsewhere.
SCORES = {
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


def page_on_detectors(parameters: Parameters) -> str:
    """Return the page on models that find objects in images."""
    found = read_found()
    classes, shown_from = found.evaluation["classes"], found.evaluation["shown_from"]
    images = read_boxed("test", classes)
    scores, confidence = found.evaluation["models"], parameters.evaluate.confidence
    page = page_of(found, words_of(scores[found.chosen]["test"], shown_from, confidence), parameters)
    page |= {
        "shown_from": shown_from,
        "by_class": class_rows(scores, classes, found.teacher, found.chosen),
        "cross_validation": cross_validation.chapter(
            scores[found.teacher], confidence, {name: SCORES[name] for name in ("map_50", "map")}, RESAMPLES
        ),
        "detections": detections.chapter(
            found.names,
            read_detections(found.names, images, "test"),
            images,
            classes,
            np.load(packed_images(read_input_sizes().all[-1]), mmap_mode="r"),
            parameters.data.fit,
            parameters.report.sample_errors,
            shown_from,
        ),
        "tracking": tracking.chapter() if parameters.problem == "tracking" else None,
    }
    return render(page, TEMPLATE)


def words_of(test: dict[str, Any], shown_from: float, confidence: float) -> Words:
    """Return how the page calls the scores. test: those of the chosen model on test images."""
    return Words(
        headline=MAP_50,
        columns={"map": SCORES["map"]},
        scores=SCORES,
        shown="objects",
        lead=(
            f"scored by COCO’s rules on {test['objects']:,} objects in {test['n']:,} test images, which chose nothing. "  # noqa: RUF001
            "mAP50 is the average precision where a box counts from half an overlap (IoU 0.50) on, "
            f"{SCORES['map']} the mean over IoUs up to 0.95, both means over the classes."
        ),
        key=(
            f"Shown are boxes from a score of {shown_from:g} on. Small: below 32 × 32 pixels of the photo, "  # noqa: RUF001
            "large: above 96 × 96."  # noqa: RUF001
        ),
        how=(
            "ONNX files in onnxruntime with the preprocessing of the server; boxes matched by pycocotools. Intervals "
            f"hold {100 * confidence:g} %, by resamples of whole images; differences are paired. A class with few "
            "objects has too high a precision on average, and its interval holds less often than it says."
        ),
        counted="Objects",
        packages=("pycocotools",),
    )


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
