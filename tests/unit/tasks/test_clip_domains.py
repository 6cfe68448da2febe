"""The step domains where videos have classes: small networks, trained for real on two cameras' clips."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import kinglet.training.epochs
import tasks.chapters.domains
import tasks.clip_training
import tasks.domains
import tasks.leave_one_domain_out
from kinglet.atomic import read_json
from tasks import clip_domains, clip_folds
from tasks.artifacts import DOMAINS
from tasks.parameters import Parameters
from tests.unit.models.clip_classifier_files import SIZE, small_clip_classifier
from tests.unit.tasks.moving_domains import VIDEO, filmed, write_moving

PARTS = np.array((["train"] * 30 + ["validation"] * 6 + ["test"] * 12) * 2)
IS_YARD = np.arange(len(PARTS)) >= len(PARTS) // 2


def settings(**domains: Any) -> Parameters:
    training = {"backbone": "mobilenet-v2", "input_size": SIZE, "batch_size": 6, "ema_decay": 0.9, "augment": []}
    return Parameters.model_validate(
        {
            **VIDEO,
            "finetune": {**training, "learning_rate": 1e-2, "layer_decay": 1},
            "recurrent": {"epochs": 16, "batch_size": 6, "learning_rate": 2e-2, "dropout": 0},
            "domains": {"most": 1, "epochs": 1, "min_test_images": 12, **domains},
        }
    )


def small(patch: pytest.MonkeyPatch) -> None:
    """Let networks be small, untrained ones."""

    def network(*_: Any, **__: Any) -> tuple[nn.Module, None]:
        return small_clip_classifier(), None

    patch.setattr(tasks.clip_training, "pretrained_clip_classifier", network)
    patch.setattr(tasks.leave_one_domain_out, "prepare_training", torch.manual_seed)  # what it sets would outlive this


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    """A folder after the step. The camera "yard" sees blue what "hall" sees red."""
    root, seen = tmp_path_factory.mktemp("clips"), filmed(len(PARTS))
    packed = np.where(IS_YARD[:, None, None, None, None], seen[..., ::-1], seen)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(root)
        small(patch)
        write_moving(PARTS, np.where(IS_YARD, "yard", "hall"), packed)
        tasks.domains.run(settings())
    return root


@pytest.fixture
def copied(built, tmp_path, monkeypatch):
    """A copy of the folder that may be broken."""
    shutil.copytree(built, tmp_path / "copy")
    monkeypatch.chdir(tmp_path / "copy")
    small(monkeypatch)


def test_a_camera_that_was_never_seen_has_its_cost_in_clips(built, monkeypatch):
    monkeypatch.chdir(built)
    scores = read_json(DOMAINS / "scores.json")
    assert (scores["named"], scores["reason"], scores["epochs"]) == (["hall", "yard"], "", 1)
    assert (scores["headline"], scores["not_left_out"]) == ("accuracy", {"yard": "domains.most is 1"})
    (row,) = scores["left_out"]
    assert (row["domain"], row["n"], row["n_training"], row["unknown_classes"]) == ("hall", 12, 30, [])
    assert row["seen"]["value"] > 0.5
    assert row["change"]["high"] < 0
    assert row["change"]["value"] == pytest.approx(row["unseen"]["value"] - row["seen"]["value"], abs=2e-6)
    assert scores["all"] == {key: row[key] for key in ("n", "seen", "unseen", "change")}
    assert not list(Path(".kinglet/checkpoints").glob("domains-*"))
    said = tasks.chapters.domains.chapter(0.95, "clips")["verdict"]
    assert " of the test clips, on one that it never saw about " in said
    assert "hall suffers most" in said


def test_an_interrupted_step_trains_no_part_again(copied, monkeypatch):
    scores = (DOMAINS / "scores.json").read_bytes()
    (DOMAINS / "scores.json").unlink()
    answers, calls = clip_domains.probabilities_of, []

    def killed(*given: Any) -> list[np.ndarray]:
        calls.append(given)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return answers(*given)

    with monkeypatch.context() as patch:
        patch.setattr(clip_domains, "probabilities_of", killed)
        with pytest.raises(KeyboardInterrupt):
            tasks.domains.run(settings())
    kept = sorted(path.name.rpartition("-")[0] for path in Path(".kinglet/checkpoints").iterdir())
    assert kept == ["domains-recurrent"] * 2 + ["domains-whole"] * 2
    # Maps of clips are nothing that a finished training needs.
    assert not list(Path(".kinglet/checkpoints").rglob("*.npy"))
    monkeypatch.setattr(kinglet.training.epochs, "_train_epoch", None)  # nothing may be trained
    tasks.domains.run(settings())
    assert (DOMAINS / "scores.json").read_bytes() == scores
    assert not list(Path(".kinglet/checkpoints").iterdir())


def test_a_backbone_that_the_teacher_leaves_as_it_is_stays_unless_epochs_are_named():
    as_it_is = settings().finetune.model_copy(update={"epochs": 0})
    assert clip_folds.shortened(as_it_is, "auto").epochs == 0
    assert clip_folds.shortened(as_it_is, 3).epochs == 3
    assert clip_folds.shortened(settings().finetune.model_copy(update={"epochs": 7}), "auto").epochs == "auto"


@pytest.mark.parametrize(
    ("domains", "changes", "said"),
    [
        ([""], {}, "No clip has a domain, so that none is left out; a table names it"),
        (["lab"], {}, "All clips that have a domain are of one, lab: leaving it out would leave nothing to learn"),
        (["lab", "yard"], {"min_test_images": 13}, "lab: 12 test clips, domains.min_test_images is 13"),
    ],
)
def test_where_nothing_can_be_left_out_it_is_said_of_clips(tmp_path, monkeypatch, capsys, domains, changes, said):
    monkeypatch.chdir(tmp_path)
    write_moving(PARTS, np.array(domains)[np.arange(len(PARTS)) % len(domains)], filmed(len(PARTS)))
    monkeypatch.setattr(tasks.clip_training, "fit_behind", None)  # nothing may be trained
    tasks.domains.run(settings(**changes))
    assert said in capsys.readouterr().err
