import csv
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute
import pyarrow.parquet
import pytest
import scipy.stats

import tasks.compare
import tasks.evaluate
from kinglet.atomic import read_json
from kinglet.errors import KingletError
from tests.unit.tasks.small_project import RECIPES, build_project, parameters

ROOT = Path(__file__).parents[3]
COMPARE = Path("artifacts/compare")
FILES = ("comparisons.json", "differences.json", "slices.csv", "flips.parquet")
OTHERS = {recipe.name for recipe in RECIPES} - {"teacher"}


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    root = tmp_path_factory.mktemp("project")
    build_project(root)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(root)
        tasks.evaluate.run(parameters())
        tasks.compare.run(parameters())
    return root


@pytest.fixture
def project(built, monkeypatch):
    """The project after `compare`, in the current folder; what other settings make of it is undone."""
    monkeypatch.chdir(built)
    kept = {path: path.read_bytes() for path in (built / COMPARE).iterdir()}
    yield built
    for path, content in kept.items():
        path.write_bytes(content)


def answers(model):
    rows = pd.read_parquet("artifacts/evaluate/predictions.parquet")
    rows = rows[(rows.model == model) & (rows.split == "test")].set_index("path")
    return rows.label == rows.predicted


def slices():
    with (COMPARE / "slices.csv").open(newline="") as opened:
        return list(csv.DictReader(opened))


def test_every_model_is_compared_with_the_teacher_image_by_image(project):
    found = read_json(COMPARE / "comparisons.json")
    assert set(found["models"]) == OTHERS
    teacher = answers("teacher")
    for name, row in found["models"].items():
        own = answers(name)
        lost, won = int((teacher & ~own).sum()), int((own & ~teacher).sum())
        assert (row["negative_flips"], row["positive_flips"]) == (lost, won)
        assert row["negative_flip_rate"] == pytest.approx(lost / 40)
        assert row["difference"]["value"] == pytest.approx((won - lost) / 40)
        assert row["mcnemar_p"] == pytest.approx(scipy.stats.binomtest(lost, lost + won).pvalue, rel=1e-3)
        assert row["at_worst"] <= row["difference"]["value"] <= row["at_best"]


def test_the_margin_decides_and_few_images_establish_little(project):
    tasks.compare.run(parameters(select={"max_accuracy_drop": 0.001}))
    small = read_json(COMPARE / "comparisons.json")["models"]["teacher-int8"]
    assert small["verdict"] != "not worse"
    assert small["margin"] == 0.001
    tasks.compare.run(parameters(select={"max_accuracy_drop": 0.99}))
    assert {row["verdict"] for row in read_json(COMPARE / "comparisons.json")["models"].values()} == {"not worse"}


def test_flips_are_the_images_that_only_one_of_the_two_has_right(project):
    flips = pd.read_parquet(COMPARE / "flips.parquet")
    predictions = pd.read_parquet("artifacts/evaluate/predictions.parquet")
    for name in OTHERS:
        teacher, own = answers("teacher"), answers(name)
        rows = flips[flips.model == name].set_index("path")
        assert set(rows.index) == set(own.index[own != teacher])
        assert set(rows.index[rows.flip == "negative"]) == set(own.index[teacher & ~own])
        of_model = predictions[(predictions.model == name) & (predictions.split == "test")].set_index("path")
        assert (rows.predicted == of_model.predicted[rows.index]).all()
        assert (rows.teacher_predicted[rows.flip == "negative"] == rows.label[rows.flip == "negative"]).all()


def test_slices_are_of_class_brightness_and_size_and_follow_from_the_answers(project):
    rows = [row for row in slices() if row["model"] == "student"]
    assert {row["column"] for row in rows} == {"class", "brightness", "size"}
    assert [float(row["change"]) for row in rows] == sorted(float(row["change"]) for row in rows)
    own, teacher = answers("student"), answers("teacher")
    for row in rows:
        if row["column"] == "class":
            inside = [path.startswith(f"{row['value']}/") for path in own.index]
            assert int(row["images"]) == sum(inside)
            assert float(row["change"]) == pytest.approx(own[inside].mean() - teacher[inside].mean(), abs=1e-6)
    quartiles = [int(row["images"]) for row in rows if row["column"] == "brightness"]
    assert quartiles == [10, 10, 10, 10]
    assert all(float(row["p_corrected"]) >= float(row["p"]) for row in rows)


