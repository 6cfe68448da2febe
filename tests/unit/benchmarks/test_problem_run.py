"""What a finished run reached is read from what its steps wrote."""

import shutil
from pathlib import Path

import pytest

from benchmarks.problem_run import read_run
from kinglet.atomic import read_json, write_json
from kinglet.errors import KingletError
from tasks.artifacts import BENCHMARK, EVALUATE, POOL_FOLDS, SELECT, SOURCE_FACTS

ROOT = Path(__file__).resolve().parents[3]
BETWEEN = {"value": 0.8, "low": 0.7, "high": 0.9}


def write_run(root: Path) -> None:
    of_model = {"input_size": 512, "precision": "fp32", "test": {"n": 4, "miou": BETWEEN}}
    of_model["difference_to_teacher"] = {"test": dict.fromkeys(BETWEEN, 0.0)}
    names = ("teacher", "teacher-int8")
    scores = {"headline": "miou", "teacher": "teacher", "models": dict.fromkeys(names, of_model)}
    write_json(root / EVALUATE / "scores.json", scores)
    times = {name: {"p50_ms": 10.0 / (1 + place), "size_bytes": 8} for place, name in enumerate(names)}
    write_json(root / BENCHMARK / "latency.json", {"models": times})
    write_json(root / SELECT / "choice.json", {"chosen": "teacher-int8"})
    write_json(root / POOL_FOLDS / "scores.json", {"pooled": [{"repeat": 1, "pixel_accuracy": BETWEEN}]})
    write_json(root / SOURCE_FACTS, {"kind": "folder"})
    shutil.copy(ROOT / "params" / "segmentation.yaml", root / "params.yaml")


def test_teacher_chosen_model_and_folds_are_those_of_the_run(tmp_path: Path) -> None:
    write_run(tmp_path)
    found = read_run(tmp_path, "cells")
    assert (found["problem"], found["headline"], found["test_examples"]) == ("segmentation", "miou", 4)
    assert (found["teacher"]["p50_ms"], found["chosen"]["p50_ms"]) == (10.0, 5.0)
    assert found["chosen"]["name"] == "teacher-int8"
    assert found["out_of_fold"] == {"pixel_accuracy": BETWEEN}
    assert found["generated"] is False


def test_what_a_detector_is_worth_without_vnni_is_taken_along(tmp_path: Path) -> None:
    write_run(tmp_path)
    scores = read_json(tmp_path / EVALUATE / "scores.json")
    scores["models"]["teacher-int8"] = {**scores["models"]["teacher-int8"], "without_vnni": {"n": 4, "score": BETWEEN}}
    write_json(tmp_path / EVALUATE / "scores.json", scores)
    found = read_run(tmp_path, "cells")
    assert found["chosen"]["score_without_vnni"] == BETWEEN
    assert "score_without_vnni" not in found["teacher"]


def test_a_set_that_was_made_is_said_to_be(tmp_path: Path) -> None:
    write_run(tmp_path)
    write_json(tmp_path / SOURCE_FACTS, {**read_json(tmp_path / SOURCE_FACTS), "generated": {"from": "pictures"}})
    assert read_run(tmp_path, "cells")["generated"] is True


def test_a_run_that_is_not_finished_is_refused_with_the_file(tmp_path: Path) -> None:
    write_run(tmp_path)
    (tmp_path / SELECT / "choice.json").unlink()
    with pytest.raises(KingletError, match=r"choice\.json does not exist"):
        read_run(tmp_path, "cells")
