import hashlib
import shutil
from pathlib import Path

import pytest

import tasks.benchmark
from kinglet.atomic import read_json
from kinglet.errors import KingletError
from kinglet.runtime.engines import version_of
from tasks.benchmark import Subject
from tests.unit.conversion.runtimes import needs
from tests.unit.tasks.small_project import RECIPES, build_project, parameters

LATENCY = Path("artifacts/benchmark/latency.json")


@pytest.fixture
def project(tmp_path, monkeypatch):
    build_project(tmp_path, n=48)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("KINGLET_CACHE", str(tmp_path / "cache"))
    return tmp_path


def test_every_model_is_measured_once_and_reruns_give_the_same_bytes(project):
    tasks.benchmark.run(parameters())
    first = LATENCY.read_bytes()
    table = (project / "cache" / "latency.json").read_bytes()
    written = read_json(LATENCY)
    assert set(written["models"]) == {recipe.name for recipe in RECIPES}
    for recipe in RECIPES:
        numbers = written["models"][recipe.name]
        file = Path("artifacts", recipe.step, recipe.name, "model.onnx")
        assert 0 < numbers["p50_low_ms"] <= numbers["p50_ms"] <= numbers["p50_high_ms"]
        assert numbers["p50_ms"] <= numbers["p99_ms"]
        assert set(numbers["throughput_per_s"]) == {"1", "4"}
        assert numbers["size_bytes"] == file.stat().st_size
        assert numbers["sha256"] == hashlib.sha256(file.read_bytes()).hexdigest()
        assert numbers["peak_memory_mb"] > 0

    LATENCY.unlink()
    tasks.benchmark.run(parameters())
    assert LATENCY.read_bytes() == first
    assert (project / "cache" / "latency.json").read_bytes() == table

    # A changed model is measured anew, together with the others; equal files under two names are one.
    shutil.copy("artifacts/distill/student/model.onnx", "artifacts/prune/student-pruned/model.onnx")
    tasks.benchmark.run(parameters())
    models = read_json(LATENCY)["models"]
    assert models["student"] == models["student-pruned"]


def test_more_threads_than_processors_are_refused(project):
    with pytest.raises(KingletError, match=r"benchmark\.threads is 5000"):
        tasks.benchmark.run(parameters(benchmark={"threads": 5000}))
    assert not LATENCY.exists()


@needs("opencv")
def test_a_model_is_known_by_all_its_files_and_by_its_runtime(tmp_path):
    one, other = tmp_path / "one", tmp_path / "other"
    one.write_bytes(b"1")
    other.write_bytes(b"2")
    shape = (3, 16, 16)
    key = Subject("onnxruntime", [one], shape).key
    assert key == hashlib.sha256(b"1").hexdigest()
    # The same bytes in another runtime, or in another version of it, are another measurement.
    assert Subject("opencv", [one], shape).key == f"opencv {version_of('opencv')} {key}"
    both = Subject("onnxruntime", [one, other], shape).key
    other.write_bytes(b"3")
    assert len({key, both, Subject("onnxruntime", [one, other], shape).key}) == 3
