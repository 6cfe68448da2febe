"""The step domains where images have boxes or masks: small networks, trained for real on two cameras' images."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import tasks.chapters.domains
import tasks.detection_training
import tasks.domains
import tasks.leave_one_domain_out
import tasks.segmentation_training
from kinglet.atomic import read_json
from tasks.artifacts import DOMAINS
from tasks.parameters import Parameters
from tests.unit.models.segmenter_files import small_segmenter
from tests.unit.tasks.painted_domains import SIZE, pictures, write_painted
from tests.unit.training.test_detection import network as small_detector

PARTS = np.array((["train"] * 32 + ["validation"] * 4 + ["test"] * 8) * 2)
IS_YARD = np.arange(len(PARTS)) >= len(PARTS) // 2
HEADLINES = {"detection": ("map_50", "mAP50"), "segmentation": ("miou", "mIoU")}
EPOCHS = {"detection": 14, "segmentation": 3}
PROBLEMS = pytest.mark.parametrize("built", list(HEADLINES), indirect=True)


def settings(problem: str, **domains: Any) -> Parameters:
    training = {"backbone": "mobilenet-v2", "input_size": SIZE, "low_resolution_share": 0, "batch_size": 16}
    return Parameters.model_validate(
        {
            "problem": problem,
            "data": {"source": "photos", "images": "photos", "fit": "pad"},
            "finetune": {**training, "learning_rate": 1e-2, "layer_decay": 1, "ema_decay": 0.9, "augment": ["flip"]},
            "domains": {"most": 1, "epochs": EPOCHS[problem], "min_test_images": 8, **domains},
        }
    )


def small(patch: pytest.MonkeyPatch) -> None:
    """Let networks be small, untrained ones."""

    def detector(*_: Any) -> tuple[nn.Module, None]:
        return small_detector(), None

    def segmenter(*_: Any) -> tuple[nn.Module, None]:
        return small_segmenter(), None

    patch.setattr(tasks.detection_training, "pretrained_detector", detector)
    patch.setattr(tasks.segmentation_training, "pretrained_segmenter", segmenter)
    patch.setattr(tasks.leave_one_domain_out, "prepare_training", torch.manual_seed)  # what it sets would outlive this


@pytest.fixture(scope="module")
def built(request, tmp_path_factory):
    """The problem, and a folder after the step. The camera "yard" sees the negative of what "hall" does."""
    problem, root = request.param, tmp_path_factory.mktemp(request.param)
    seen = pictures(len(PARTS))
    packed = np.where(IS_YARD[:, None, None, None], 255 - seen, seen)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(root)
        small(patch)
        write_painted(problem, PARTS, np.where(IS_YARD, "yard", "hall"), packed)
        tasks.domains.run(settings(problem))
    return problem, root


@pytest.fixture
def copied(built, tmp_path, monkeypatch):
    """The problem, in a copy of the folder that may be broken."""
    shutil.copytree(built[1], tmp_path / "copy")
    monkeypatch.chdir(tmp_path / "copy")
    small(monkeypatch)
    return built[0]


@PROBLEMS
def test_a_camera_with_other_colours_that_was_never_seen_has_its_cost(built, monkeypatch):
    problem, root = built
    monkeypatch.chdir(root)
    scores = read_json(DOMAINS / "scores.json")
    assert (scores["named"], scores["reason"], scores["epochs"]) == (["hall", "yard"], "", EPOCHS[problem])
    assert scores["headline"] == HEADLINES[problem][0]
    assert scores["not_left_out"] == {"yard": "domains.most is 1"}
    (row,) = scores["left_out"]
    assert (row["domain"], row["n"], row["n_training"], row["unknown_classes"]) == ("hall", 8, 32, [])
    assert row["seen"]["value"] > 0.4
    assert row["change"]["high"] < 0
    assert row["change"]["value"] == pytest.approx(row["unseen"]["value"] - row["seen"]["value"], abs=2e-6)
    assert scores["all"] == {key: row[key] for key in ("n", "seen", "unseen", "change")}
    assert not list(Path(".kinglet/checkpoints").glob("domains-*"))


@PROBLEMS
def test_the_chapter_speaks_of_the_problems_own_score(built, monkeypatch):
    problem, root = built
    monkeypatch.chdir(root)
    chapter, word = tasks.chapters.domains.chapter(0.95), HEADLINES[problem][1]
    assert chapter["verdict"].startswith(f"On a domain that it was trained on the recipe reaches an {word} of ")
    assert "hall suffers most" in chapter["verdict"]
    assert (chapter["word"], chapter["is_share"]) == (word, False)
    assert "right about" not in chapter["verdict"]
