"""The whole recipe out of fold: which images test a fold, which settings it runs with, and what the answers say."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml

from benchmarks import out_of_fold
from benchmarks.tables.runs import out_of_fold_rows
from kinglet.atomic import write_json
from kinglet.errors import KingletError


def test_setting_is_changed_with_its_type(tmp_path: Path) -> None:
    path = tmp_path / "params.yaml"
    path.write_text("select:\n  latency_ms: null\nsplit:\n  use_given: false\n")
    out_of_fold.change_settings(path, ["select.latency_ms=1.5", "split.use_given=true"])
    assert yaml.safe_load(path.read_text()) == {"select": {"latency_ms": 1.5}, "split": {"use_given": True}}


@pytest.mark.parametrize("change", ["select.latency_ms", "latency_ms=2", "chosen.latency_ms=2"])
def test_setting_that_does_not_exist_is_refused(tmp_path: Path, change: str) -> None:
    path = tmp_path / "params.yaml"
    path.write_text("select:\n  latency_ms: null\n")
    with pytest.raises(KingletError, match=f"--set {change}"):
        out_of_fold.change_settings(path, [change])


def test_images_of_a_fold_are_its_test_part(tmp_path: Path) -> None:
    images = pd.DataFrame({"path": ["a/1.png", "a/2.png", "b/1.png"], "label": ["a", "a", "b"], "fold": [1, 2, 2]})
    out_of_fold.write_table(tmp_path / "images.csv", images, fold=2)
    written = pd.read_csv(tmp_path / "images.csv")
    assert list(written.columns) == ["path", "label", "split"]
    assert written["split"].tolist() == ["train", "test", "test"]


def test_answers_of_all_folds_are_one_sample() -> None:
    generator = np.random.default_rng(0)
    labels = generator.integers(0, 3, 600)
    answers = pd.DataFrame({"label": labels, "teacher": labels, "chosen": labels, "fold": np.arange(600) % 3 + 1})
    answers.loc[:29, "teacher"] = (answers.loc[:29, "label"] + 1) % 3
    answers.loc[20:61, "chosen"] = (answers.loc[20:61, "label"] + 1) % 3
    found = out_of_fold.pooled(answers)
    assert found["images"] == 600
    assert found["teacher"]["value"] == pytest.approx(570 / 600)
    assert found["difference"]["value"] == pytest.approx(-12 / 600)
    assert -0.05 < found["difference"]["low"] < found["difference"]["value"] < found["difference"]["high"] < 0.02


def run_of(folder: Path) -> Path:
    """Write what `select`, `evaluate` and `benchmark` of a run leave, and how long its trainings took."""
    artifacts = folder / "artifacts"
    facts = {"input_size": 224, "precision": "fp32", "parameters": 9}
    accuracy = {"test": {"accuracy": {"value": 0.9}}, "difference_to_teacher": {"test": {"value": 0.0}}}
    write_json(artifacts / "select" / "choice.json", {"chosen": "student-1-int8"})
    write_json(
        artifacts / "evaluate" / "scores.json",
        {"models": {name: {**facts, **accuracy} for name in ("teacher", "student-1-int8")}},
    )
    times = {"teacher": {"p50_ms": 12.0, "size_bytes": 13e6}, "student-1-int8": {"p50_ms": 1.5, "size_bytes": 1e6}}
    write_json(artifacts / "benchmark" / "latency.json", {"models": times})
    rows = [
        (model, split, path, 1, predicted)
        for model, predicted in (("teacher", 1), ("student-1", 0), ("student-1-int8", 2))
        for split, path in (("test", "a/1.png"), ("test", "a/2.png"), ("validation", "a/3.png"))
    ]
    columns = ["model", "split", "path", "label", "predicted"]
    pd.DataFrame(rows, columns=columns).to_parquet(artifacts / "evaluate" / "predictions.parquet")
    write_json(
        folder / ".kinglet" / "timings.json",
        {
            "finetune": {"started": 10.0, "ended": 70.0, "exit_code": 0},
            "search": {"started": 70.0, "ended": 100.0, "exit_code": 0},
            "evaluate": {"started": 100.0, "ended": 900.0, "exit_code": 0},
        },
    )
    return folder


def test_outcome_is_read_from_what_the_steps_left(tmp_path: Path) -> None:
    answers, facts = out_of_fold.outcome(run_of(tmp_path))
    assert answers.to_dict("list") == {
        "path": ["a/1.png", "a/2.png"],
        "label": [1, 1],
        "teacher": [1, 1],
        "chosen": [2, 2],
    }
    assert facts["training_seconds"] == 90.0
    assert facts["chosen"]["name"] == "student-1-int8"
    assert facts["teacher"]["p50_ms"] == 12.0


def test_teacher_that_is_chosen_itself_is_compared_with_itself(tmp_path: Path) -> None:
    write_json(run_of(tmp_path) / "artifacts" / "select" / "choice.json", {"chosen": "teacher"})
    answers, facts = out_of_fold.outcome(tmp_path)
    assert answers["chosen"].tolist() == answers["teacher"].tolist() == [1, 1]
    assert facts["chosen"] == facts["teacher"]


def test_row_says_what_all_folds_came_to(tmp_path: Path) -> None:
    _, facts = out_of_fold.outcome(run_of(tmp_path))
    interval = {"value": 0.9, "low": 0.88, "high": 0.92}
    spread = {"median": 8.0, "low": 7.0, "high": 9.0}
    figures = {
        "source": "photos",
        "params": "photographs.yaml",
        "set": ["select.latency_ms=2"],
        "images": 2521,
        "teacher": interval,
        "chosen": interval,
        "difference": {"value": -0.01, "low": -0.018, "high": -0.002},
        "times_faster": spread,
        "times_smaller": spread,
        "folds": [facts, facts, facts],
    }
    ((what, goal, measured),) = out_of_fold_rows(figures)
    assert "2,521 photos of photos, `photographs.yaml`, select.latency_ms=2, 224 px" in what
    assert "in each of 3 folds" in what
    assert "-1.00 (-1.80 to -0.20) points" in measured
    assert "8.0 times as fast** (7.0 to 9.0)" in measured
    assert "1 min 30 s a fold" in measured
    assert "-2 points" in goal
