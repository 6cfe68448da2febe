"""The page that shows how good and how fast models are: made from evidence, by a run as well as by a single command."""

from __future__ import annotations

import base64
import io
import platform
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any, Protocol

import jinja2
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from kinglet.evidence.bootstrap import Interval
from kinglet.evidence.budget import Budget
from kinglet.evidence.charts import Point, accuracy_against_latency
from kinglet.evidence.non_inferiority import Verdict, verdict
from tasks import report_rows
from tasks.chapters import waterfall
from tasks.report_rows import (
    between,
    class_rows,
    count_rows,
    frequent_confusions,
    matrices,
    model_rows,
    percent,
    signed,
    signed_between,
    step_rows,
)

TEMPLATE = Path(__file__).with_name("report_template.html")
MAX_LISTED = 50
SMALL_IMAGE = 96  # pixels: below this, enlarged pictures show their pixels


class Pictures(Protocol):
    """Images as a page shows them: an array of packed ones, or what stands for it."""

    @property
    def shape(self) -> tuple[int, ...]:
        """The number of pictures, and the size in pixels of what each is made of."""
        ...

    def __getitem__(self, row: Any, /) -> NDArray[np.uint8]:
        """Return a picture, uint8 (height, width, channels)."""
        ...


@dataclass(frozen=True)
class Evidence:
    """What the page is made from.

    scores: {model: scores}, as in scores.json. latency: the content of latency.json. reference: the model that all
    are compared with; word: what it is ("teacher"). chosen: the model that the page is about; chosen_word: what it
    is. reason: why, in one sentence. answers: {model: columns} of the predictions on test images. packed: the images
    that `index` in the answers points into. counts: {part: {class: images}}. robustness: the content of
    robustness/scores.json, None where corrupted images were not scored. several: what is sorted. timed: what a latency
    is of. generated: a sentence wherever scores are shown, on images that a program made.
    """

    title: str
    scores: dict[str, Any]
    latency: dict[str, Any]
    classes: list[str]
    reference: str
    word: str
    chosen: str
    chosen_word: str
    reason: str
    front: list[str]
    budget: Budget
    answers: dict[str, dict[str, Any]]
    packed: Pictures
    counts: dict[str, dict[str, int]]
    confidence: float
    seed: int
    sample_errors: int
    robustness: dict[str, Any] | None = None
    several: str = "images"
    timed: str = "image"
    generated: str = ""


# The chapters that only some pages have; a page without one says so by None.
OPTIONAL: dict[str, Any] = {
    "gate": None,
    "search": None,
    "controls": None,
    "refused_cuts": {},
    "unrivalled": {},
    "search_charts": None,
    "findings": None,
    "settings": None,
    "ladder": None,
    "comparisons": None,
    "flips": None,
    "slices": None,
    "by_domain": None,
    "adoption": None,
    "robustness": None,
    "adaptation": None,
    "domains": None,
    "cross_validation": None,
    "label_errors": None,
    "early": None,
    "strips": False,
    "counted": "Images",
}
# What pages on images call them.
IMAGES = {"several": "images", "one": "image", "timed": "image", "generated": ""}