def test_any_column_of_the_manifest_makes_slices(project, tmp_path, monkeypatch):
    copy = tmp_path / "project"
    subprocess.run(["cp", "-r", str(project), str(copy)], check=True)
    monkeypatch.chdir(copy)
    path = Path("artifacts/split/manifest.parquet")
    manifest = pyarrow.parquet.read_table(path)
    n = len(manifest)
    night = pa.array(["day" if index % 3 else "night" for index in range(n)])
    manifest = manifest.append_column("light", night).append_column("site", pa.array(["one"] * n))
    manifest = manifest.append_column("given:camera", pa.array(np.arange(n) // 40))
    manifest = manifest.append_column("given:size", night)
    # The order of the manifest's rows says nothing about that of the predictions.
    pyarrow.parquet.write_table(manifest.take(np.random.default_rng(0).permutation(n)), path)
    tasks.compare.run(parameters())
    rows = [row for row in slices() if row["model"] == "student"]
    assert {row["value"] for row in rows if row["column"] == "light"} == {"day", "night"}
    assert {"camera", "size", "size (given)"} <= {row["column"] for row in rows}
    assert "site" not in {row["column"] for row in rows}  # A single value divides nothing.
    own, teacher = answers("student"), answers("teacher")
    lights = {row["path"]: row["light"] for row in manifest.select(["path", "light"]).to_pylist()}
    inside = [lights[path] == "night" for path in own.index]
    row = next(row for row in rows if row["value"] == "night")
    assert float(row["change"]) == pytest.approx(own[inside].mean() - teacher[inside].mean(), abs=1e-6)


def test_slices_too_small_to_look_at_are_counted(project):
    tasks.compare.run(parameters(compare={"min_slice_images": 11}))
    found = read_json(COMPARE / "comparisons.json")
    assert found["slices_too_small"] == {"class": 4, "brightness": 4}
    assert {row["column"] for row in slices()} == {"size"}
    tasks.compare.run(parameters(compare={"min_slice_images": 1000}))
    found = read_json(COMPARE / "comparisons.json")
    assert found["slices"] == 0
    assert {row["worst_slice"] for row in found["models"].values()} == {None}


def test_a_copy_of_the_teacher_does_not_differ_at_all(project, tmp_path, monkeypatch):
    copy = tmp_path / "project"
    subprocess.run(["cp", "-r", str(project), str(copy)], check=True)
    monkeypatch.chdir(copy)
    path = Path("artifacts/evaluate/predictions.parquet")
    table = pyarrow.parquet.read_table(path)
    teacher = table.filter(pa.compute.equal(table["model"], "teacher"))
    twin = teacher.set_column(0, "model", pa.array(["twin"] * len(teacher)))
    pyarrow.parquet.write_table(pa.concat_tables([teacher, twin]), path)
    tasks.compare.run(parameters(select={"max_accuracy_drop": 0.0}))
    found = read_json(COMPARE / "comparisons.json")["models"]
    assert set(found) == {"twin"}
    assert found["twin"]["difference"] == {"value": 0, "low": 0, "high": 0}
    assert (found["twin"]["verdict"], found["twin"]["mcnemar_p"]) == ("not worse", 1)
    differences = read_json(COMPARE / "differences.json")["twin"]
    assert all(set(value.values()) == {0} for name, value in differences.items() if name != "per_class")
    assert len(pd.read_parquet(COMPARE / "flips.parquet")) == 0


def test_only_the_teacher_leaves_nothing_to_compare(project, tmp_path, monkeypatch):
    copy = tmp_path / "project"
    subprocess.run(["cp", "-r", str(project), str(copy)], check=True)
    monkeypatch.chdir(copy)
    path = Path("artifacts/evaluate/predictions.parquet")
    table = pyarrow.parquet.read_table(path)
    pyarrow.parquet.write_table(table.filter(pa.compute.equal(table["model"], "teacher")), path)
    tasks.compare.run(parameters())
    assert read_json(COMPARE / "comparisons.json")["models"] == {}
    assert slices() == []


def test_models_scored_on_other_images_are_refused(project, tmp_path, monkeypatch):
    copy = tmp_path / "project"
    subprocess.run(["cp", "-r", str(project), str(copy)], check=True)
    monkeypatch.chdir(copy)
    path = Path("artifacts/evaluate/predictions.parquet")
    table = pyarrow.parquet.read_table(path)
    pyarrow.parquet.write_table(table.slice(0, len(table) - 1), path)
    before = (COMPARE / "comparisons.json").read_bytes()
    with pytest.raises(KingletError, match="other images"):
        tasks.compare.run(parameters())
    assert (COMPARE / "comparisons.json").read_bytes() == before


def test_running_again_gives_the_same_bytes(project):
    before = [(COMPARE / name).read_bytes() for name in FILES]
    tasks.compare.run(parameters())
    assert [(COMPARE / name).read_bytes() for name in FILES] == before


def test_predictions_that_are_not_there_are_named(built, tmp_path):
    (tmp_path / "params.yaml").write_text((ROOT / "params.yaml").read_text())
    done = subprocess.run(
        [sys.executable, "-m", "tasks.compare"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2
    assert "artifacts/evaluate/scores.json does not exist" in done.stderr
    assert not (tmp_path / COMPARE).exists()
