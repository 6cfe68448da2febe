"""evaluate, compare and select for detectors, on photos of squares: what they write, and what a user is told."""

from __future__ import annotations

import csv
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import tasks.compare
import tasks.evaluate
import tasks.select
from kinglet.atomic import read_json
from kinglet.errors import KingletError
from tests.unit.tasks.detector_project import (
    BAD,
    CLASSES,
    RECIPES,
    SMALL,
    TEACHER,
    build_detector_project,
    parameters,
    write_detector,
)

NAMES = [recipe.name for recipe in RECIPES]
SCORES, COMPARISONS = Path("artifacts/evaluate/scores.json"), Path("artifacts/compare/comparisons.json")


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    root = tmp_path_factory.mktemp("project")
    build_detector_project(root)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(root)
        for step in (tasks.evaluate, tasks.compare, tasks.select):
            step.run(parameters())
    return root


@pytest.fixture
def project(built, monkeypatch):
    monkeypatch.chdir(built)
    return built


@pytest.fixture
def copied(built, tmp_path, monkeypatch):
    """The project to break: a copy."""
    shutil.copytree(built, tmp_path / "copy")
    monkeypatch.chdir(tmp_path / "copy")
    return tmp_path / "copy"


def name_domains() -> pd.DataFrame:
    """Let every third image be of the site "yard" and the others of the site "hall"; return the manifest."""
    file = Path("artifacts/split/manifest.parquet")
    manifest = pd.read_parquet(file)
    manifest["domain"] = np.where(np.arange(len(manifest)) // 3 % 3 == 0, "yard", "hall")
    manifest.to_parquet(file, index=False)
    return manifest


def test_scores_of_a_domain_are_those_of_its_images_alone(copied):
    manifest = name_domains()
    tasks.evaluate.run(parameters())
    by_domain = {name: of_model["by_domain"] for name, of_model in read_json(SCORES)["models"].items()}
    assert {tuple(found) for found in by_domain.values()} == {("hall", "yard")}
    assert by_domain["teacher"]["hall"] != by_domain["teacher"]["yard"]
    is_elsewhere = (manifest["split"] == "test") & (manifest["domain"] != "yard")
    manifest[~is_elsewhere].to_parquet("artifacts/split/manifest.parquet", index=False)
    tasks.evaluate.run(parameters())
    for name, of_model in read_json(SCORES)["models"].items():
        assert by_domain[name]["yard"] == {"n": of_model["test"]["n"], "map_50": of_model["test"]["map_50"]}
        assert "by_domain" not in of_model  # of one domain alone, there is nothing to tell apart


def test_a_domain_without_objects_has_no_score(copied):
    manifest = name_domains()
    boxes = pd.read_parquet("artifacts/ingest/boxes.parquet")
    yard = set(manifest.loc[manifest["domain"] == "yard", "index"])
    boxes[~boxes["index"].isin(yard)].to_parquet("artifacts/ingest/boxes.parquet", index=False)
    tasks.evaluate.run(parameters())
    assert read_json(SCORES)["models"]["teacher"]["by_domain"]["yard"]["map_50"] is None


def test_every_score_of_every_detector_has_its_interval(project):
    scores = read_json(SCORES)
    assert (scores["classes"], scores["teacher"], scores["headline"]) == (CLASSES, "teacher", "map_50")
    assert sorted(scores["models"]) == sorted(NAMES)
    for of_model in scores["models"].values():
        for split in ("validation", "test"):
            of_split = of_model[split]
            for name in ("map", "map_50", "map_75", "mar_100", "precision", "recall", "f1", "map_small"):
                found = of_split[name]
                assert 0 <= found["low"] <= found["value"] <= found["high"] <= 1, name
            assert of_split["map_large"] is None
            assert of_split["n"] == 20
            assert sum(of_split["support"].values()) == of_split["objects"]
            assert set(of_split["per_class"]) == set(CLASSES)
            mean = np.mean([of_class["map_50"]["value"] for of_class in of_split["per_class"].values()])
            assert of_split["map_50"]["value"] == pytest.approx(mean, abs=2e-6)


def test_a_detector_finds_the_bright_squares_where_they_are(project):
    teacher, bad = (read_json(SCORES)["models"][name]["test"] for name in (TEACHER.name, BAD.name))
    assert 0.6 < teacher["map_50"]["value"] < 1
    assert teacher["map"]["value"] == pytest.approx(teacher["map_50"]["value"])  # its boxes are exact
    assert bad["map_50"]["value"] < 0.05
    small = read_json(SCORES)["models"][SMALL.name]["test"]
    assert small["map"]["value"] < small["map_50"]["value"] - 0.1  # its boxes are a pixel off


def test_predictions_are_kept_in_pixels_of_the_images(project):
    found = pd.read_parquet("artifacts/evaluate/predictions.parquet")
    columns = ["model", "index", "path", "split", "label_index", "score", "x1", "y1", "x2", "y2"]
    assert list(found) == columns
    assert found.dtypes.astype(str)[["index", "label_index", "score", "x1"]].tolist() == ["int64"] * 2 + ["float32"] * 2
    assert set(found["model"]) == set(NAMES)
    assert found["score"].min() >= 0.01
    own = found[(found["model"] == TEACHER.name) & (found["split"] == "test")]
    # Cells of 16 pixels of the input are 32 pixels of the photo, from its corner.
    assert set(own["x1"] % 32) == set(own["y1"] % 32) == {0}
    assert own["y2"].max() <= 64


def test_the_teacher_differs_from_itself_by_nothing_and_others_by_paired_intervals(project):
    models = read_json(SCORES)["models"]
    assert models[TEACHER.name]["difference_to_teacher"]["test"] == {"value": 0, "low": 0, "high": 0}
    worse = models[BAD.name]["difference_to_teacher"]["test"]
    assert worse["high"] < -0.3
    own, of_teacher = (models[name]["test"]["map_50"]["value"] for name in (BAD.name, TEACHER.name))
    assert worse["value"] == pytest.approx(own - of_teacher, abs=2e-6)


def test_the_same_images_give_the_same_bytes(project):
    files = [Path("artifacts/evaluate") / name for name in ("scores.json", "intervals.json", "predictions.parquet")]
    before = [file.read_bytes() for file in files]
    tasks.evaluate.run(parameters())
    assert [file.read_bytes() for file in files] == before


def test_the_confusion_counts_every_object_and_every_false_box_once(project):
    rows = pd.read_csv("artifacts/evaluate/confusion.csv", keep_default_na=False)
    test = read_json(SCORES)["models"][TEACHER.name]["test"]
    assert (rows["actual"] != "(nothing)").sum() == test["objects"]
    assert (rows["predicted"] != "(missed)").sum() == test["shown"]
    right = (rows["actual"] == rows["predicted"]).sum()
    assert right / test["objects"] == pytest.approx(test["recall"]["value"], abs=2e-6)
    assert right / test["shown"] == pytest.approx(test["precision"]["value"], abs=2e-6)


def test_a_comparison_says_whether_a_detector_is_worse(project):
    found = read_json(COMPARISONS)
    assert (found["teacher"], found["headline"], found["test_images"]) == ("teacher", "map_50", 20)
    assert found["models"][BAD.name]["verdict"] == "worse"
    small = found["models"][SMALL.name]
    assert small["verdict"] in ("not worse", "not established")
    assert small["at_worst"] <= small["difference"]["value"] <= small["at_best"]
    assert read_json(Path("artifacts/compare/differences.json"))[SMALL.name]["map_50"] == small["difference"]


def test_what_is_newly_missed_and_newly_false_is_listed_by_class_and_size(project):
    found, flips = read_json(COMPARISONS)["models"], pd.read_parquet("artifacts/compare/flips.parquet")
    boxes = pd.read_parquet("artifacts/ingest/boxes.parquet")
    split = pd.read_parquet("artifacts/split/manifest.parquet")
    boxes = boxes[boxes["index"].isin(split.loc[split["split"] == "test", "index"])]
    for model in (SMALL.name, BAD.name):
        for kind in ("newly_missed", "newly_found", "newly_false", "no_longer_false"):
            counts = found[model][kind]
            rows = flips[(flips["model"] == model) & (flips["flip"] == kind.replace("_", " "))]
            assert len(rows) == counts["n"] == sum(counts["by_class"].values()) == sum(counts["by_size"].values())
            assert (rows["score"].isna() == (kind in ("newly_missed", "newly_found"))).all()
    # Shifted by half a square, its boxes are right of none: what the teacher found it misses.
    teacher = read_json(SCORES)["models"][TEACHER.name]["test"]
    missed = round(teacher["recall"]["value"] * len(boxes))
    assert found[BAD.name]["newly_missed"]["n"] == missed > 0
    assert found[BAD.name]["newly_found"]["n"] == 0


def test_slices_of_the_images_are_compared_the_worst_first(project):
    with Path("artifacts/compare/slices.csv").open() as opened:
        rows = [row for row in csv.DictReader(opened) if row["model"] == BAD.name]
    assert {row["column"] for row in rows} >= {"brightness"}
    changes = [float(row["change"]) for row in rows]
    assert changes == sorted(changes)
    assert all(float(row["change_low"]) <= float(row["change"]) <= float(row["change_high"]) for row in rows)
    worst = read_json(COMPARISONS)["models"][BAD.name]["worst_slice"]
    assert (worst["column"], worst["value"]) == (rows[0]["column"], rows[0]["value"])
    assert worst["change"] == pytest.approx(worst["map_50"] - worst["teacher_map_50"], abs=2e-6)


def test_the_fastest_detector_within_the_drop_of_map_50_is_chosen(project):
    choice = read_json(Path("artifacts/select/choice.json"))
    assert choice["chosen"] == SMALL.name
    assert choice["validation_map_50"] == read_json(SCORES)["models"][SMALL.name]["validation"]["map_50"]["value"]
    assert "validation mAP50" in choice["reason"]
    assert "accuracy" not in choice["reason"]


def test_a_detector_below_the_drop_is_not_chosen_though_it_is_faster(copied):
    tasks.select.run(parameters(select={"max_accuracy_drop": 0.0}))
    difference = read_json(SCORES)["models"][SMALL.name]["difference_to_teacher"]["validation"]["value"]
    assert difference < 0
    assert read_json(Path("artifacts/select/choice.json"))["chosen"] == TEACHER.name


def test_bca_intervals_can_be_wanted(copied):
    tasks.evaluate.run(parameters(evaluate={"interval": "bca"}))
    assert read_json(Path("artifacts/evaluate/intervals.json"))["interval"] == "bca"
    found = read_json(SCORES)["models"][SMALL.name]["test"]["map"]
    assert found["low"] < found["value"] < found["high"]


def test_a_split_without_boxes_is_refused(copied):
    boxes, split = (
        pd.read_parquet("artifacts/ingest/boxes.parquet"),
        pd.read_parquet("artifacts/split/manifest.parquet"),
    )
    boxes[~boxes["index"].isin(split.loc[split["split"] == "test", "index"])].to_parquet(
        "artifacts/ingest/boxes.parquet"
    )
    with pytest.raises(KingletError, match="None of the 20 test images has a box"):
        tasks.evaluate.run(parameters())


def test_a_detector_of_other_classes_is_refused(copied):
    shutil.rmtree(f"artifacts/{SMALL.step}")
    write_detector(copied, SMALL, ["blue", "red"])
    with pytest.raises(KingletError, match="other classes"):
        tasks.evaluate.run(parameters())


def test_predictions_on_other_images_are_refused(copied):
    split = pd.read_parquet("artifacts/split/manifest.parquet")
    split["split"] = split["split"].replace({"test": "validation", "validation": "test"})
    split.to_parquet("artifacts/split/manifest.parquet")
    with pytest.raises(KingletError, match="other test images"):
        tasks.compare.run(parameters())


def test_a_damaged_file_is_refused(copied):
    (copied / "artifacts" / SMALL.step / SMALL.name / "model.onnx").write_bytes(b"no model")
    with pytest.raises(KingletError, match="cannot be loaded"):
        tasks.evaluate.run(parameters())
