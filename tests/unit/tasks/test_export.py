"""Models converted for other runtimes, from the step that makes them to the bundle that is opened with them."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import kinglet.conversion
import tasks.benchmark
import tasks.bundle
import tasks.compare
import tasks.evaluate
import tasks.export
import tasks.gate
import tasks.report
import tasks.robustness
import tasks.select
from kinglet.atomic import read_json, write_json
from kinglet.errors import KingletError
from kinglet.runtime import bundles
from kinglet.runtime.predictor import Predictor
from tasks.artifacts import ModelCard, model_folders, read_card
from tests.unit.conversion.runtimes import is_installed, needs
from tests.unit.tasks.small_project import RECIPES, build_project, parameters

SUMMARY = Path("artifacts/export/export.json")
BUNDLE = Path("artifacts/bundle")


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("project")
    build_project(root, n=96, channels=1)
    return root


@pytest.fixture
def project(built: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    shutil.copytree(built, tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("KINGLET_CACHE", str(tmp_path / "cache"))
    return tmp_path


def export(*runtimes: str, models: tuple[str, ...] = ()) -> dict[str, Any]:
    tasks.export.run(parameters(export={"runtimes": list(runtimes), "models": list(models)}))
    return read_json(SUMMARY)


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def test_without_runtimes_nothing_is_exported_and_what_was_is_gone(project: Path) -> None:
    export("opencv", models=("student",))
    assert export() == {"exported": {}, "left_out": {}}
    assert sorted(Path("artifacts/export").iterdir()) == [SUMMARY]


@needs("opencv")
def test_every_model_gets_a_card_its_files_and_a_comparison_and_reruns_give_the_same_bytes(project: Path) -> None:
    summary = export("opencv")
    assert sorted(summary["exported"]) == sorted(f"{recipe.name}-opencv" for recipe in RECIPES)
    for recipe in RECIPES:
        folder = Path("artifacts/export", f"{recipe.name}-opencv")
        card = read_card(folder)
        assert (card.name, card.step, card.parent, card.runtime) == (folder.name, "export", recipe.name, "opencv")
        original = Path("artifacts", recipe.step, recipe.name, "model.onnx")
        assert (folder / "model.onnx").read_bytes() == original.read_bytes()
        fidelity = card.notes["fidelity"]
        assert card.notes == summary["exported"][card.name]
        assert fidelity["images"] == 24
        assert fidelity["agreement"] == 1
        assert fidelity["largest_difference"] < 1e-4 < fidelity["spread"]
        assert card.notes["runtime_version"][0].isdigit()
    assert {folder.parent.name for folder in model_folders()} == {recipe.step for recipe in RECIPES} | {"export"}
    before = contents(Path("artifacts/export"))
    export("opencv")
    assert contents(Path("artifacts/export")) == before


@needs("opencv")
def test_an_int8_models_differences_are_explained(project: Path) -> None:
    # The project's is float by its content; what counts is what its card says.
    notes = export("opencv", models=("teacher-int8",))["exported"]["teacher-int8-opencv"]
    assert "integer layers" in notes["arithmetic"]
    assert notes["fidelity_to_file_as_written"]["images"] == 24
    assert notes["fidelity_of_onnxruntime_to_file_as_written"]["agreement"] == 1


def swap(monkeypatch: pytest.MonkeyPatch, original: str) -> None:
    """Let the conversion for OpenCV write another model's file, whatever it is asked to convert."""

    def convert(_: Path, folder: Path) -> None:
        shutil.copyfile(Path("artifacts", original, "model.onnx"), folder / "model.onnx")

    monkeypatch.setitem(kinglet.conversion.CONVERTERS, "opencv", convert)


