"""assign_folds, crossvalidate, pool_folds and label_errors on a small project, one after the other."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import accuracy_score, f1_score

from kinglet.atomic import read_json
from kinglet.errors import KingletError
from tasks import assign_folds, crossvalidate, label_errors, pool_folds
from tasks.artifacts import CROSSVALIDATE, FOLD_PLAN, FOLDS, LABEL_ERROR_COUNTS, OUT_OF_FOLD, SUSPICIOUS_LABELS
from tests.unit.tasks.small_project import build_training_project, parameters

SCORES = Path("artifacts/pool_folds/scores.json")
HEAD = "path,label,new_label,confidence,decision\n"


def settings(folds: tuple[int, ...] = (1, 2), **data: str):
    finetune = {"input_size": 16, "batch_size": 16, "low_resolution_share": 0, "head_epochs": 1, "learning_rate": 0.002}
    return parameters(finetune=finetune, crossvalidate={"folds": list(folds), "epochs": 3}, data=data)


def complete(root: Path, groups: list[str] | None = None) -> None:
    """Add to a training project what profile and split know more of its images."""
    manifest = pd.read_parquet(root / "artifacts/split/manifest.parquet")
    manifest["group"] = groups or [""] * len(manifest)
    manifest.to_parquet(root / "artifacts/split/manifest.parquet", index=False)
    facts = pd.DataFrame({"index": manifest["index"], "near_group": manifest["index"]})
    facts["pixels_sha256"] = [f"{number:064x}" for number in facts["index"]]
    facts.to_parquet(root / "artifacts/ingest/manifest.parquet", index=False)
    (root / "artifacts/profile").mkdir(exist_ok=True)
    facts.to_parquet(root / "artifacts/profile/images.parquet", index=False)


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    """A project with two folds trained, twelve labels of which were set to the next class."""
    root = tmp_path_factory.mktemp("folds")
    build_training_project(root)
    complete(root)
    manifest = pd.read_parquet(root / "artifacts/split/manifest.parquet")
    flipped = manifest.index[manifest["split"] == "train"][::8]
    manifest.loc[flipped, "label_index"] = (manifest.loc[flipped, "label_index"] + 1) % 4
    manifest.to_parquet(root / "artifacts/split/manifest.parquet", index=False)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(root)
        assign_folds.run(settings())
        for fold in (1, 2):
            crossvalidate.run(settings(), 1, fold)
        pool_folds.run(settings())
        label_errors.run(settings())
    return root, set(manifest.loc[flipped, "path"])


@pytest.fixture
def here(project, monkeypatch):
    monkeypatch.chdir(project[0])


def test_every_training_and_validation_image_is_answered_once_and_no_test_image(here):
    manifest = pd.read_parquet("artifacts/split/manifest.parquet")
    answers = pd.read_parquet(OUT_OF_FOLD)
    assert answers["index"].tolist() == manifest.loc[manifest["split"] != "test", "index"].tolist()
    assert answers["path"].tolist() == manifest.loc[manifest["split"] != "test", "path"].tolist()
    np.testing.assert_allclose(np.stack(answers["probabilities"]).sum(axis=1), 1, atol=1e-5)


def test_sealed_images_belong_to_no_fold(tmp_path, monkeypatch):
    build_training_project(tmp_path)
    complete(tmp_path)
    monkeypatch.chdir(tmp_path)
    file = Path("artifacts/split/manifest.parquet")
    manifest = pd.read_parquet(file)
    sealed = manifest.index[manifest["split"] == "train"][::5]
    manifest.loc[sealed, "split"] = "sealed"
    manifest.to_parquet(file, index=False)
    assign_folds.run(settings())
    assert len(sealed)
    assert not set(pd.read_parquet(FOLDS)["index"]) & set(manifest.loc[sealed, "index"])


def test_scores_are_those_of_scikit_learn(here):
    scores, answers = read_json(SCORES), pd.read_parquet(OUT_OF_FOLD)
    runs = []
    for fold in (1, 2):
        own = pd.read_parquet(CROSSVALIDATE / f"1-{fold}" / "predictions.parquet")
        predicted = np.stack(own["probabilities"]).argmax(axis=1)
        runs.append(accuracy_score(own["label"], predicted))
        assert scores["runs"][fold - 1]["accuracy"] == pytest.approx(runs[-1], abs=1e-6)
        assert scores["runs"][fold - 1]["f1_macro"] == pytest.approx(
            f1_score(own["label"], predicted, average="macro"), abs=1e-6
        )
    assert scores["accuracy"]["value"] == pytest.approx(np.mean(runs), abs=1e-6)
    assert scores["accuracy"]["deviation"] == pytest.approx(np.std(runs, ddof=1), abs=1e-6)
    pooled = scores["pooled"][0]
    assert pooled["accuracy"]["value"] == pytest.approx(
        accuracy_score(answers["label"], answers["predicted"]), abs=1e-6
    )
    assert pooled["accuracy"]["low"] < pooled["accuracy"]["value"] < pooled["accuracy"]["high"]
    assert scores["epochs"] == 3


def test_no_image_of_a_fold_is_learnt_from_or_decides_which_weights_are_kept(here):
    held_out, training, validation = crossvalidate.parts_of(1, 2, crossvalidate.read_input_sizes())
    plan = pd.read_parquet(FOLDS)
    assert set(held_out.rows) == set(plan.loc[plan["fold"] == 2, "index"])
    assert set(training.rows) | set(validation.rows) == set(plan.loc[plan["fold"] == 1, "index"])
    assert len(validation.rows)
    assert not set(training.rows) & set(validation.rows)


def test_a_fold_trained_again_leaves_the_same_bytes(here):
    files = sorted((CROSSVALIDATE / "1-1").iterdir())
    before = [path.read_bytes() for path in files]
    crossvalidate.run(settings(), 1, 1)
    assert [path.read_bytes() for path in files] == before


def answer_as_a_good_model(flipped: set[str]) -> None:
    """Let the folds' answers be those of models that know four of five images, and are unsure of the fifth."""
    answers = pd.read_parquet(OUT_OF_FOLD)
    true = np.where(answers["path"].isin(flipped), (answers["label"] - 1) % 4, answers["label"])
    sure = np.where(np.arange(len(answers)) % 5 == 4, 0.3, 0.97)
    probabilities = np.tile(((1 - sure) / 3)[:, None], (1, 4))
    probabilities[np.arange(len(answers)), true] = sure
    answers["probabilities"] = list(probabilities.astype(np.float32))
    answers.to_parquet(OUT_OF_FOLD, index=False)


