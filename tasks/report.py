"""Step `report`: one self-contained HTML page with the evidence."""

from __future__ import annotations

import base64
import csv
import io
import platform
from importlib.metadata import version
from pathlib import Path
from typing import Any

import jinja2
import numpy as np
import pyarrow.compute as pc
from numpy.typing import NDArray
from PIL import Image

from kinglet.atomic import read_json, write_text
from kinglet.evidence.bootstrap import Interval, examples_to_establish, paired_interval
from kinglet.evidence.charts import Point, accuracy_against_latency
from tasks.artifacts import (
    BENCHMARK,
    CHECK_DATA,
    EVALUATE,
    REPORT,
    SEARCH,
    SELECT,
    SPLIT,
    packed_images,
    read_input_sizes,
)
from tasks.image_tables import read_parquet
from tasks.parameters import Parameters
from tasks.stage import run_stage

TEMPLATE = Path(__file__).with_name("report_template.html")
# Wider ones are unreadable: the most frequent confusions are listed instead.
MAX_MATRIX_CLASSES = 20
MAX_LISTED = 50
SMALL_IMAGE = 96  # pixels: below this, enlarged pictures show their pixels
SPLITS = ("train", "validation", "test")
MINUS, EN_DASH = "\u2212", "\u2013"
SEVERITIES = ("critical", "warning", "info")
STEP_WORDS = {
    "finetune": "fine-tuned",
    "distill": "distilled",
    "prune": "pruned",
    "quantize": "quantized",
    "export": "converted",
}