@needs("opencv")
def test_a_float_model_that_answers_differently_is_refused_and_nothing_is_left_of_it(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    swap(monkeypatch, "distill/student")
    with pytest.raises(KingletError) as caught:
        export("opencv", models=("student-pruned",))
    assert "OpenCV gives student-pruned's class for" in caught.value.message
    assert "at least 99.5 % are needed of a float model" in caught.value.message
    assert not list(Path("artifacts/export").glob("*"))


@needs("opencv")
def test_an_int8_model_that_answers_differently_is_warned_of(
    project: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    card = read_json(Path("artifacts/prune/student-pruned/model.json"))
    write_json(Path("artifacts/prune/student-pruned/model.json"), {**card, "precision": "int8"})
    swap(monkeypatch, "distill/student")
    exported = export("opencv", models=("student-pruned",))["exported"]["student-pruned-opencv"]
    assert exported["fidelity"]["agreement"] < 0.995
    assert "warning: OpenCV gives student-pruned's class for" in capsys.readouterr().err


@needs("opencv")
def test_what_a_runtime_cannot_read_is_left_out_with_the_reason_and_an_error_where_it_is_named(
    project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    original = Path("artifacts/distill/student/model.onnx").read_bytes()
    unreadable = original.replace(b"AveragePool", b"AveragePoor")

    def convert(model: Path, folder: Path) -> None:
        content = model.read_bytes()
        (folder / "model.onnx").write_bytes(unreadable if content == original else content)

    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(kinglet.conversion.CONVERTERS, "opencv", convert)
        summary = export("opencv")
        assert sorted(summary["exported"]) == ["student-pruned-opencv", "teacher-int8-opencv", "teacher-opencv"]
        said = summary["left_out"]["student-opencv"]
        assert said.startswith("artifacts/distill/student/model.onnx cannot be loaded by OpenCV")
        assert f"warning: student-opencv is left out: {said}" in capsys.readouterr().err
        assert not Path("artifacts/export/student-opencv").exists()
        with pytest.raises(KingletError, match="cannot be loaded by OpenCV") as caught:
            export("opencv", models=("student",))
    assert "export.models" in caught.value.hint


@needs("opencv")
def test_a_converted_model_is_scored_timed_chosen_and_bundled_like_any_other(project: Path) -> None:
    runtime = "openvino" if is_installed("openvino") else "opencv"  # the one with several files where it is there
    for folder in ("prune/student-pruned", "quantize/teacher-int8"):
        shutil.rmtree(Path("artifacts", folder))
    export(runtime, models=("student",))
    name = f"student-{runtime}"
    for task in (tasks.evaluate, tasks.benchmark):
        task.run(parameters())
    scores = read_json(Path("artifacts/evaluate/scores.json"))["models"]
    assert scores[name]["test"]["accuracy"] == scores["student"]["test"]["accuracy"]
    latencies = read_json(Path("artifacts/benchmark/latency.json"))["models"]
    files = [path for path in Path("artifacts/export", name).iterdir() if path.name != "model.json"]
    assert latencies[name]["runtime"].startswith(f"{runtime} ")
    assert latencies[name]["size_bytes"] == sum(path.stat().st_size for path in files)
    assert latencies[name]["peak_memory_mb"] > 0
    # The same bytes in two runtimes are two measurements.
    assert latencies[name]["p50_ms"] != latencies["student"]["p50_ms"]
    assert "runtime" not in latencies["student"]

    for model, numbers in latencies.items():  # the other models are slower, whatever the machine says
        for key in ("p50_ms", "p50_low_ms", "p50_high_ms"):
            numbers[key] += 0 if model == name else 1000
    benchmark = read_json(Path("artifacts/benchmark/latency.json"))
    write_json(Path("artifacts/benchmark/latency.json"), {**benchmark, "models": latencies})
    tasks.select.run(parameters())
    assert read_json(Path("artifacts/select/choice.json"))["chosen"] == name
    tasks.bundle.run(parameters())
    assert {path.name for path in BUNDLE.iterdir()} == {path.name for path in files} | {
        "MODEL_CARD.md",
        "SHA256SUMS",
        "golden.npz",
        "labels.json",
        "reference.json",
        "preprocessing.json",
    }
    predictor = Predictor(BUNDLE, threads=1)
    assert (predictor.runtime, predictor.model_file) == (runtime, sorted(path.name for path in files)[-1])
    with np.load(BUNDLE / "golden.npz") as golden:
        assert golden["tolerance"] == bundles.GOLDEN_TOLERANCE
        answers = predictor.predict(list(golden["images"]))
        np.testing.assert_allclose(answers.probabilities, golden["probabilities"], atol=1e-5)
    card = (BUNDLE / "MODEL_CARD.md").read_text()
    assert f"Measured on {benchmark['device']['cpu']} with {latencies[name]['runtime']}." in card
    assert "Converted from the ONNX file of `student`" in card

    for task in (tasks.compare, tasks.robustness, tasks.gate, tasks.report):
        task.run(parameters())
    page = Path("artifacts/report/report.html").read_text()
    assert name in page
    assert "converted" in page

    (BUNDLE / files[0].name).unlink()
    with pytest.raises(KingletError, match="is missing from the bundle"):
        Predictor(BUNDLE)


def test_a_card_of_before_there_were_other_runtimes_is_one_of_onnx_runtime(project: Path) -> None:
    path = Path("artifacts/distill/student/model.json")
    fields = read_json(path)
    del fields["runtime"]
    write_json(path, fields)
    card = read_card(path.parent)
    assert isinstance(card, ModelCard)
    assert (card.runtime, card.file_names) == ("onnxruntime", ("model.onnx",))


def test_a_model_that_no_step_made_is_named_with_those_that_are_there(project: Path) -> None:
    with pytest.raises(KingletError, match=r"export\.models names big; known: teacher, student, student-pruned"):
        export("opencv", models=("big",))
