"""The page with the evidence on segmenters: the same look as that on classifiers, with the scores of masks."""

from __future__ import annotations

from typing import Any

import numpy as np

from kinglet.evidence.image_bootstrap import RESAMPLES
from kinglet.evidence.image_gate import MIOU
from tasks.artifacts import packed_images, read_input_sizes
from tasks.chapters import cross_validation, masks
from tasks.image_report import Words, page_of, read_found
from tasks.parameters import Parameters
from tasks.report_page import render
from tasks.segmentation_answers import read_counts, read_masked

TEMPLATE = "segmentation_report_template.html"
SCORES = {
    "miou": "mIoU",
    "dice": "Dice",
    "pixel_accuracy": "pixel accuracy",
    "boundary_f1": "F1 of boundaries",
}


def page_on_segmenters(parameters: Parameters) -> str:
    """Return the page on models that say of every pixel what it shows."""
    found = read_found()
    classes, scores = found.evaluation["classes"], found.evaluation["models"]
    images = read_masked("test")
    tolerance, confidence = found.evaluation["boundary_tolerance"], parameters.evaluate.confidence
    page = page_of(found, words_of(scores[found.chosen]["test"], tolerance, confidence), parameters)
    page |= {
        "by_class": class_rows(scores, classes, found.teacher, found.chosen),
        "cross_validation": cross_validation.chapter(
            scores[found.teacher],
            confidence,
            {name: SCORES[name] for name in ("miou", "dice", "pixel_accuracy")},
            RESAMPLES,
        ),
        "masks": masks.chapter(
            found.names,
            read_counts(found.names, images, "test", len(classes)),
            images,
            classes,
            np.load(packed_images(read_input_sizes().all[-1]), mmap_mode="r"),
            parameters.data.fit,
            parameters.report.sample_errors,
        ),
    }
    return render(page, TEMPLATE)


def words_of(test: dict[str, Any], tolerance: float, confidence: float) -> Words:
    """Return how the page calls the scores. test: those of the chosen model. tolerance: of boundaries."""
    return Words(
        headline=MIOU,
        columns={"dice": "Dice", "pixel_accuracy": "Pixel accuracy"},
        scores=SCORES,
        shown="pixels",
        lead=(
            f"scored on {test['pixels']:,} labelled pixels of {test['n']:,} test images in the images’ own size; they "  # noqa: RUF001
            "chose nothing. IoU is the intersection over the union of a class’s predicted and true pixels, Dice twice "  # noqa: RUF001
            "the intersection over both areas, of all images together; mIoU and Dice are means over the classes."
        ),
        key=(
            f"A pixel of a boundary is right within {100 * tolerance:g} % of the image’s diagonal of a true one "  # noqa: RUF001
            "(Csurka, Larlus and Perronnin 2013); its F1 is a mean over images and classes."
        ),
        how=(
            "ONNX files in onnxruntime with the preprocessing of the server; logits enlarged to each image’s own size. "  # noqa: RUF001
            f"Pixels without a label count for nothing. Intervals hold {100 * confidence:g} %, by resamples of whole "
            "images, as the pixels of one are not independent; differences are paired."
        ),
        counted="Pixels",
        packages=("scipy",),
    )


def class_rows(scores: dict[str, Any], classes: list[str], teacher: str, chosen: str) -> list[dict[str, Any]]:
    """Return the test scores of every class that the images show, the chosen model's weakest first."""
    of_teacher, of_chosen = scores[teacher]["test"], scores[chosen]["test"]
    rows = [
        {
            "label": label,
            "pixels": of_chosen["support"][label],
            "share": of_chosen["support"][label] / of_chosen["pixels"],
            "teacher": of_teacher["per_class"][label],
            "chosen": of_chosen["per_class"][label],
        }
        for label in classes
        if of_chosen["support"][label]
    ]
    return sorted(rows, key=lambda row: (row["chosen"]["iou"]["value"], row["label"]))
