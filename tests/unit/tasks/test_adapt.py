"""The step adapt on a small project: scores beside what they must be, domains of a table, too few images."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

import tasks.adapt
import tasks.adaptation
import tasks.chapters.adaptation
import tasks.target_domain
from kinglet.adaptation.camera import another_camera
from kinglet.atomic import read_json, write_json
from kinglet.errors import KingletError
from kinglet.evidence.corruptions.streams import image_keys
from kinglet.models.registry import rebuild
from kinglet.runtime.sessions import open_session
from kinglet.training.loop import ImageSet, Recipe, fit
from kinglet.training.losses import label_loss
from tasks.artifacts import ADAPT, ADAPTED_MODELS
from tasks.models import save_model
from tasks.parameters import Parameters
from tasks.setting_values import ADAPTATION_METHODS
from tasks.target_domain import labelled_places, read_domains
from tests.unit.models.small_networks import bright_quadrants, residual_cnn
from tests.unit.tasks.small_project import parameters, write_data

N_IMAGES, CLASSES = 480, ["a", "b", "c", "d"]
MEAN, STD = [0.45] * 3, [0.25] * 3
SCORES = ADAPT / "scores.json"
MANIFEST = Path("artifacts/split/manifest.parquet")


def settings(**changes: object) -> Parameters:
    adapt = {"models": ["student"], "labelled_images": 24, "epochs": 2, "batch_size": 16, "augment": ["flip"]}
    return parameters(adapt={**adapt, **changes})


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    """A project whose student has learnt from half of the images; a quarter each to validate and to test."""
    root = tmp_path_factory.mktemp("adapt")
    plain = bright_quadrants(N_IMAGES, (16,), seed=1)
    # So little contrast that the made camera costs something.
    images = replace(plain, packed={16: (100 + plain.packed[16] // 8).astype(np.uint8)})
    splits = np.array(["train", "train", "validation", "test"])[np.arange(N_IMAGES) % 4]
    write_data(root, images.packed, images.labels, splits, CLASSES)
    training = ImageSet(images.packed, images.rows[splits == "train"], images.labels[splits == "train"])
    loss = label_loss(torch.from_numpy(training.labels), 0.0)
    recipe = Recipe(((4, 16),), 32, 0.01, 0.0, 0.1, 1.0, 0.9, 100, (), "fp32", 0)
    network, _ = fit(residual_cnn(), training, training, loss, recipe, mean=MEAN, std=STD, device=torch.device("cpu"))
    facts = {"step": "distill", "parent": "teacher", "channels": 3, "fit": "stretch", "notes": {}}
    save_model(root / "artifacts/distill/student", network, input_size=16, mean=MEAN, std=STD, classes=CLASSES, **facts)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(root)
        patch.setattr(tasks.adaptation, "prepare_training", torch.manual_seed)  # what it sets would outlive the test
        tasks.adapt.run(settings())
    return root


@pytest.fixture
def project(built, monkeypatch):
    """The project after the demonstration; whatever a test changes of its files is undone."""
    monkeypatch.chdir(built)
    monkeypatch.setattr(tasks.adaptation, "prepare_training", torch.manual_seed)
    kept = {path: path.read_bytes() for path in (MANIFEST, *ADAPT.rglob("*")) if path.is_file()}
    yield built
    for path, content in kept.items():
        path.write_bytes(content)


def answered(model: Path, images: np.ndarray, labels: np.ndarray) -> float:
    inputs = (images.transpose(0, 3, 1, 2) / 255 - 0.45) / 0.25
    logits = open_session(model, 1).run(None, {"images": inputs.astype(np.float32)})[0]
    return float((logits.argmax(axis=1) == labels).mean())


def test_scores_are_those_of_the_onnx_files_on_test_images_with_and_without_the_change(project):
    scores = read_json(SCORES)
    assert (scores["target"], scores["is_made"]) == ("demonstration", True)
    of_model = scores["models"]["student"]
    assert of_model["images"] == {"adaptation": 120, "labelled": 24, "held_out": 120, "source": 120}
    test = pd.read_parquet(MANIFEST).query("split == 'test'")
    clean, labels = np.load("artifacts/ingest/images_16.npy")[test["index"]], test["label_index"].to_numpy()
    changed = another_camera(clean, image_keys(clean))
    files = {None: Path("artifacts/distill/student/model.onnx")}
    files |= {name: ADAPTED_MODELS / f"student-{name.replace('_', '-')}" / "model.onnx" for name in ADAPTATION_METHODS}
    for method, file in files.items():
        row = of_model["methods"][method] if method else of_model
        assert row["target_accuracy"]["value"] == pytest.approx(answered(file, changed, labels), abs=1e-6)
        assert row["source_accuracy"]["value"] == pytest.approx(answered(file, clean, labels), abs=1e-6)
    cost = of_model["source_accuracy"]["value"] - of_model["target_accuracy"]["value"]
    assert of_model["cost"]["value"] == pytest.approx(cost, abs=2e-6)
    assert of_model["cost"]["low"] > 0
    assert of_model["methods"]["batch_norm"]["recovered"]["value"] >= 0.5
    for row in of_model["methods"].values():
        change = row["target_accuracy"]["value"] - of_model["target_accuracy"]["value"]
        assert row["target_change"]["value"] == pytest.approx(change, abs=2e-6)
        assert row["target_change"]["low"] <= row["target_change"]["value"] <= row["target_change"]["high"]
        forgotten = row["source_accuracy"]["value"] - of_model["source_accuracy"]["value"]
        assert row["source_change"]["value"] == pytest.approx(forgotten, abs=2e-6)
        assert row["recovered"]["value"] == pytest.approx(change / cost, abs=1e-3)


def test_adapted_weights_are_kept_and_can_be_rebuilt(project):
    for method in ADAPTATION_METHODS:
        folder = ADAPTED_MODELS / f"student-{method.replace('_', '-')}"
        card = read_json(folder / "model.json")
        assert (card["step"], card["parent"], card["notes"]["method"]) == ("adapt", "student", method)
        rebuild(card["architecture"], torch.load(folder / "model.pt", weights_only=True))
    pictures = np.load(ADAPT / "pictures.npy")
    assert pictures.shape == (2, 8, 16, 16, 3)
    assert (pictures[0] != pictures[1]).any()


def test_a_second_run_leaves_the_same_bytes(project):
    files = sorted(path for path in ADAPT.rglob("*") if path.is_file())
    before = [path.read_bytes() for path in files]
    tasks.adapt.run(settings())
    assert [path.read_bytes() for path in files] == before


def test_test_images_and_their_order_in_the_manifest_decide_nothing_about_the_weights(project):
    rows = pd.read_parquet(MANIFEST)
    before = {path: path.read_bytes() for path in sorted(ADAPTED_MODELS.rglob("model.pt"))}
    rows[(rows["split"] != "test") | (rows["index"] % 8 == 3)].iloc[::-1].to_parquet(MANIFEST, index=False)
    tasks.adapt.run(settings())
    assert {path: path.read_bytes() for path in before} == before
    assert read_json(SCORES)["models"]["student"]["images"]["held_out"] == 60


def test_only_finetune_sees_labels(project):
    rows = pd.read_parquet(MANIFEST)
    before = {path.parent.name: path.read_bytes() for path in sorted(ADAPTED_MODELS.rglob("model.pt"))}
    validation = rows["split"] == "validation"
    # Each class is called another: the samples have the same sizes.
    rows.loc[validation, "label_index"] = (rows.loc[validation, "label_index"] + 1) % 4
    rows.to_parquet(MANIFEST, index=False)
    tasks.adapt.run(settings())
    after = {path.parent.name: path.read_bytes() for path in sorted(ADAPTED_MODELS.rglob("model.pt"))}
    assert {name for name in before if before[name] != after[name]} == {"student-finetune"}


def test_a_domain_of_the_data_is_scored_on_its_own_held_out_images(project):
    rows = pd.read_parquet(MANIFEST)
    rows.loc[rows["split"] == "validation", "split"] = np.where(np.arange(120) % 2, "adaptation", "target_test")
    rows.to_parquet(MANIFEST, index=False)
    tasks.adapt.run(settings(target="yard", methods=["batch_norm"]))
    scores = read_json(SCORES)
    assert (scores["target"], scores["is_made"]) == ("yard", False)
    of_model = scores["models"]["student"]
    assert of_model["images"] == {"adaptation": 60, "labelled": 24, "held_out": 60, "source": 120}
    assert of_model["cost"] is of_model["methods"]["batch_norm"]["recovered"] is None
    held_out = rows.query("split == 'target_test'")
    images = np.load("artifacts/ingest/images_16.npy")[held_out["index"]]
    expected = answered(ADAPTED_MODELS / "student-batch-norm/model.onnx", images, held_out["label_index"].to_numpy())
    assert of_model["methods"]["batch_norm"]["target_accuracy"]["value"] == pytest.approx(expected, abs=1e-6)
    chapter = tasks.chapters.adaptation.chapter(0.95)
    assert "of the domain yard" in chapter["verdicts"][0]
    assert "won back" not in chapter["verdicts"][0]


def test_labelled_images_are_as_many_of_each_class_as_there_are(project):
    part = read_domains(settings(), 16).adaptation
    labels = part.labels[labelled_places(part, settings().adapt)]
    assert np.bincount(labels).tolist() == [6, 6, 6, 6]
    every = labelled_places(part, settings(labelled_images=1000).adapt)
    assert every.tolist() == list(range(120))


def test_large_images_and_many_are_sampled(project, monkeypatch):
    monkeypatch.setattr(tasks.target_domain, "FEWEST_IMAGES", 40)
    domains = read_domains(settings(), 1024)
    assert (len(domains.adaptation.rows), len(domains.held_out.rows)) == (40, 40)
    assert domains.source is domains.held_out


def test_the_demonstration_on_too_few_images_is_left_out_with_a_sentence(project, capsys):
    rows = pd.read_parquet(MANIFEST)
    rows[(rows["split"] != "validation") | (rows["index"] < 40)].to_parquet(MANIFEST, index=False)
    tasks.adapt.run(settings())
    scores = read_json(SCORES)
    assert scores["models"] == {}
    assert scores["reason"].startswith("10 validation images to adapt to and 120 test images")
    assert "warning: 10 validation images" in capsys.readouterr().err
    chapter = tasks.chapters.adaptation.chapter(0.95)
    assert (chapter["reason"], chapter["pictures"]) == (scores["reason"], [])


def test_without_models_nothing_is_done_and_the_report_says_nothing(project):
    tasks.adapt.run(settings(models=[]))
    assert read_json(SCORES) == {"models": {}}
    assert tasks.chapters.adaptation.chapter(0.95) is None


def test_a_model_that_no_step_made_is_named(project):
    with pytest.raises(KingletError, match=r"adapt\.models names other; known: student"):
        tasks.adapt.run(settings(models=["other"]))


def test_the_chapter_names_the_best_method_and_what_it_forgets(project):
    scores = read_json(SCORES)
    of_model = scores["models"]["student"]
    good = {"target_accuracy": {"value": 0.999, "low": 0.99, "high": 1.0}, "recovered": None}
    for row in of_model["methods"].values():
        row["target_accuracy"] = {"value": 0.5, "low": 0.4, "high": 0.6}
    of_model["methods"]["finetune"] |= good | {"source_change": {"value": -0.04, "low": -0.06, "high": -0.02}}
    write_json(SCORES, scores)
    (said,) = tasks.chapters.adaptation.chapter(0.95)["verdicts"]
    assert "After fine-tuning (on 24 with labels) it is right on 99.9 %" in said
    assert "\u22124.0 points" in said