def page_of(evidence: Evidence) -> dict[str, Any]:
    """Return what the template shows, without the optional chapters and the list of images left out."""
    scores, classes, answers = evidence.scores, evidence.classes, evidence.answers
    reference, chosen = evidence.reference, evidence.chosen
    rows = model_rows(scores, evidence.latency["models"], reference, chosen, evidence.front)
    # A model may know classes that its images do not show.
    shown = [label for label in classes if any(of_part.get(label) for of_part in evidence.counts.values())]
    judged = judge(evidence)
    return {
        **OPTIONAL,
        "counted": evidence.several.capitalize(),
        "several": evidence.several,
        "one": evidence.several.removesuffix("s"),
        "timed": evidence.timed,
        "generated": evidence.generated,
        "title": evidence.title,
        "verdict": report_rows.verdict(rows, reference, chosen, scores, judged, evidence.word, evidence.several),
        "word": evidence.word,
        "chosen_word": evidence.chosen_word,
        "rows": rows,
        "chosen": rows[chosen],
        "teacher": rows[reference],
        "n_test": scores[reference]["test"]["n"],
        "n_validation": scores[reference]["validation"]["n"],
        "top_k": next(name for name in scores[reference]["test"] if name.startswith("top_")),
        "confidence": evidence.confidence,
        "reason": evidence.reason,
        "charts": charts(rows, evidence),
        "steps": step_rows(rows, answers, evidence.confidence, evidence.seed),
        "waterfall": waterfall.chapter(rows, answers, chosen, evidence.robustness, evidence.confidence, evidence.seed),
        "matrices": matrices(scores, classes, reference, chosen),
        "confusions": frequent_confusions(scores[chosen]["test"]["confusion"], classes),
        "by_class": class_rows(scores, classes, reference, chosen),
        "counts": count_rows(evidence.counts, shown, tuple(evidence.counts)),
        "splits": tuple(evidence.counts),
        "max_listed": MAX_LISTED,
        "errors": sample_errors(answers[chosen], classes, evidence.packed, evidence.sample_errors),
        "n_errors": int((answers[chosen]["predicted"] != answers[chosen]["label"]).sum()),
        "benchmark": evidence.latency,
        "versions": {
            "Python": platform.python_version(),
            **{name: version(name) for name in ("onnxruntime", "numpy", "pillow")},
        },
    }


def judge(evidence: Evidence) -> Verdict:
    """Return whether the chosen model is worse than the reference, on test images."""
    right, right_of_reference = (
        evidence.answers[name]["predicted"] == evidence.answers[name]["label"]
        for name in (evidence.chosen, evidence.reference)
    )
    return verdict(right, right_of_reference, evidence.budget.max_accuracy_drop, confidence=evidence.confidence)


def render(page: dict[str, Any], template: str = TEMPLATE.name) -> str:
    """Return the page as HTML; template: its name in the folder of the steps."""
    environment = jinja2.Environment(
        autoescape=True,
        loader=jinja2.FileSystemLoader(TEMPLATE.parent),
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    page = {**IMAGES, **page}
    environment.filters |= {"percent": percent, "signed": signed, "between": between, "signed_between": signed_between}
    return environment.get_template(template).render(page)


def charts(rows: dict[str, Any], evidence: Evidence) -> dict[str, str]:
    """Return the chart of accuracy against latency, for a wide and for a narrow page."""
    points = [
        Point(
            name,
            Interval(row["p50_ms"], row["p50_low_ms"], row["p50_high_ms"]),
            Interval(**evidence.scores[name]["validation"]["accuracy"]),
            row["kind"],
        )
        for name, row in rows.items()
    ]
    accuracy = evidence.scores[evidence.reference]["validation"]["accuracy"]["value"]
    limits = {
        "lowest_accuracy": accuracy - evidence.budget.max_accuracy_drop,
        "highest_latency_ms": evidence.budget.latency_ms,
    }
    return {
        "wide": accuracy_against_latency(points, width=900, height=430, **limits),
        "narrow": accuracy_against_latency(points, width=380, height=380, **limits),
    }


def sample_errors(answers: dict[str, Any], classes: list[str], packed: Pictures, count: int) -> list[dict[str, Any]]:
    """Return the chosen model's most confident mistakes on test images, with their pictures."""
    wrong = np.flatnonzero(answers["predicted"] != answers["label"])
    order = wrong[np.lexsort((answers["index"][wrong], -answers["confidence"][wrong]))]
    return [
        {
            "picture": png_uri(packed[answers["index"][row]]),
            "small": packed.shape[1] < SMALL_IMAGE,
            "path": answers["path"][row],
            "label": classes[answers["label"][row]],
            "predicted": classes[answers["predicted"][row]],
            "confidence": float(answers["confidence"][row]),
        }
        for row in order[:count]
    ]


def png_uri(image: NDArray[np.uint8]) -> str:
    """Return a packed image as a data URI."""
    written = io.BytesIO()
    Image.fromarray(image[:, :, 0] if image.shape[2] == 1 else image).save(written, "PNG", optimize=True)
    return "data:image/png;base64," + base64.b64encode(written.getvalue()).decode()
