import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow.csv
import pyarrow.parquet
import pytest
import sklearn.metrics

import tasks.adapt
import tasks.evaluate
import tasks.track
from kinglet.atomic import read_json, write_json
from kinglet.errors import KingletError
from kinglet.runtime.preprocessing import prepare
from kinglet.runtime.sessions import open_session, read_metadata
from tests.unit.tasks.small_project import CLASSES, RECIPES, build_project, parameters

ROOT = Path(__file__).parents[3]


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    root = tmp_path_factory.mktemp("project")
    build_project(root)
    before = Path.cwd()
    os.chdir(root)
    tasks.evaluate.run(parameters())
    os.chdir(before)
    return root


@pytest.fixture
def project(built, monkeypatch):
    monkeypatch.chdir(built)
    return built


def predictions(model, split):
    table = pyarrow.parquet.read_table("artifacts/evaluate/predictions.parquet")
    rows = table.to_pandas()
    return rows[(rows.model == model) & (rows.split == split)]


def test_scores_of_a_domain_are_those_of_its_images_alone(built, tmp_path, monkeypatch):
    shutil.copytree(built, tmp_path / "copy")
    monkeypatch.chdir(tmp_path / "copy")
    scores, file = Path("artifacts/evaluate/scores.json"), Path("artifacts/split/manifest.parquet")
    manifest = pd.read_parquet(file)
    manifest["domain"] = np.where(np.arange(len(manifest)) % 5 < 2, "yard", "hall")
    manifest.to_parquet(file, index=False)
    tasks.evaluate.run(parameters())
    before = read_json(scores)["models"]["teacher"]["by_domain"]
    assert list(before) == ["hall", "yard"]
    manifest[(manifest["split"] != "test") | (manifest["domain"] == "yard")].to_parquet(file, index=False)
    tasks.evaluate.run(parameters())
    after = read_json(scores)["models"]["teacher"]
    assert before["yard"] == {"n": after["test"]["n"], "accuracy": after["test"]["accuracy"]}
    assert "by_domain" not in after


def test_every_model_is_scored_on_both_held_out_splits(project):
    scores = read_json(Path("artifacts/evaluate/scores.json"))
    assert set(scores["models"]) == {recipe.name for recipe in RECIPES}
    for model in scores["models"].values():
        for split in ("validation", "test"):
            of_split = model[split]
            assert of_split["n"] == 40
            for name in ("accuracy", "f1_macro"):
                assert of_split[name]["low"] <= of_split[name]["value"] <= of_split[name]["high"]
            assert np.sum(of_split["confusion"]) == 40
            assert set(of_split["per_class"]) == set(CLASSES)
            assert of_split["top_3_accuracy"] >= of_split["accuracy"]["value"]
    teacher = scores["models"]["teacher"]["difference_to_teacher"]
    assert teacher["test"]["value"] == 0


def test_no_output_is_an_empty_folder_that_dvc_would_warn_of(project):
    tasks.adapt.run(parameters(adapt={"models": []}))
    tasks.track.run(parameters())
    for folder in ("evaluate/masks", "adapt/models", "track/results"):
        assert [file.name for file in Path("artifacts", folder).iterdir()] == ["README.txt"]


def test_scores_follow_from_the_predictions(project):
    scores = read_json(Path("artifacts/evaluate/scores.json"))["models"]
    teacher = predictions("teacher", "test")
    for name, model in scores.items():
        rows = predictions(name, "test")
        assert model["test"]["accuracy"]["value"] == pytest.approx((rows.label == rows.predicted).mean())
        f1 = sklearn.metrics.f1_score(rows.label, rows.predicted, average="macro")
        assert model["test"]["f1_macro"]["value"] == pytest.approx(f1, abs=1e-6)
        right, right_teacher = (
            (rows.label == rows.predicted).to_numpy(),
            (teacher.label == teacher.predicted).to_numpy(),
        )
        difference = right.mean() - right_teacher.mean()
        assert model["difference_to_teacher"]["test"]["value"] == pytest.approx(difference, abs=1e-6)


def test_every_score_has_its_interval(project):
    scores = read_json(Path("artifacts/evaluate/scores.json"))
    found = read_json(Path("artifacts/evaluate/intervals.json"))["models"]
    assert set(found) == set(scores["models"])
    for name, of_model in found.items():
        of_test = scores["models"][name]["test"]
        single = {score for score, value in of_test.items() if isinstance(value, float)} | {"accuracy", "f1_macro"}
        assert set(of_model) == single | {"per_class"}
        for score in single:
            value = of_test[score]["value"] if isinstance(of_test[score], dict) else of_test[score]
            assert of_model[score]["value"] == pytest.approx(value, abs=1e-5)
            assert of_model[score]["low"] <= of_model[score]["value"] <= of_model[score]["high"]
        assert of_model["accuracy"] == of_test["accuracy"]
        for label in CLASSES:
            for score in ("precision", "recall", "f1"):
                assert of_model["per_class"][label][score]["value"] == pytest.approx(of_test["per_class"][label][score])


def test_predictions_are_those_of_the_onnx_file_on_the_packed_images(project):
    folder = Path("artifacts/distill/student")
    session = open_session(folder / "model.onnx")
    preprocessing, _ = read_metadata(session)
    packed = np.load("artifacts/ingest/images_16.npy")
    rows = predictions("student", "validation")
    logits = session.run(None, {"images": prepare(list(packed[rows["index"]]), preprocessing)})[0]
    np.testing.assert_array_equal(rows.predicted, logits.argmax(axis=1))
    exponentials = np.exp(logits - logits.max(axis=1, keepdims=True))
    expected = exponentials / exponentials.sum(axis=1, keepdims=True)
    np.testing.assert_allclose(np.stack(rows.probabilities), expected, atol=1e-5)
    np.testing.assert_allclose(rows.confidence, expected.max(axis=1), atol=1e-5)


def test_confusion_table_holds_the_teachers_test_answers(project):
    table = pyarrow.csv.read_csv("artifacts/evaluate/confusion.csv").to_pandas()
    assert list(table.columns) == ["actual", "predicted"]
    expected = read_json(Path("artifacts/evaluate/scores.json"))["models"]["teacher"]["test"]["confusion"]
    own = sklearn.metrics.confusion_matrix(table.actual, table.predicted, labels=CLASSES)
    np.testing.assert_array_equal(own, expected)


def test_running_again_gives_the_same_bytes(project):
    files = sorted(path for path in Path("artifacts/evaluate").rglob("*") if path.is_file())
    before = [path.read_bytes() for path in files]
    tasks.evaluate.run(parameters())
    assert [path.read_bytes() for path in files] == before


def test_a_model_of_other_classes_is_refused(tmp_path, monkeypatch):
    build_project(tmp_path, n=64)
    monkeypatch.chdir(tmp_path)
    write_json(Path("artifacts/split/classes.json"), ["a", "b", "c", "d"])
    with pytest.raises(KingletError, match="other classes"):
        tasks.evaluate.run(parameters())


def test_an_empty_test_split_is_one_sentence_and_exit_code_2(tmp_path):
    build_project(tmp_path, n=8)  # too few to reach the test split
    (tmp_path / "params.yaml").write_text((ROOT / "params.yaml").read_text())
    finished = subprocess.run(
        [sys.executable, "-m", "tasks.evaluate"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
    )
    assert finished.returncode == 2, finished.stderr
    assert "split has no images" in finished.stderr
    assert "Traceback" not in finished.stderr
    assert not (tmp_path / "artifacts" / "evaluate").exists()
