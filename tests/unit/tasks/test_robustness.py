import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import tasks.artifacts
import tasks.chapters.robustness
import tasks.evaluate
import tasks.robustness
from kinglet.atomic import read_json, write_json
from kinglet.errors import KingletError
from kinglet.evidence.corruptions.kinds import KINDS, corrupt
from kinglet.evidence.corruptions.shifts import SHIFTS
from kinglet.evidence.corruptions.streams import image_keys
from kinglet.runtime.preprocessing import prepare
from kinglet.runtime.sessions import open_session, read_metadata
from tests.unit.tasks.small_project import RECIPES, build_project, parameters

ROOT = Path(__file__).parents[3]
SCORES = Path("artifacts/robustness/scores.json")


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    root = tmp_path_factory.mktemp("project")
    build_project(root)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(root)
        tasks.evaluate.run(parameters())
        tasks.robustness.run(parameters(robustness={"images": "all"}))
    return root


@pytest.fixture
def project(built, monkeypatch):
    monkeypatch.chdir(built)
    return built


def test_every_model_has_scores_for_every_way(project):
    scores = read_json(SCORES)
    assert (scores["images"], scores["test_images"], scores["image_size"]) == (40, 40, 24)
    assert scores["published"] == "CIFAR-10-C"
    assert set(scores["models"]) == {recipe.name for recipe in RECIPES}
    for of_model in scores["models"].values():
        assert set(of_model["kinds"]) == set(KINDS)
        assert set(of_model["shifts"]) == set(SHIFTS)
        for row in [*of_model["kinds"].values(), *of_model["shifts"].values(), of_model["calibration"]["severities"]]:
            assert len(row) == 5
            assert all(0 <= value <= 1 for value in row)
        mean = of_model["mean_corruption_accuracy"]
        assert mean["value"] == pytest.approx(np.mean(list(of_model["kinds"].values())), abs=1e-5)
        assert mean["value"] == pytest.approx(np.mean(of_model["severities"]), abs=1e-5)
        assert mean["low"] <= mean["value"] <= mean["high"]
    teacher = scores["models"][scores["teacher"]]
    assert teacher["difference_to_teacher"] == teacher["beyond_clean"] == {"value": 0, "low": 0, "high": 0}
    assert teacher["robustness"] == "kept"
    for of_model in scores["models"].values():
        difference = of_model["mean_corruption_accuracy"]["value"] - teacher["mean_corruption_accuracy"]["value"]
        assert of_model["difference_to_teacher"]["value"] == pytest.approx(difference, abs=2e-6)


def test_clean_accuracy_is_that_of_evaluate(project):
    evaluated = read_json(Path("artifacts/evaluate/scores.json"))["models"]["teacher"]["test"]
    of_teacher = read_json(SCORES)["models"]["teacher"]
    assert of_teacher["clean_accuracy"] == pytest.approx(evaluated["accuracy"]["value"], abs=1e-6)
    assert of_teacher["calibration"]["clean"] == pytest.approx(evaluated["ece"], abs=1e-6)


@pytest.mark.parametrize("way", ["contrast", "impulse_noise", "brighter"])
def test_a_score_is_that_of_the_onnx_file_on_images_corrupted_one_by_one(project, way):
    images = np.load("artifacts/ingest/images_24.npy")
    held_out = tasks.held_out.read_held_out("test")
    session = open_session(Path("artifacts/distill/student/model.onnx"), 1)
    preprocessing, _ = read_metadata(session)
    right = []
    for row, label in zip(held_out.rows, held_out.labels, strict=True):
        alone = images[row : row + 1]
        changed = corrupt(alone, way, 4, image_keys(alone))
        logits = session.run(None, {"images": prepare(list(changed), preprocessing)})[0]
        right.append(logits.argmax() == label)
    of_student = read_json(SCORES)["models"]["student"]
    assert {**of_student["kinds"], **of_student["shifts"]}[way][3] == pytest.approx(np.mean(right), abs=1e-6)