def test_flipped_labels_are_listed_and_what_a_person_kept_is_not_listed_again(here, project):
    answer_as_a_good_model(project[1])
    label_errors.run(settings())
    with SUSPICIOUS_LABELS.open(newline="") as file:
        rows = list(csv.DictReader(file))
    found = {row["path"] for row in rows} & project[1]
    # Of fourteen; benchmarks/label_errors.py measures how good it is with real models.
    assert len(found) >= 8
    assert len(found) >= 0.5 * len(rows)
    counts = read_json(LABEL_ERROR_COUNTS)
    assert counts["suspicious"] == len(rows) == sum(of["suspicious"] for of in counts["by_class"].values())
    first = rows[0]
    Path("kept.csv").write_text(f"{HEAD}{first['path']},{first['label']},{first['likely_label']},0.9,keep\n")
    label_errors.run(settings(label_corrections="kept.csv"))
    assert first["path"] not in SUSPICIOUS_LABELS.read_text()
    assert read_json(LABEL_ERROR_COUNTS)["kept"] == 1
    label_errors.run(settings())


@pytest.fixture
def untrained(tmp_path, monkeypatch):
    build_training_project(tmp_path)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_without_folds_all_steps_leave_empty_results_and_what_was_there_goes(untrained):
    complete(untrained)
    (CROSSVALIDATE / "1-3").mkdir(parents=True)
    none = settings(folds=())
    for step in (assign_folds, pool_folds, label_errors):
        step.run(none)
    assert not (CROSSVALIDATE / "1-3").exists()
    assert read_json(SCORES)["folds"] == read_json(LABEL_ERROR_COUNTS)["n"] == len(pd.read_parquet(OUT_OF_FOLD)) == 0
    assert SUSPICIOUS_LABELS.read_text().count("\n") == 1


def test_classes_that_cannot_be_in_every_fold_and_large_groups_are_said(untrained, capsys):
    manifest = pd.read_parquet("artifacts/split/manifest.parquet")
    in_fold = manifest["split"] != "test"
    groups = np.where(manifest["label_index"] == 0, "all of a", "").astype(object)
    groups[manifest.index[in_fold & (manifest["label_index"] > 0)][:40]] = "a long video"
    complete(untrained, list(groups))
    assign_folds.run(settings(folds=(1, 2, 3)))
    plan = read_json(FOLD_PLAN)
    assert plan["classes_in_one_fold"] == ["a"]
    said = capsys.readouterr().err
    assert "class 'a': its" in said
    assert "40 images belong together, more than the 36 of an even fold" in said
    assert set(pd.read_parquet(FOLDS)["fold"]) == {1, 2, 3}


def test_fewer_independent_images_than_folds_are_refused(untrained):
    complete(untrained, ["one", "two"] * 60)
    with pytest.raises(KingletError, match="2 independent images do not make 3 folds") as caught:
        assign_folds.run(settings(folds=(1, 2, 3)))
    assert "crossvalidate.folds" in caught.value.hint
    assert not FOLDS.exists()


def test_a_fold_that_was_not_assigned_is_named(here):
    with pytest.raises(KingletError, match="no fold 7 of repetition 1"):
        crossvalidate.run(settings(), 1, 7)


def test_folds_are_short_however_many_images_there_are():
    finetune, folds = settings().finetune, parameters(crossvalidate={"folds": [1, 2, 3]}).crossvalidate
    sizes = crossvalidate.InputSizes(teacher=48, low_resolution=48, student=28, students={}, candidates=[])

    def epochs(n: int) -> float:
        automatic = finetune.model_copy(update={"epochs": 30, "low_resolution_share": 0.45})
        return sum(part for part, _ in crossvalidate.phases_of_a_fold(automatic, folds, sizes, 2 * n, n))

    assert epochs(20_000) == pytest.approx(0.1)
    assert epochs(2_000) == pytest.approx(2.1)
    assert epochs(10_000_000) == pytest.approx(0.1)
