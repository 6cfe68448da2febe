"""The step domains where images have boxes or masks: small networks, trained for real on two cameras' images."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from torch import nn

import kinglet.training.epochs
import tasks.chapters.domains
import tasks.detection_training
import tasks.domains
import tasks.leave_one_domain_out
import tasks.segmentation_training
from kinglet.atomic import read_json, write_json
from kinglet.evidence.detection_matches import Objects
from kinglet.evidence.segmentation_scores import MaskCounts
from kinglet.runtime.segmentation import VOID
from tasks import segmentation_domains
from tasks.artifacts import BOXES, DOMAINS, SPLIT, TILES, packed_masks
from tasks.found_objects import Found, together
from tasks.parameters import Parameters
from tests.unit.models.segmenter_files import small_segmenter
from tests.unit.tasks.painted_domains import CLASSES, SIZE, pictures, write_painted
from tests.unit.training.test_detection import network as small_detector

PARTS = np.array((["train"] * 24 + ["validation"] * 4 + ["test"] * 8) * 2)
IS_YARD = np.arange(len(PARTS)) >= len(PARTS) // 2
HEADLINES = {"detection": ("map_50", "mAP50"), "segmentation": ("miou", "mIoU")}
EPOCHS = {"detection": 14, "segmentation": 2}
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
    assert (row["domain"], row["n"], row["n_training"], row["unknown_classes"]) == ("hall", 8, 24, [])
    assert row["seen"]["value"] > 0.3
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


@pytest.mark.parametrize("built", ["segmentation"], indirect=True)
def test_an_interrupted_step_trains_nothing_again(copied, monkeypatch):
    scores = (DOMAINS / "scores.json").read_bytes()
    (DOMAINS / "scores.json").unlink()
    count_answers, calls = segmentation_domains.count_answers, []

    def killed(*given: Any) -> MaskCounts:
        calls.append(given)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return count_answers(*given)

    with monkeypatch.context() as patch:
        patch.setattr(segmentation_domains, "count_answers", killed)
        with pytest.raises(KeyboardInterrupt):
            tasks.domains.run(settings(copied))
    assert len(list(Path(".kinglet/checkpoints").glob("domains-*"))) == 2
    assert not (DOMAINS / "scores.json").exists()
    monkeypatch.setattr(kinglet.training.epochs, "_train_epoch", None)  # nothing may be trained
    tasks.domains.run(settings(copied))
    assert (DOMAINS / "scores.json").read_bytes() == scores
    assert not list(Path(".kinglet/checkpoints").glob("domains-*"))


def test_classes_of_a_domain_alone_are_those_that_no_other_image_has_a_box_or_a_pixel_of(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_painted("segmentation", PARTS, np.where(IS_YARD, "yard", "hall"), pictures(len(PARTS)))
    yard = np.flatnonzero(IS_YARD)
    masks, boxes = np.load(packed_masks(SIZE)), pd.read_parquet(BOXES)
    masks[yard] = np.where(masks[yard] == 2, VOID, masks[yard])
    np.save(packed_masks(SIZE), masks)
    of_masks = tasks.domains.read_part("train", "segmentation")
    assert tasks.domains.unknown_classes(["hall", "yard"], of_masks) == {"hall": ["red"], "yard": []}
    write_json(SPLIT / "classes.json", CLASSES["detection"])
    boxes[~(boxes["index"].isin(yard) & (boxes["label"] == "red"))].to_parquet(BOXES)
    of_boxes = tasks.domains.read_part("train", "detection")
    assert tasks.domains.unknown_classes(["hall", "yard"], of_boxes) == {"hall": ["red"], "yard": []}
    has_red = {index for index, label in boxes[["index", "label"]].itertuples(index=False) if label == "red"}
    rows = np.flatnonzero(PARTS == "train")
    expected = [index in has_red and not IS_YARD[index] for index in rows.tolist()]
    assert of_boxes.shows[:, 1].tolist() == expected
    assert of_masks.shows[:, 2].tolist() == expected


def test_tiles_are_numbered_by_their_image(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    TILES.parent.mkdir(parents=True)
    assert tasks.domains.wholes_of(np.array([3, 5])).tolist() == [3, 5]
    pd.DataFrame({"index": [2, 3, 4, 5], "image": ["a", "b", "b", "c"]}).to_parquet(TILES)
    assert tasks.domains.wholes_of(np.array([3, 4, 5])).tolist() == [0, 0, 1]


def test_detections_of_several_domains_are_put_one_behind_the_other():
    def found(images: list[int], n_images: int) -> Found:
        boxes = np.arange(4 * len(images), dtype=float).reshape(-1, 4)
        objects = Objects(np.array(images, np.int64), np.zeros(len(images), np.int64), boxes)
        return Found(objects, replace(objects, scores=np.linspace(1, 0, len(images))), n_images)

    pooled = together([found([0, 2], 3), found([], 1), found([0, 1, 1], 2)])
    assert pooled.n_images == 6
    assert pooled.truths.images.tolist() == pooled.found.images.tolist() == [0, 2, 4, 5, 5]
    assert pooled.truths.scores is None
    assert pooled.found.scores.tolist() == [1, 0, 1, 0.5, 0]
    assert len(pooled.found.xyxy) == 5
