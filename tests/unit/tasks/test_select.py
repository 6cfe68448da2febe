import csv
from pathlib import Path

import pytest

import tasks.select
from kinglet.atomic import read_json, write_json
from kinglet.errors import KingletError
from tests.unit.tasks.small_project import parameters

CHOICE = Path("artifacts/select/choice.json")

# name: step, median latency in ms, size in bytes, validation accuracy, test accuracy
MODELS = {
    "teacher": ("finetune", 1.6, 13_600_000, 0.940, 0.930),
    "student": ("distill", 0.09, 500_000, 0.934, 0.900),
    "student-int8": ("quantize", 0.15, 200_000, 0.933, 0.950),
    "beaten": ("distill", 0.2, 600_000, 0.930, 0.940),
    "tiny": ("prune", 0.05, 100_000, 0.910, 0.940),
}


def interval(value, spread):
    return {"value": value, "low": value - spread, "high": value + spread}


@pytest.fixture(autouse=True)
def project(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    scores, latencies = {}, {}
    for name, (step, latency, size, validation, test) in MODELS.items():
        scores[name] = {
            "step": step,
            "runtime": "onnxruntime",
            "validation": {"accuracy": interval(validation, 0.005)},
            "test": {"accuracy": interval(test, 0.005)},
            "difference_to_teacher": {
                "validation": interval(round(validation - 0.94, 6), 0.003),
                "test": interval(round(test - 0.93, 6), 0.003),
            },
        }
        latencies[name] = {
            "p50_ms": latency,
            "p50_low_ms": latency * 0.99,
            "p50_high_ms": latency * 1.01,
            "size_bytes": size,
        }
    write_json(Path("artifacts/evaluate/scores.json"), {"models": scores})
    write_json(Path("artifacts/benchmark/latency.json"), {"models": latencies})


@pytest.mark.parametrize(
    ("limits", "expected"),
    [
        ({"max_accuracy_drop": 0.01}, "student"),  # by validation; by test it would be tiny
        ({"max_accuracy_drop": 0.03}, "tiny"),
        ({"max_accuracy_drop": 0.01, "size_mb": 0.3}, "student-int8"),
        ({"max_accuracy_drop": 0.0, "max_doubt": None}, "teacher"),
        ({"max_accuracy_drop": 0.03, "max_doubt": 0.003}, "tiny"),
    ],
)
def test_the_fastest_model_within_the_limits_is_chosen_by_validation(limits, expected):
    tasks.select.run(parameters(select=limits))
    choice = read_json(CHOICE)
    assert choice["chosen"] == expected
    assert choice["onnx"] == choice["model"] == f"artifacts/{MODELS[expected][0]}/{expected}/model.onnx"
    assert choice["runtime"] == "onnxruntime"
    assert choice["candidates"] == sorted(MODELS)
    assert choice["front"] == ["tiny", "student", "student-int8", "teacher"]
    assert expected in choice["reason"]


def test_a_model_of_another_runtime_is_chosen_like_any_other_and_its_onnx_file_is_named():
    for path, changes in (
        ("evaluate/scores.json", {"step": "export", "runtime": "openvino", "parent": "student"}),
        ("benchmark/latency.json", {"p50_ms": 0.04, "p50_low_ms": 0.039, "p50_high_ms": 0.041}),
    ):
        content = read_json(Path("artifacts", path))
        content["models"]["student-openvino"] = {**content["models"]["student"], **changes}
        write_json(Path("artifacts", path), content)
    tasks.select.run(parameters(select={"max_accuracy_drop": 0.01}))
    choice = read_json(CHOICE)
    assert (choice["chosen"], choice["runtime"]) == ("student-openvino", "openvino")
    assert choice["model"] == "artifacts/export/student-openvino/model.xml"
    assert choice["onnx"] == "artifacts/distill/student/model.onnx"


def test_the_front_is_a_table_for_plots():
    tasks.select.run(parameters(select={"max_accuracy_drop": 0.01}))
    with Path("artifacts/select/front.csv").open() as opened:
        rows = list(csv.DictReader(opened))
    assert [row["model"] for row in rows] == ["tiny", "student", "student-int8", "beaten", "teacher"]
    assert [row["on_front"] for row in rows] == ["true", "true", "true", "false", "true"]
    assert float(rows[1]["latency_ms"]) == 0.09


def test_a_budget_that_nothing_meets_names_the_three_nearest_and_writes_nothing():
    with pytest.raises(KingletError) as caught:
        tasks.select.run(parameters(select={"max_accuracy_drop": 0.01, "latency_ms": 0.08}))
    message = caught.value.message
    assert "(at most 1 points below the teacher, at most 0.08 ms)" in message
    assert "student (0.09 ms, 0.01 ms too slow)" in message
    assert "student-int8 (0.15 ms, 0.07 ms too slow)" in message
    assert "beaten (0.2 ms" in message
    assert "teacher (" not in message
    assert "params.yaml" in caught.value.hint
    assert not CHOICE.exists()


def test_scores_and_latencies_of_different_models_are_refused():
    latencies = read_json(Path("artifacts/benchmark/latency.json"))
    del latencies["models"]["tiny"]
    write_json(Path("artifacts/benchmark/latency.json"), latencies)
    with pytest.raises(KingletError, match="different models: tiny"):
        tasks.select.run(parameters())
