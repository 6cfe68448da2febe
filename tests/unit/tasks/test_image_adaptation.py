"""adapt for detectors and segmenters: batch statistics of a domain, scored as `evaluate` scores a model there."""

from __future__ import annotations

import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from torch import nn

import tasks.adapt
import tasks.chapters.adaptation
import tasks.evaluate
import tasks.image_adaptation
from kinglet.atomic import read_json
from kinglet.data.batches import standardize
from kinglet.errors import KingletError
from tasks.artifacts import ADAPT, ADAPTED_MODELS, BOXES, INGEST, SPLIT, packed_masks, read_card
from tasks.models import load_model, save_model
from tasks.parameters import Parameters
from tests.unit.models.segmenter_files import lively_segmenter
from tests.unit.models.test_detector import lively, small_detector
from tests.unit.tasks.adapted_statistics import SOURCE_SHARE, assert_statistics_alone_are_mixed
from tests.unit.tasks.painted_domains import CLASSES, SIZE, pictures, write_painted

PARTS = np.array(["train"] * 4 + ["validation"] * 4 + ["test"] * 12 + ["adaptation"] * 16 + ["target_test"] * 10)
IS_TARGET = np.isin(PARTS, ["adaptation", "target_test"])
MEAN, STD = [0.45] * 3, [0.25] * 3
HEADLINES = {"detection": "map_50", "segmentation": "miou"}
FOLDERS = {"batch_norm": "teacher-batch-norm", "finetune": "teacher-finetune"}
PROBLEMS = pytest.mark.parametrize("built", list(HEADLINES), indirect=True)


def settings(problem: str, **adapt: Any) -> Parameters:
    return Parameters.model_validate(
        {
            "problem": problem,
            "data": {"source": "photos", "images": "photos", "fit": "pad"},
            "finetune": {"backbone": "mobilenet-v2", "input_size": SIZE},
            "adapt": {
                "models": ["teacher"],
                "target": "yard",
                "methods": ["batch_norm", "finetune"],
                "source_share": SOURCE_SHARE,
                "labelled_images": 8,
                "epochs": 1,
                "batch_size": 4,
                **adapt,
            },
        }
    )


def network_of(problem: str) -> nn.Module:
    """Return an untrained network whose answers differ from place to place."""
    with torch.no_grad():
        if problem == "segmentation":
            return lively_segmenter(len(CLASSES[problem]))
        network = lively(small_detector(len(CLASSES[problem])))
        for level, (classes, distances) in enumerate(zip(network.head.classes, network.head.distances, strict=True)):
            # The exporter stores equal tensors once; those of a trained network are not equal.
            classes.bias += 4 + 0.01 * level
            distances.bias += 0.01 * level
        return network


