"""Step `report`: one self-contained HTML page with the evidence."""

from __future__ import annotations

import csv
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.compute as pc

from kinglet.atomic import read_json, write_text
from kinglet.evidence.bootstrap import Interval
from kinglet.evidence.budget import Budget
from kinglet.evidence.charts import Point, accuracy_against_latency
from tasks.artifacts import (
    BENCHMARK,
    CHECK_DATA,
    EVALUATE,
    REFUSED_CUTS,
    REPORT,
    ROBUSTNESS,
    SEARCH,
    SELECT,
    SOURCE_FACTS,
    SPLIT,
    UNRIVALLED,
    packed_clips,
    packed_images,
    read_input_sizes,
)
from tasks.chapters import (
    adaptation,
    by_domain,
    comparisons,
    cross_validation,
    domains,
    early,
    flips,
    label_errors,
    slices,
    verdict,
)
from tasks.chapters.data import findings, read_quarantine
from tasks.chapters.robustness import robustness_chapter
from tasks.chapters.settings import settings_rows
from tasks.chapters.strips import Strips
from tasks.detection_report import page_on_detectors
from tasks.generated_data import GENERATED_SENTENCE
from tasks.image_tables import read_parquet
from tasks.parameters import Parameters
from tasks.report_page import Evidence, page_of, render
from tasks.report_rows import control_rows
from tasks.segmentation_report import page_on_segmenters
from tasks.stage import run_stage

SPLITS = ("train", "validation", "test", "sealed", "adaptation", "target_test")


def run(parameters: Parameters) -> None:
    """Write report.html."""
    write_text(REPORT / "report.html", PAGES[parameters.network](parameters))


def page_on_classifiers(parameters: Parameters) -> str:
    """Return the page on models that sort images into classes."""
    return page_on_sorters(parameters, read_evidence(parameters))


def page_on_clip_networks(parameters: Parameters) -> str:
    """Return the page on models that sort clips into classes; clips are shown as strips of their frames."""
    packed = np.load(packed_clips(read_input_sizes().all[-1]), mmap_mode="r")
    evidence = replace(
        read_evidence(parameters),
        packed=Strips(packed),
        several="clips",
        timed="frame",
        generated=GENERATED_SENTENCE if "generated" in read_json(SOURCE_FACTS) else "",
    )
    further = {"strips": True, "early": early.chapter(page_of(evidence)["rows"], packed.shape[1])}
    return page_on_sorters(parameters, evidence, further)


def page_on_sorters(parameters: Parameters, evidence: Evidence, further: dict[str, Any] | None = None) -> str:
    """Return the page on models that answer with one class. further: what only some of them have."""
    trials = read_trials(SEARCH / "trials.csv")
    page = page_of(evidence) | (further or {})
    page |= {
        "gate": verdict.chapter(),
        "controls": control_rows(page["rows"], evidence.answers, evidence.confidence, evidence.seed),
        "refused_cuts": read_json(REFUSED_CUTS),
        "unrivalled": read_json(UNRIVALLED),
        "search": search_rows(trials),
        "search_charts": search_charts(trials),
        "comparisons": comparisons.chapter(evidence.chosen),
        "flips": flips.chapter(evidence.chosen, evidence.classes, evidence.packed, evidence.sample_errors),
        "slices": slices.chapter(evidence.chosen),
        "by_domain": by_domain.chapter(
            evidence.scores, evidence.reference, evidence.chosen, "accuracy", "Accuracy", evidence.several
        ),
        "cross_validation": cross_validation.chapter(evidence.scores[evidence.reference], evidence.confidence),
        "label_errors": label_errors.chapter(evidence.packed, evidence.sample_errors),
        "findings": findings(read_json(CHECK_DATA / "checks.json")),
        "quarantined": read_quarantine(CHECK_DATA / "quarantine.csv"),
        "settings": settings_rows(parameters),
        "robustness": robustness_chapter(evidence.chosen, evidence.confidence, evidence.several),
        "adaptation": adaptation.chapter(evidence.confidence, evidence.several),
        "domains": domains.chapter(evidence.confidence, evidence.several),
        "origin": "the files under artifacts/",
    }
    return render(page)