def test_bytes_do_not_depend_on_the_number_of_processors(project, tmp_path):
    code = (
        "import os; os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})\n"
        "import tasks.robustness; from tests.unit.tasks.small_project import parameters\n"
        "tasks.robustness.run(parameters(robustness={'images': 'all'}))"
    )
    before = {path.name: path.read_bytes() for path in SCORES.parent.iterdir()}
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    subprocess.run([sys.executable, "-c", code], check=True, env=environment, capture_output=True)
    assert {path.name: path.read_bytes() for path in SCORES.parent.iterdir()} == before


def test_twenty_gray_images_and_chosen_models(tmp_path, monkeypatch):
    build_project(tmp_path, n=80, channels=1)
    monkeypatch.chdir(tmp_path)
    tasks.robustness.run(parameters(robustness={"models": ["student"], "images": 1000}))
    scores = read_json(SCORES)
    assert scores["images"] == 20
    assert set(scores["models"]) == {"teacher", "student"}
    pictures = np.load("artifacts/robustness/pictures.npy")
    assert pictures.shape == (len(KINDS) + len(SHIFTS), 5, 24, 24, 1)


@pytest.mark.parametrize(
    ("images", "edge", "count"), [("auto", 48, 173), ("auto", 224, 100), ("auto", 16, 500), (7, 48, 7), ("all", 48, 40)]
)
def test_the_number_of_images_follows_their_size(project, images, edge, count):
    settings = parameters(robustness={"images": images}).robustness
    assert tasks.robustness.image_count(settings, tasks.held_out.read_held_out("test"), edge) == count


@pytest.mark.parametrize(("short_side", "size"), [(24, 24), (20, 24), (16, 16), (10, 16), (3000, 24), (0, 16)])
def test_images_are_corrupted_at_the_size_that_they_came_in(project, monkeypatch, tmp_path, short_side, size):
    facts = read_json(Path("artifacts/ingest/source.json"))
    monkeypatch.chdir(tmp_path)
    write_json(Path("artifacts/ingest/source.json"), {**facts, "short_side": short_side})
    assert tasks.artifacts.base_size() == size


def test_an_unknown_model_is_refused_and_nothing_written(tmp_path, monkeypatch):
    build_project(tmp_path, n=80)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(KingletError, match=r"robustness\.models names nobody; known: teacher, "):
        tasks.robustness.run(parameters(robustness={"models": ["nobody"]}))
    assert not SCORES.parent.exists()


def test_the_chapter_shows_the_chosen_model_beside_the_teacher(project):
    chapter = tasks.chapters.robustness.robustness_chapter("student", 0.95)
    scores = read_json(SCORES)["models"]
    assert chapter["shown"] == ["teacher", "student"]
    rows = {row["name"]: row for group in chapter["groups"] for row in group["rows"]}
    assert len(rows) == 19
    assert rows["fog"]["accuracies"] == [scores["teacher"]["kinds"]["fog"], scores["student"]["kinds"]["fog"]]
    assert rows["fog"]["changes"][2] == scores["student"]["kinds"]["fog"][2] - scores["teacher"]["kinds"]["fog"][2]
    assert chapter["verdict"].startswith("student is right on ")
    assert len(chapter["pictures"]) == 19


@pytest.mark.parametrize("chosen", ["teacher", "student-dense"])
def test_a_teacher_or_a_model_without_scores_stands_alone(project, chosen):
    chapter = tasks.chapters.robustness.robustness_chapter(chosen, 0.95)
    assert chapter["shown"] == ["teacher"]
    assert ("student-dense was not scored" in chapter["verdict"]) == (chosen == "student-dense")


def test_the_benchmark_measures_the_same_answers(project, tmp_path):
    command = [sys.executable, "-m", "benchmarks.robustness_speed", "--run", str(project), "--results", str(tmp_path)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    subprocess.run([*command, "--models", "student"], check=True, env=environment, cwd=ROOT, capture_output=True)
    figures = read_json(tmp_path / "robustness_speed.json")["figures"]
    scores = read_json(SCORES)["models"]
    assert (figures["images"], figures["corruptions"], figures["models"]) == (40, 75, ["teacher", "student"])
    assert figures["mean_corruption_accuracy"] == {
        name: pytest.approx(scores[name]["mean_corruption_accuracy"]["value"], abs=1e-4)
        for name in ("teacher", "student")
    }
    assert figures["wall_seconds"] > 0