def write_project(problem: str) -> None:
    """Write what `ingest`, `split` and `finetune` leave: rectangles, half as bright in the domain "yard"."""
    seen = pictures(len(PARTS))
    packed = np.where(IS_TARGET[:, None, None, None], seen // 2, seen)
    write_painted(problem, PARTS, np.where(IS_TARGET, "yard", ""), packed)
    save_network(problem, Path("artifacts/finetune/teacher"))


def save_network(problem: str, folder: Path, parent: str = "") -> None:
    """Write an untrained model as the step of its folder does."""
    facts = {"step": folder.parent.name, "parent": parent, "input_size": SIZE, "channels": 3, "fit": "pad", "notes": {}}
    facts |= {"mean": MEAN, "std": STD, "classes": CLASSES[problem], "problem": problem}
    save_model(folder, network_of(problem), **facts)


@pytest.fixture(scope="module")
def built(request, tmp_path_factory):
    """The problem, and a folder after the step."""
    problem, root = request.param, tmp_path_factory.mktemp(request.param)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(root)
        patch.setattr(tasks.image_adaptation, "prepare_training", torch.manual_seed)  # what it sets would outlive this
        write_project(problem)
        tasks.adapt.run(settings(problem))
    return problem, root


@pytest.fixture
def built_detection(tmp_path, monkeypatch):
    """A folder before the step, for detection."""
    monkeypatch.chdir(tmp_path)
    write_project("detection")
    return tmp_path


@PROBLEMS
def test_scores_are_those_that_evaluate_gives_a_model_on_the_domain_and_beside_it(built, tmp_path, monkeypatch):
    problem, root = built
    shutil.copytree(root, tmp_path / "copy")
    monkeypatch.chdir(tmp_path / "copy")
    scores, name = read_json(ADAPT / "scores.json"), HEADLINES[problem]
    assert (scores["target"], scores["is_made"], scores["headline"]) == ("yard", False, name)
    of_model = scores["models"]["teacher"]
    assert of_model["images"] == {"adaptation": 16, "labelled": 8, "held_out": 10, "source": 12}
    adapted = [(ADAPTED_MODELS / folder, of_model["methods"][method]) for method, folder in FOLDERS.items()]
    manifest = pd.read_parquet(SPLIT / "manifest.parquet")
    for part, word in (("test", "source"), ("target_test", "target")):
        shown = manifest[manifest["split"].isin(["validation", part])]
        shown.replace({"split": {part: "test"}}).to_parquet(SPLIT / "manifest.parquet")
        values = []
        for folder, found in [(None, of_model), *adapted]:
            if folder:
                for file in folder.iterdir():
                    shutil.copy(file, "artifacts/finetune/teacher")
            tasks.evaluate.run(settings(problem))
            (scored,) = read_json(Path("artifacts/evaluate/scores.json"))["models"].values()
            assert found[f"{word}_{name}"] == scored["test"][name]
            values.append(scored["test"][name]["value"])
        for value, (_, found) in zip(values[1:], adapted, strict=True):
            assert found[f"{word}_change"]["value"] == pytest.approx(value - values[0], abs=2e-6)
        shutil.copytree(root / "artifacts/finetune/teacher", "artifacts/finetune/teacher", dirs_exist_ok=True)


@PROBLEMS
def test_the_first_statistics_are_a_mixture_with_those_of_the_images_to_adapt_to(built, monkeypatch):
    _, root = built
    monkeypatch.chdir(root)
    before, card = load_model(Path("artifacts/finetune/teacher"))
    after, _ = load_model(ADAPTED_MODELS / "teacher-batch-norm")
    packed = np.load(INGEST / f"images_{SIZE}.npy")[PARTS == "adaptation"]
    inputs = standardize(torch.from_numpy(packed.transpose(0, 3, 1, 2)).float(), card.mean, card.std)
    assert_statistics_alone_are_mixed(before, after, inputs)


@PROBLEMS
def test_fine_tuning_learns_from_the_labelled_images_of_the_target_and_from_no_other(built, tmp_path, monkeypatch):
    problem, root = built
    shutil.copytree(root, tmp_path / "copy")
    monkeypatch.chdir(tmp_path / "copy")
    monkeypatch.setattr(tasks.image_adaptation, "prepare_training", torch.manual_seed)
    before, _ = load_model(Path("artifacts/finetune/teacher"))
    after, _ = load_model(ADAPTED_MODELS / "teacher-finetune")
    changed = {
        name
        for name, value in before.named_parameters()
        if not torch.equal(value, dict(after.named_parameters())[name])
    }
    assert changed
    assert all(name.endswith(("weight", "bias")) for name in changed)
    weights = {name: value.clone() for name, value in after.state_dict().items()}
    # The labelled images are the first by content: what the others show, and where, may be anything.
    manifest = pd.read_parquet(SPLIT / "manifest.parquet")
    target = manifest[manifest["split"] == "adaptation"].sort_values("sha256")["index"].to_numpy()
    packed = np.load(INGEST / f"images_{SIZE}.npy")
    packed[np.setdiff1d(np.arange(len(packed)), target[:8])] = 7
    np.save(INGEST / f"images_{SIZE}.npy", packed)
    tasks.adapt.run(settings(problem, methods=["finetune"]))
    again, _ = load_model(ADAPTED_MODELS / "teacher-finetune")
    assert all(torch.equal(value, weights[name]) for name, value in again.state_dict().items())
    packed[target[:8]] = 7
    np.save(INGEST / f"images_{SIZE}.npy", packed)
    tasks.adapt.run(settings(problem, methods=["finetune"]))
    other, _ = load_model(ADAPTED_MODELS / "teacher-finetune")
    assert any(not torch.equal(value, weights[name]) for name, value in other.state_dict().items())


def test_a_segmenter_teaches_itself_from_images_of_the_target_whatever_their_masks_say(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(tasks.image_adaptation, "prepare_training", torch.manual_seed)
    write_project("segmentation")
    weights = []
    for _ in range(2):
        tasks.adapt.run(settings("segmentation", methods=["self_training"], confidence=0.5, learning_rate=0.1))
        weights.append(load_model(ADAPTED_MODELS / "teacher-self-training")[0].state_dict())
        np.save(packed_masks(SIZE), np.full_like(np.load(packed_masks(SIZE)), 2))
    teacher = load_model(Path("artifacts/finetune/teacher"))[0].state_dict()
    assert any(not torch.equal(value, teacher[name]) for name, value in weights[0].items() if name.endswith("bias"))
    assert all(torch.equal(value, weights[1][name]) for name, value in weights[0].items())
    of_method = read_json(ADAPT / "scores.json")["models"]["teacher"]
    assert of_method["images"]["labelled"] == 0
    assert list(of_method["methods"]) == ["self_training"]


def test_a_student_is_adapted_like_its_teacher(built_detection, monkeypatch):
    monkeypatch.setattr(tasks.image_adaptation, "prepare_training", torch.manual_seed)
    save_network("detection", Path("artifacts/distill/small"), parent="teacher")
    tasks.adapt.run(settings("detection", models=["small"], methods=["batch_norm"]))
    assert list(read_json(ADAPT / "scores.json")["models"]) == ["small"]
    assert read_card(ADAPTED_MODELS / "small-batch-norm").parent == "small"


def test_labelled_images_that_show_nothing_are_refused(built_detection, monkeypatch):
    monkeypatch.chdir(built_detection)
    monkeypatch.setattr(tasks.image_adaptation, "prepare_training", torch.manual_seed)
    boxes, manifest = pd.read_parquet(BOXES), pd.read_parquet(SPLIT / "manifest.parquet")
    elsewhere = manifest.loc[manifest["split"] != "adaptation", "index"]
    boxes[boxes["index"].isin(elsewhere)].to_parquet(BOXES)
    with pytest.raises(KingletError, match="None of the 8 labelled images has a box"):
        tasks.adapt.run(settings("detection", methods=["finetune"]))


@PROBLEMS
def test_the_report_says_what_was_won_in_the_problems_own_metric(built, monkeypatch):
    problem, root = built
    monkeypatch.chdir(root)
    chapter = tasks.chapters.adaptation.chapter(0.95)
    word = {"detection": "mAP50", "segmentation": "mIoU"}[problem]
    (said,) = chapter["verdicts"]
    assert said.startswith(f"teacher reaches an {word} of ")
    assert " on the held-out images of the domain yard, and of " in said
    assert re.search(r"After (batch statistics \(on 16 without|fine-tuning \(on 8 with) labels\) it reaches ", said)
    assert [row["needs"] for row in chapter["models"]["teacher"]] == ["16 without labels", "8 with labels"]
    assert f"Where it came from its {word} changes by " in said
    assert np.load(ADAPT / "pictures.npy").shape == (2, 8, SIZE, SIZE, 3)
