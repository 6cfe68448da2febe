"""adapt for networks over clips: a small one, trained for real, and clips of another camera."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from torch import nn

import tasks.adapt
import tasks.adaptation
import tasks.chapters.adaptation
import tasks.clip_training
import tasks.evaluate
import tasks.finetune
from kinglet.adaptation.camera import another_camera
from kinglet.atomic import read_json
from kinglet.data.batches import standardize
from kinglet.evidence.corruptions.streams import image_keys
from tasks.adaptation import BUDGETS, adaptation_recipe
from tasks.artifacts import ADAPT, ADAPTED_MODELS, SPLIT, packed_clips
from tasks.clip_answers import open_clip_network
from tasks.models import load_model
from tasks.parameters import Parameters
from tasks.setting_values import ADAPTATION_METHODS
from tests.unit.models.clip_classifier_files import CLASSES, FRAMES, SIZE, small_clip_classifier
from tests.unit.tasks.adapted_statistics import SOURCE_SHARE, assert_statistics_alone_are_mixed
from tests.unit.tasks.moving_domains import VIDEO, filmed, write_moving

N_OF = {"train": 36, "validation": 18, "test": 21, "adaptation": 18, "target_test": 24}
PARTS = np.repeat(list(N_OF), list(N_OF.values()))
IS_YARD = np.isin(PARTS, ["adaptation", "target_test"])
TEACHER = Path("artifacts/finetune/teacher")
FOLDERS = {method: ADAPTED_MODELS / f"teacher-{method.replace('_', '-')}" for method in ADAPTATION_METHODS}


def settings(**adapt: Any) -> Parameters:
    training = {"backbone": "mobilenet-v2", "input_size": SIZE, "batch_size": 6, "ema_decay": 0.9, "augment": []}
    given = {"models": ["teacher"], "target": "yard", "methods": list(ADAPTATION_METHODS), "source_share": SOURCE_SHARE}
    return Parameters.model_validate(
        {
            **VIDEO,
            "finetune": {**training, "epochs": 0},
            "recurrent": {"epochs": 16, "batch_size": 6, "learning_rate": 2e-2, "dropout": 0},
            "evaluate": {"top_k": 2},
            "adapt": {**given, "labelled_images": 9, "epochs": 1, "batch_size": 4, "learning_rate": 0.02, **adapt},
        }
    )


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    """A folder after `finetune` and `adapt`. The camera "yard" has less contrast than the others."""
    root, seen = tmp_path_factory.mktemp("clips"), filmed(len(PARTS))
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(root)
        lasting_nothing(patch)
        patch.setattr(tasks.clip_training, "pretrained_clip_classifier", lambda *_, **__: (small_clip_classifier(), {}))
        packed = np.where(IS_YARD[:, None, None, None, None], 90 + seen // 3, seen)
        write_moving(PARTS, np.where(IS_YARD, "yard", ""), packed)
        tasks.finetune.run(settings())
        tasks.adapt.run(settings())
    return root


def lasting_nothing(patch: pytest.MonkeyPatch) -> None:
    """Leave out what would outlive the test."""
    patch.setattr(tasks.adaptation, "prepare_training", torch.manual_seed)
    patch.setattr(tasks.clip_training, "prepare_training", lambda seed, _: torch.manual_seed(seed))


@pytest.fixture
def copied(built, tmp_path, monkeypatch):
    """A copy of the folder that may be changed."""
    shutil.copytree(built, tmp_path / "copy")
    monkeypatch.chdir(tmp_path / "copy")
    lasting_nothing(monkeypatch)


def test_scores_are_those_that_evaluate_gives_a_network_on_the_domain_and_beside_it(copied):
    scores = read_json(ADAPT / "scores.json")
    assert (scores["target"], scores["is_made"]) == ("yard", False)
    of_model = scores["models"]["teacher"]
    assert of_model["images"] == {"adaptation": 18, "labelled": 9, "held_out": 24, "source": 21}
    assert of_model["source_accuracy"]["value"] > 0.5
    manifest = pd.read_parquet(SPLIT / "manifest.parquet")
    for folder, found in [(TEACHER, of_model), *((FOLDERS[name], of_model["methods"][name]) for name in FOLDERS)]:
        if folder != TEACHER:
            for file in folder.iterdir():
                shutil.copy(file, TEACHER)
        for part, word in (("test", "source"), ("target_test", "target")):
            shown = manifest[manifest["split"].isin(["validation", part])]
            shown.replace({"split": {part: "test"}}).to_parquet(SPLIT / "manifest.parquet")
            tasks.evaluate.run(settings())
            (scored,) = read_json(Path("artifacts/evaluate/scores.json"))["models"].values()
            value = scored["test"]["accuracy"]["value"]
            assert found[f"{word}_accuracy"]["value"] == value
            if folder != TEACHER:
                change = value - of_model[f"{word}_accuracy"]["value"]
                assert found[f"{word}_change"]["value"] == pytest.approx(change, abs=2e-6)


def test_the_statistics_of_the_frame_part_are_a_mixture_with_those_of_the_clips_to_adapt_to(built, monkeypatch):
    monkeypatch.chdir(built)
    before, card = load_model(TEACHER)
    after, adapted = load_model(FOLDERS["batch_norm"])
    assert (adapted.problem, adapted.step, adapted.parent) == ("video", "adapt", "teacher")
    frames = np.load(packed_clips(SIZE))[PARTS == "adaptation"].reshape(-1, SIZE, SIZE, 3)
    inputs = standardize(torch.from_numpy(frames.transpose(0, 3, 1, 2)).float(), card.mean, card.std)
    assert_statistics_alone_are_mixed(before, after, inputs)
    parts = [[(folder / name).read_bytes() for folder in (TEACHER, FOLDERS["batch_norm"])] for name in FILES]
    assert [one == other for one, other in parts] == [False, True]


FILES = ("model.onnx", "recurrent.onnx")


def test_what_learns_are_normalizations_alone_and_only_finetune_sees_labels(copied):
    before, _ = load_model(TEACHER)
    weights = dict(before.named_parameters())
    norms = {id(p) for module in before.modules() if isinstance(module, nn.BatchNorm2d) for p in module.parameters()}
    for method in ("self_training", "finetune"):
        after, _ = load_model(FOLDERS[method])
        changed = {name for name, value in after.named_parameters() if not torch.equal(value, weights[name])}
        assert changed
        assert all(id(weights[name]) in norms for name in changed)
    kept = {method: (folder / "model.pt").read_bytes() for method, folder in FOLDERS.items()}
    tasks.adapt.run(settings())
    assert {method: (folder / "model.pt").read_bytes() for method, folder in FOLDERS.items()} == kept
    manifest = pd.read_parquet(SPLIT / "manifest.parquet")
    target = manifest["split"] == "adaptation"
    manifest.loc[target, "label_index"] = (manifest.loc[target, "label_index"] + 1) % len(CLASSES)
    manifest.to_parquet(SPLIT / "manifest.parquet", index=False)
    tasks.adapt.run(settings())
    after = {method: (folder / "model.pt").read_bytes() for method, folder in FOLDERS.items()}
    assert {method for method in kept if kept[method] != after[method]} == {"finetune"}


def test_the_made_camera_films_every_frame(copied):
    tasks.adapt.run(settings(target="demonstration", methods=["batch_norm"]))
    of_model = read_json(ADAPT / "scores.json")["models"]["teacher"]
    assert of_model["images"] == {"adaptation": 18, "labelled": 9, "held_out": 21, "source": 21}
    clips = np.load(packed_clips(SIZE))[PARTS == "test"]
    frames = clips.reshape(-1, SIZE, SIZE, 3)
    changed = another_camera(frames, image_keys(frames)).reshape(clips.shape)
    labels = np.flatnonzero(PARTS == "test") % len(CLASSES)
    for folder, found in ((TEACHER, of_model), (FOLDERS["batch_norm"], of_model["methods"]["batch_norm"])):
        network = open_clip_network(folder)
        for word, seen in (("source", clips), ("target", changed)):
            right = network.predicted(seen, np.arange(len(seen))) == labels
            assert found[f"{word}_accuracy"]["value"] == pytest.approx(right.mean(), abs=1e-6)
    pictures = np.load(ADAPT / "pictures.npy")
    assert pictures.shape == (2, 8, SIZE, SIZE, 3)
    assert any(np.array_equal(pictures[0, 0], clip[FRAMES // 2]) for clip in clips)
    assert any(np.array_equal(pictures[1, 0], clip[FRAMES // 2]) for clip in changed)


def test_the_report_speaks_of_clips(built, monkeypatch):
    monkeypatch.chdir(built)
    (said,) = tasks.chapters.adaptation.chapter(0.95, "clips")["verdicts"]
    assert " of the held-out clips of the domain yard, and on " in said
    assert " of the test clips of the others. After " in said


def test_clips_are_mirrored_only_where_it_is_asked_for():
    assert adaptation_recipe(settings(), BUDGETS["video"], 96, SIZE).augment == ("shift", "color")
    assert adaptation_recipe(settings(augment=["flip"]), BUDGETS["video"], 96, SIZE).augment == ("flip",)
    images = settings().model_copy(update={"problem": "classification"})
    assert adaptation_recipe(images, BUDGETS["classification"], 96, SIZE).augment == ("flip",)