def run(parameters: Parameters) -> None:
    """Write report.html."""
    evaluation, benchmark = read_json(EVALUATE / "scores.json"), read_json(BENCHMARK / "latency.json")
    choice = read_json(SELECT / "choice.json")
    scores, latencies, classes = evaluation["models"], benchmark["models"], evaluation["classes"]
    teacher, chosen = evaluation["teacher"], choice["chosen"]
    answers = read_test_answers()
    rows = model_rows(scores, latencies, teacher, chosen, choice["front"])
    trials = read_trials(SEARCH / "trials.csv")
    page = {
        "title": parameters.report.title,
        "verdict": verdict(rows, teacher, chosen, scores, parameters.select.max_accuracy_drop),
        "rows": rows,
        "chosen": rows[chosen],
        "teacher": rows[teacher],
        "n_test": scores[teacher]["test"]["n"],
        "n_validation": scores[teacher]["validation"]["n"],
        "top_k": next(name for name in scores[teacher]["test"] if name.startswith("top_")),
        "confidence": parameters.evaluate.confidence,
        "reason": choice["reason"],
        "charts": charts(rows, scores, teacher, parameters),
        "steps": step_rows(rows, answers, parameters),
        "lineage": lineage(rows, chosen),
        "search": search_rows(trials),
        "search_charts": search_charts(trials),
        "matrices": matrices(scores, classes, teacher, chosen),
        "confusions": frequent_confusions(scores[chosen]["test"]["confusion"], classes),
        "by_class": class_rows(scores, classes, teacher, chosen),
        "counts": count_rows(read_json(SPLIT / "counts.json"), classes),
        "splits": SPLITS,
        "findings": findings(read_json(CHECK_DATA / "checks.json")),
        "quarantined": read_quarantine(CHECK_DATA / "quarantine.csv"),
        "max_listed": MAX_LISTED,
        "errors": sample_errors(answers[chosen], classes, parameters),
        "n_errors": int((answers[chosen]["predicted"] != answers[chosen]["label"]).sum()),
        "benchmark": benchmark,
        "versions": {
            "Python": platform.python_version(),
            **{name: version(name) for name in ("onnxruntime", "numpy", "pillow")},
        },
        "settings": settings_rows(parameters),
    }
    environment = jinja2.Environment(
        autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters |= {"percent": percent, "signed": signed, "between": between, "signed_between": signed_between}
    template = environment.from_string(TEMPLATE.read_text(encoding="utf-8"))
    write_text(REPORT / "report.html", template.render(page))


def percent(share: float, digits: int = 2) -> str:
    """Return a share in percent, without the sign."""
    return f"{100 * share:.{digits}f}"


def signed(difference: float, digits: int = 2) -> str:
    """Return a difference of shares in points, with a typographic sign; zero has none."""
    rounded = round(100 * difference, digits)
    return f"{'+' if rounded > 0 else MINUS if rounded < 0 else ''}{abs(rounded):.{digits}f}"


def between(interval: dict[str, float], digits: int = 2) -> str:
    """Return an interval of shares in percent."""
    return f"{percent(interval['low'], digits)}{EN_DASH}{percent(interval['high'], digits)}"


def signed_between(interval: dict[str, float], digits: int = 2) -> str:
    """Return an interval of differences in points."""
    return f"{signed(interval['low'], digits)} to {signed(interval['high'], digits)}"


def model_rows(
    scores: dict[str, Any], latencies: dict[str, Any], teacher: str, chosen: str, front: list[str]
) -> dict[str, dict[str, Any]]:
    """Return one row per model, slowest first."""
    rows = {}
    for name in sorted(scores, key=lambda name: (-latencies[name]["p50_ms"], name)):
        kind = "chosen" if name == chosen else "teacher" if name == teacher else "front" if name in front else "other"
        rows[name] = {
            **scores[name],
            **latencies[name],
            "name": name,
            "kind": kind,
            "made": STEP_WORDS.get(scores[name]["step"], scores[name]["step"]),
            "size_mb": latencies[name]["size_bytes"] / 1e6,
            "speedup": latencies[teacher]["p50_ms"] / latencies[name]["p50_ms"],
            "shrink": latencies[teacher]["size_bytes"] / latencies[name]["size_bytes"],
        }
    return rows


def verdict(rows: dict[str, Any], teacher: str, chosen: str, scores: dict[str, Any], max_drop: float) -> dict[str, str]:
    """Return the headline sentence and what may be claimed from the test images."""
    if chosen == teacher:
        return {
            "headline": f"Nothing smaller fits the budget: {teacher}, the teacher itself, is the model to ship.",
            "claim": "No other model was within the limits on speed, size and accuracy on the validation images.",
        }
    row, n = rows[chosen], scores[chosen]["test"]["n"]
    difference = Interval(**scores[chosen]["difference_to_teacher"]["test"])
    speed, size = f"{row['speedup']:.1f} times as fast as the teacher", f"{row['shrink']:.1f} times smaller"
    change = f"{abs(100 * difference.value):.2f} points {'less' if difference.value < 0 else 'more'} accurate"
    if difference.low <= 0 <= difference.high:
        change = "not measurably less accurate"
    bounds = f"{signed(difference.low)} to {signed(difference.high)}"
    needed = examples_to_establish(difference, -max_drop, n)
    allowed = "1 point" if round(100 * max_drop, 6) == 1 else f"{100 * max_drop:g} points"
    if difference.low > 0:
        claim = f"Established on {n:,} test images: it is more accurate than the teacher ({bounds} points)."
    elif needed is None:
        claim = f"On the test images it lies beyond the {allowed} that the budget allows ({bounds})."
    elif needed <= n:
        claim = f"Established on {n:,} test images: it stays within {allowed} of the teacher ({bounds})."
    else:
        claim = (
            f"Not established: that it stays within {allowed} of the teacher. {n:,} test images "
            f"give {bounds}; it would take about {needed:,}."
        )
    return {"headline": f"{chosen} is {speed}, {size} and {change}.", "claim": claim}


def charts(rows: dict[str, Any], scores: dict[str, Any], teacher: str, parameters: Parameters) -> dict[str, str]:
    """Return the chart of accuracy against latency, for a wide and for a narrow page."""
    points = [
        Point(
            name,
            Interval(row["p50_ms"], row["p50_low_ms"], row["p50_high_ms"]),
            Interval(**scores[name]["validation"]["accuracy"]),
            row["kind"],
        )
        for name, row in rows.items()
    ]
    limits = {
        "lowest_accuracy": scores[teacher]["validation"]["accuracy"]["value"] - parameters.select.max_accuracy_drop,
        "highest_latency_ms": parameters.select.latency_ms,
    }
    return {
        "wide": accuracy_against_latency(points, width=900, height=430, **limits),
        "narrow": accuracy_against_latency(points, width=380, height=380, **limits),
    }


def read_test_answers() -> dict[str, dict[str, Any]]:
    """Return {model: columns} of the predictions on test images, numpy arrays in order of the images."""
    columns = ["index", "path", "label", "predicted", "confidence"]
    table = read_parquet(EVALUATE / "predictions.parquet", ["model", *columns], "test")
    answers = {}
    for name in pc.unique(table["model"]).to_pylist():
        of_model = table.filter(pc.equal(table["model"], name))
        answers[name] = {column: of_model[column].to_numpy() for column in columns}
    return answers


def step_rows(rows: dict[str, Any], answers: dict[str, Any], parameters: Parameters) -> list[dict[str, Any]]:
    """Return what each step did to each model, against its parent: paired difference of test accuracy, speed, size."""
    steps = []
    for name, row in rows.items():
        parent = rows.get(row["parent"])
        if parent is None:
            continue
        difference = paired_interval(
            answers[name]["predicted"] == answers[name]["label"],
            answers[parent["name"]]["predicted"] == answers[parent["name"]]["label"],
            confidence=parameters.evaluate.confidence,
            seed=parameters.seed,
        )
        steps.append(
            {
                "name": name,
                "kind": row["kind"],
                "made": row["made"],
                "parent": parent["name"],
                "difference": difference.to_dict(),
                "established": not difference.low <= 0 <= difference.high,
                "speedup": parent["p50_ms"] / row["p50_ms"],
                "shrink": parent["size_bytes"] / row["size_bytes"],
            }
        )
    order = {word: position for position, word in enumerate(STEP_WORDS.values())}
    return sorted(steps, key=lambda step: (order.get(step["made"], 9), step["name"]))


def lineage(rows: dict[str, Any], chosen: str) -> list[dict[str, Any]]:
    """Return the models from the teacher to the chosen one, each with the width of its bars in percent."""
    chain: list[dict[str, Any]] = []
    name = chosen
    while name in rows and name not in [row["name"] for row in chain]:
        chain.insert(0, rows[name])
        name = rows[name]["parent"]
    slowest, biggest = max(row["p50_ms"] for row in chain), max(row["size_bytes"] for row in chain)
    ends = [row["test"]["accuracy"][end] for row in chain for end in ("low", "high")]
    low, span = min(ends), max(ends) - min(ends) or 1
    return [
        {
            **row,
            "latency_bar": 100 * row["p50_ms"] / slowest,
            "size_bar": 100 * row["size_bytes"] / biggest,
            **{
                f"accuracy_{end}": 4 + 92 * (row["test"]["accuracy"][end] - low) / span
                for end in ("low", "value", "high")
            },
        }
        for row in chain
    ]


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


def matrices(scores: dict[str, Any], classes: list[str], teacher: str, chosen: str) -> list[dict[str, Any]]:
    """Return the confusion matrices on test images, each cell as count and share of its row; none for many classes."""
    if len(classes) > MAX_MATRIX_CLASSES:
        return []
    found = []
    for name in dict.fromkeys((teacher, chosen)):
        counts = np.array(scores[name]["test"]["confusion"])
        shares = counts / np.maximum(1, counts.sum(axis=1, keepdims=True))
        lines = [
            {
                "label": label,
                "cells": [
                    {"count": int(count), "share": float(share), "right": row == column}
                    for column, (count, share) in enumerate(zip(counts[row], shares[row], strict=True))
                ],
            }
            for row, label in enumerate(classes)
        ]
        found.append({"name": name, "lines": lines, "classes": classes, "is_chosen": name == chosen})
    return found


def frequent_confusions(confusion: list[list[int]], classes: list[str], count: int = 10) -> list[dict[str, Any]]:
    """Return the most frequent mistakes: label, prediction, how often, and the share of the label's images."""
    counts = np.array(confusion)
    wrong = counts * ~np.eye(len(counts), dtype=bool)
    order = np.argsort(-wrong, axis=None, kind="stable")[:count]
    pairs = [(int(cell) // len(counts), int(cell) % len(counts)) for cell in order]
    return [
        {
            "label": classes[row],
            "predicted": classes[column],
            "count": int(wrong[row, column]),
            "share": float(wrong[row, column] / counts[row].sum()),
        }
        for row, column in pairs
        if wrong[row, column]
    ]


def class_rows(scores: dict[str, Any], classes: list[str], teacher: str, chosen: str) -> list[dict[str, Any]]:
    """Return the test scores of every class under the teacher and the chosen model, weakest first."""
    of_teacher, of_chosen = scores[teacher]["test"]["per_class"], scores[chosen]["test"]["per_class"]
    rows = [
        {
            "label": label,
            "support": of_chosen[label]["support"],
            "teacher": of_teacher[label],
            "chosen": of_chosen[label],
            "change": of_chosen[label]["f1"] - of_teacher[label]["f1"],
        }
        for label in classes
    ]
    return sorted(rows, key=lambda row: (row["chosen"]["f1"], row["label"]))


def count_rows(counts: dict[str, dict[str, int]], classes: list[str]) -> list[dict[str, Any]]:
    """Return the number of images of every class and split, and each class's bar in percent of the largest."""
    of_class = {label: [counts.get(split, {}).get(label, 0) for split in SPLITS] for label in classes}
    largest = max(map(sum, of_class.values()), default=0) or 1
    return [
        {"label": label, "counts": row, "total": sum(row), "bars": [100 * count / largest for count in row]}
        for label, row in of_class.items()
    ]


def findings(checks: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the findings of the data checks: those that failed first, by severity."""
    found = [
        {**item, "severity": item["severity"] if item["severity"] in SEVERITIES else "info"}
        for item in checks.get("findings", [])
    ]
    return sorted(found, key=lambda item: (item["passed"], SEVERITIES.index(item["severity"]), item["check"]))


def read_quarantine(path: Path) -> list[dict[str, str]]:
    """Return the images that were left out, with the reason."""
    with path.open(encoding="utf-8", newline="") as opened:
        return list(csv.DictReader(opened))


def sample_errors(answers: dict[str, Any], classes: list[str], parameters: Parameters) -> list[dict[str, Any]]:
    """Return the chosen model's most confident mistakes on test images, with their pictures."""
    wrong = np.flatnonzero(answers["predicted"] != answers["label"])
    order = wrong[np.lexsort((answers["index"][wrong], -answers["confidence"][wrong]))]
    packed = np.load(packed_images(read_input_sizes().all[-1]), mmap_mode="r")
    return [
        {
            "picture": png_uri(packed[answers["index"][row]]),
            "small": packed.shape[1] < SMALL_IMAGE,
            "path": answers["path"][row],
            "label": classes[answers["label"][row]],
            "predicted": classes[answers["predicted"][row]],
            "confidence": float(answers["confidence"][row]),
        }
        for row in order[: parameters.report.sample_errors]
    ]


def png_uri(image: NDArray[np.uint8]) -> str:
    """Return a packed image as a data URI."""
    written = io.BytesIO()
    Image.fromarray(image[:, :, 0] if image.shape[2] == 1 else image).save(written, "PNG", optimize=True)
    return "data:image/png;base64," + base64.b64encode(written.getvalue()).decode()


def settings_rows(parameters: Parameters) -> dict[str, list[tuple[str, str]]]:
    """Return the settings by section as (key, value) pairs; `general` holds those without a section."""
    sections: dict[str, list[tuple[str, str]]] = {"general": []}
    for key, value in parameters.model_dump(mode="json").items():
        if isinstance(value, dict):
            sections[key] = [(name, plain_text(inner)) for name, inner in value.items()]
        else:
            sections["general"].append((key, plain_text(value)))
    return sections


def plain_text(value: Any) -> str:
    """Return a setting as a reader would write it."""
    if value is None:
        return "no limit"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, list):
        return ", ".join(plain_text(item) for item in value) or "none"
    if isinstance(value, dict):
        return "; ".join(f"{key} {plain_text(inner)}" for key, inner in value.items())
    return str(value)


if __name__ == "__main__":
    run_stage(run)
