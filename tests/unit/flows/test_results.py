"""The table that a run ends with, and where its time went."""

from __future__ import annotations

import io
import json
from typing import Any

import pytest
from rich.console import Console

from flows.results import Spent, duration, model_rows, models_table, print_summary, spent, stages_in_words

SCORES = {
    "models": {
        "residual-16": {
            "step": "distill",
            "validation": {"accuracy": {"value": 0.93, "low": 0.92, "high": 0.94}},
            "test": {"accuracy": {"value": 0.929, "low": 0.92, "high": 0.94}},
        },
        "teacher": {"step": "finetune", "validation": {"accuracy": {"value": 0.94}}, "test": {"accuracy": 0.938}},
        "teacher-int8": {"step": "quantize", "validation": {}},
    }
}
LATENCY = {
    "models": {
        "teacher": {"p50_ms": 0.5, "p99_ms": 0.7, "size_bytes": 13_600_000},
        "residual-16": {"p50_ms": 0.1, "p99_ms": 0.12, "size_bytes": 500_000},
    }
}
CHOICE = {
    "chosen": "residual-16",
    "reason": "Fastest within the budget.",
    "onnx": "artifacts/distill/x/model.onnx",
    "model": "artifacts/distill/x/model.onnx",
}


def test_the_teacher_comes_first_and_the_chosen_model_is_marked() -> None:
    rows = model_rows(SCORES, LATENCY, CHOICE)
    assert [row.name for row in rows] == ["teacher", "residual-16", "teacher-int8"]
    assert [row.chosen for row in rows] == [False, True, False]
    assert [row.times_faster for row in rows] == [1.0, pytest.approx(5.0), None]
    assert rows[1].validation_accuracy == 0.93
    assert (rows[2].test_accuracy, rows[2].p50_ms, rows[2].size_bytes) == (None, None, None)


@pytest.mark.parametrize(("key", "word"), [("map_50", "mAP50"), ("miou", "mIoU")])
def test_detectors_and_segmenters_are_told_with_scores_of_their_own(key: str, word: str) -> None:
    found = {"value": 0.871, "low": 0.84, "high": 0.9}
    model = {"step": "finetune", "validation": {key: found}, "test": {key: {**found, "value": 0.853}}}
    (row,) = model_rows({"models": {"teacher": model}}, LATENCY, {"chosen": "teacher"})
    assert (vars(row)[f"validation_{key}"], vars(row)[f"test_{key}"], row.test_accuracy) == (0.871, 0.853, None)
    out = io.StringIO()
    Console(file=out, width=100).print(models_table([vars(row)]))
    heads, told = out.getvalue().splitlines()[:2]
    assert f"validation {word}" in heads
    assert "0.8710" in told
    assert "0.8530" in told


def test_a_pipeline_without_scores_has_no_rows() -> None:
    assert model_rows({}, {}, {}) == []


@pytest.mark.parametrize(
    ("timings", "work"),
    [
        ({}, 0),
        ({"a": (10, 14)}, 4),
        ({"a": (10, 14), "b": (14, 15)}, 5),
        ({"a": (10, 14), "b": (12, 16)}, 6),  # side by side: counted once
        ({"a": (10, 18), "b": (12, 14)}, 8),  # one within the other
        ({"a": (1, 9), "b": (12, 14)}, 2),  # another run's
    ],
)
def test_time_in_which_steps_worked_counts_once(timings: dict[str, tuple[float, float]], work: float) -> None:
    result = spent({name: {"started": a, "ended": b} for name, (a, b) in timings.items()}, 10, 20)
    assert result == Spent(10, work)
    assert result.orchestration_share == pytest.approx(1 - work / 10)


@pytest.mark.parametrize(("seconds", "said"), [(8.24, "8.2 s"), (59.9, "59.9 s"), (725, "12 min 05 s")])
def test_seconds_are_said_as_people_say_them(seconds: float, said: str) -> None:
    assert duration(seconds) == said


def test_stages_are_counted_by_what_became_of_them() -> None:
    outcomes = {"a": "ran", "b": "unchanged", "c": "unchanged"}
    assert stages_in_words(outcomes) == "3 stages (1 ran, 2 unchanged)"


def test_the_summary_can_be_read_without_colour_and_the_json_holds_the_same() -> None:
    result: dict[str, Any] = {
        "stages": {"a": "ran"},
        "models": [vars(row) for row in model_rows(SCORES, LATENCY, CHOICE)],
        **CHOICE,
        "generated": "The videos are generated.",
        "gate": {"verdict": "refused", "paragraph": "Refused: residual-16 must not replace the champion."},
        "report": "artifacts/report/report.html",
        "seconds": 100.0,
        "orchestration_seconds": 5.0,
        "orchestration_share": 0.05,
    }
    assert json.loads(json.dumps(result)) == result
    out = io.StringIO()
    print_summary(result, Console(file=out, width=100, highlight=False))
    said = out.getvalue()
    assert "\x1b" not in said
    line = next(line for line in said.splitlines() if "* residual-16" in line)
    assert all(value in line for value in ("0.9300", "0.9290", "0.100", "0.120", "0.50", "5.0x"))
    assert "\nThe videos are generated.\n" in said
    assert "gate: Refused: residual-16 must not replace the champion." in said
    assert "model:  artifacts/distill/x/model.onnx" in said
    assert "report: artifacts/report/report.html" in said
    assert "1 min 40 s, of which orchestration 5.0 s (5%)" in said