def read_evidence(parameters: Parameters) -> Evidence:
    """Return what the steps found, with the settings that judge it."""
    evaluation, choice = read_json(EVALUATE / "scores.json"), read_json(SELECT / "choice.json")
    counts, select = read_json(SPLIT / "counts.json"), parameters.select
    return Evidence(
        title=parameters.report.title,
        scores=evaluation["models"],
        latency=read_json(BENCHMARK / "latency.json"),
        classes=evaluation["classes"],
        reference=evaluation["teacher"],
        word="teacher",
        chosen=choice["chosen"],
        chosen_word="chosen",
        reason=choice["reason"],
        front=choice["front"],
        budget=Budget(select.latency_ms, select.size_mb, select.max_accuracy_drop),
        answers=read_test_answers(),
        packed=np.load(packed_images(read_input_sizes().all[-1]), mmap_mode="r"),
        counts={split: counts[split] for split in SPLITS if split in counts},
        confidence=parameters.evaluate.confidence,
        seed=parameters.seed,
        sample_errors=parameters.report.sample_errors,
        robustness=read_json(ROBUSTNESS / "scores.json"),
    )


def read_test_answers() -> dict[str, dict[str, Any]]:
    """Return {model: columns} of the predictions on test images, numpy arrays in order of the images."""
    columns = ["index", "path", "label", "predicted", "confidence"]
    table = read_parquet(EVALUATE / "predictions.parquet", ["model", *columns], "test")
    answers = {}
    for name in pc.unique(table["model"]).to_pylist():
        of_model = table.filter(pc.equal(table["model"], name))
        answers[name] = {column: of_model[column].to_numpy() for column in columns}
    return answers


def read_trials(path: Path) -> list[dict[str, Any]]:
    """Return what the search tried, in order; intervals as {value, low, high}, None where there are none."""
    with path.open(encoding="utf-8", newline="") as opened:
        rows = list(csv.DictReader(opened))
    return [
        {**row, "latency": interval_in(row, "latency", "_ms"), "accuracy": interval_in(row, "accuracy")} for row in rows
    ]


def interval_in(row: dict[str, str], name: str, unit: str = "") -> dict[str, float] | None:
    """Return the interval that a row of a table holds in three columns, None if they are empty."""
    if not row[name + unit]:
        return None
    return {"value": float(row[name + unit]), **{end: float(row[f"{name}_{end}{unit}"]) for end in ("low", "high")}}


def search_rows(trials: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return everything tried, with the survivors first, then those that were trained longest."""
    rated = [{**trial, "number": number, "kind": kind_of(trial)} for number, trial in enumerate(trials, 1)]
    return sorted(
        rated, key=lambda row: (row["survivor"] or "~", -int(row["rungs"]), -(row["accuracy"] or {"value": 0})["value"])
    )


def kind_of(trial: dict[str, Any]) -> str:
    """Return how a trial is drawn: a survivor as chosen, one that was trained to the end as on the front."""
    return "chosen" if trial["survivor"] else "front" if trial["utility"] else "other"


def search_charts(trials: list[dict[str, Any]]) -> dict[str, str]:
    """Return the chart of what the search trained, for a wide and for a narrow page; empty if it trained nothing."""
    points = [
        Point(f"{number}", Interval(**trial["latency"]), Interval(**trial["accuracy"]), kind_of(trial))
        for number, trial in enumerate(trials, 1)
        if trial["accuracy"]
    ]
    if not points:
        return {}
    return {
        "wide": accuracy_against_latency(points, width=900, height=380),
        "narrow": accuracy_against_latency(points, width=380, height=340),
    }


PAGES = {
    "classification": page_on_classifiers,
    "detection": page_on_detectors,
    "segmentation": page_on_segmenters,
    "video": page_on_clip_networks,
}

if __name__ == "__main__":
    run_stage(run)
