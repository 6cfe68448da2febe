"""robustness, gate and report for detectors, on photos of squares: what is found, decided and shown."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import tasks.compare
import tasks.evaluate
import tasks.gate
import tasks.image_gate
import tasks.report
import tasks.robustness
import tasks.select
from kinglet.atomic import read_json, write_json
from kinglet.errors import KingletError
from kinglet.evidence.bootstrap import Interval
from kinglet.evidence.corruptions.kinds import KINDS
from tests.unit.tasks.detector_project import (
    BAD,
    SMALL,
    TEACHER,
    Recipe,
    build_detector_project,
    latency_of,
    parameters,
    write_bundle,
    write_detector,
)
from tests.unit.tasks.page_of_controls import assert_a_control_is_on_the_page
from tests.unit.tasks.test_report import Tags

SCORES, VERDICT = Path("artifacts/robustness/scores.json"), Path("artifacts/gate/verdict.json")
REPORT, CHOICE = Path("artifacts/report/report.html"), Path("artifacts/select/choice.json")
LENIENT = {"max_accuracy_drop": 0.3, "max_class_drop": 0.5, "max_robustness_drop": 0.5, "min_class_accuracy": 0.2}


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    root = tmp_path_factory.mktemp("project")
    build_detector_project(root, recipes=(TEACHER, SMALL, BAD))
    checks = read_json(root / "artifacts/check_data/checks.json")
    write_json(root / "artifacts/check_data/checks.json", {**checks, "n_critical": 0})
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(root)
        for step in (tasks.evaluate, tasks.compare, tasks.select, tasks.robustness):
            step.run(parameters())
        write_bundle(root, SMALL)
        tasks.gate.run(parameters(gate=LENIENT))
        tasks.report.run(parameters())
    return root


@pytest.fixture
def project(built, monkeypatch):
    monkeypatch.chdir(built)
    return built


@pytest.fixture
def copied(built, tmp_path, monkeypatch):
    """The project to change: a copy."""
    shutil.copytree(built, tmp_path / "copy")
    monkeypatch.chdir(tmp_path / "copy")
    return tmp_path / "copy"


def outcomes(verdict):
    return {check["name"]: check["outcome"] for check in verdict["checks"]}


def test_detectors_are_scored_in_75_corruptions_beside_the_teacher(project):
    scores = read_json(SCORES)
    assert (scores["images"], scores["test_images"], scores["teacher"]) == (8, 20, "teacher")
    for name, of_model in scores["models"].items():
        assert set(of_model["kinds"]) == set(KINDS)
        table = np.array(list(of_model["kinds"].values()))
        assert table.shape == (15, 5)
        assert of_model["mean_corruption_map_50"]["value"] == pytest.approx(table.mean(), abs=1e-5)
        np.testing.assert_allclose(of_model["severities"], table.mean(axis=0), atol=1e-5)
        difference = of_model["difference_to_teacher"]
        teacher = scores["models"]["teacher"]["mean_corruption_map_50"]["value"]
        assert difference["value"] == pytest.approx(table.mean() - teacher, abs=1e-5)
        assert name != "teacher" or difference == {"value": 0, "low": 0, "high": 0}
    # Squares are bright, and what hides brightness hides them.
    teacher = scores["models"]["teacher"]
    assert teacher["mean_corruption_map_50"]["value"] < teacher["clean_map_50"]
    answers = pd.read_parquet("artifacts/robustness/answers.parquet")
    assert len(answers) == 3 * 8
    assert (answers["clean"] <= answers["objects"]).all()
    assert (answers["corrupted"] <= 75 * answers["objects"]).all()


def test_corrupted_scores_are_the_same_every_time(copied):
    before = SCORES.read_bytes()
    tasks.robustness.run(parameters())
    assert SCORES.read_bytes() == before


def test_the_gate_accepts_a_detector_that_stays_within_its_policy(project):
    verdict = read_json(VERDICT)
    assert verdict["verdict"] == "accepted"
    assert (
        outcomes(verdict)["mAP50"] == outcomes(verdict)["every class"] == outcomes(verdict)["class losses"] == "passed"
    )
    assert outcomes(verdict)["golden answers"] == "not judged"
    scores = read_json(Path("artifacts/evaluate/scores.json"))["models"]
    assert verdict["map_50"]["challenger"] == scores[SMALL.name]["test"]["map_50"]
    assert verdict["map_50"]["reference"] == scores[TEACHER.name]["test"]["map_50"]
    assert re.search(r"Its mAP50 is [\d.]+ %.* on 20 test images, that of the teacher [\d.]+ %", verdict["paragraph"])


@pytest.mark.parametrize(
    ("policy", "failed", "said"),
    [
        ({"max_accuracy_drop": 0.0}, "mAP50", "Not established|Shown to be more"),
        ({"min_class_accuracy": 0.99}, "every class", "Below the floor"),
        ({"size_mb": 0.1}, "size", "above the limit"),
    ],
)
def test_the_gate_refuses_with_the_reason(copied, policy, failed, said):
    tasks.gate.run(parameters(gate={**LENIENT, **policy}))
    verdict = read_json(VERDICT)
    assert verdict["verdict"] == "refused"
    assert outcomes(verdict)[failed] == "failed"
    assert re.search(said, verdict["paragraph"])


def test_a_bad_challenger_loses_classes(copied):
    write_json(CHOICE, {**read_json(CHOICE), "chosen": BAD.name})
    write_bundle(copied, BAD)
    tasks.gate.run(parameters(gate={**LENIENT, "max_class_drop": 0.05}))
    assert outcomes(read_json(VERDICT))["class losses"] == outcomes(read_json(VERDICT))["mAP50"] == "failed"


def test_a_champion_takes_the_teachers_place(copied, monkeypatch):
    write_bundle(copied, TEACHER, Path("champion"))
    # What `benchmark` measures of two bundles is tested there.
    speed = Interval(1.0, 0.9, 1.1)
    monkeypatch.setattr(tasks.image_gate, "side_by_side", lambda *_: (speed, speed))
    tasks.gate.run(parameters(gate=LENIENT))
    verdict = read_json(VERDICT)
    assert verdict["reference"] == "champion"
    of_teacher = read_json(Path("artifacts/evaluate/scores.json"))["models"][TEACHER.name]["test"]["map_50"]
    assert verdict["map_50"]["reference"] == of_teacher
    assert "replace the champion" in verdict["paragraph"]


def test_a_bundle_of_another_model_is_refused(copied):
    write_bundle(copied, TEACHER)
    with pytest.raises(KingletError, match="does not hold teacher-int8"):
        tasks.gate.run(parameters())


def test_the_page_is_well_formed_and_loads_nothing(project):
    page, tags = REPORT.read_text(), Tags()
    tags.feed(page)
    assert tags.open == []
    chapters = ["verdict", "gate", "models", "tradeoff", "comparisons", "flips", "slices", "classes", "robustness"]
    assert [name for name in [*chapters, "detections", "data", "settings"] if name not in tags.ids] == []
    assert "<script" not in page
    assert not re.search(r"url\(|@import|https?://", page)
    assert not re.search(r'href="(?!#|data:)', page)


def test_the_page_shows_every_score_with_its_interval(project):
    page = REPORT.read_text()
    small = read_json(Path("artifacts/evaluate/scores.json"))["models"][SMALL.name]
    for score in ("map_50", "map", "recall"):
        value, low, high = (f"{100 * small['test'][score][end]:.2f}" for end in ("value", "low", "high"))
        assert f"{value}<small>{low}–{high}</small>" in page  # noqa: RUF001
    assert f'<h1 id="verdict">{SMALL.name} is 2.7 times as fast as the teacher' in page
    newly_missed = read_json(Path("artifacts/compare/comparisons.json"))["models"][SMALL.name]["newly_missed"]["n"]
    assert f'<td class="n">{newly_missed}</td>' in page


def test_the_page_says_what_an_unseen_domain_costs_in_its_own_score(project):
    page = REPORT.read_text()
    chapter = page[page.index('<section id="domains">') :]
    chapter = chapter[: chapter.index("</section>")]
    assert "the recipe reaches an mAP50 of 60.0 % on the test images, on one that it never saw of 60.0 %" in chapter
    assert "<br>mAP50, %" in chapter
    assert '<a href="#domains">' in page
    assert not re.search("accuracy|right about|image by image", chapter)


def test_the_page_shows_the_cross_validation_with_the_precision_of_the_folds(project):
    page = REPORT.read_text()
    chapter = page[page.index('<section id="cross-validation">') :]
    chapter = chapter[: chapter.index("</section>")]
    assert "2 folds, of 60 training and validation images: the" in chapter
    assert re.findall(r'<td class="name">([^<]+)</td>', chapter) == ["mAP50", "mAP50–95"]  # noqa: RUF001
    assert "by 2,000 resamples" in chapter
    assert '<a href="#cross-validation">' in page


def test_pictures_show_what_each_of_two_detectors_has_right_and_wrong(project):
    page = REPORT.read_text()
    chapter = page[page.index('<section id="detections"') : page.index('<section id="data"')]
    assert chapter.count("data:image/jpeg;base64,") == 6
    assert chapter.count("<svg") == 2 * 6
    # The letterbox is 32 pixels high without its borders.
    assert 'viewBox="0 0 64 32"' in chapter
    told = re.findall(r"<b>([\w-]+)</b>: (\d+) found, (\d+) false, (\d+) missed", chapter)
    assert [name for name, *_ in told] == [TEACHER.name, SMALL.name] * 6
    wrong = [int(false) + int(missed) for name, _, false, missed in told if name == SMALL.name]
    assert wrong == sorted(wrong, reverse=True)
    for kind, column in (("right", 1), ("false", 2), ("missed", 3)):
        assert chapter.count(f'<rect class="{kind}"') == sum(int(row[column]) for row in told)


def test_a_student_is_held_against_its_control_on_the_page(copied):
    control = Recipe("student-untaught", "distill", "", 0.42, 0.0, 1.0, 1.0)
    folder = write_detector(copied, control)
    assert_a_control_is_on_the_page(folder, BAD.name, latency_of(copied, control), parameters(), "map_50")


def test_the_teacher_alone_has_a_page(copied):
    for recipe in (SMALL, BAD):
        shutil.rmtree(f"artifacts/{recipe.step}")
    latency = read_json(Path("artifacts/benchmark/latency.json"))
    models = {TEACHER.name: latency["models"][TEACHER.name]}
    write_json(Path("artifacts/benchmark/latency.json"), {**latency, "models": models})
    for step in (tasks.evaluate, tasks.compare, tasks.select, tasks.robustness):
        step.run(parameters())
    write_bundle(copied, TEACHER)
    tasks.gate.run(parameters(gate=LENIENT))
    tasks.report.run(parameters(report={"sample_errors": 0}))
    page = REPORT.read_text()
    assert "Nothing smaller fits the budget" in page
    assert 'id="comparisons"' not in page
    assert "No pictures were asked for." in page
