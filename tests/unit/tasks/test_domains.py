"""The step domains: one left out after the other, and what is said where none can be."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

import tasks.chapters.domains
import tasks.class_domains
import tasks.domains
import tasks.leave_one_domain_out
from kinglet.atomic import read_json
from tasks.parameters import Parameters
from tests.unit.tasks.small_project import build_training_project, parameters

SCORES = Path("artifacts/domains/scores.json")
MANIFEST = Path("artifacts/split/manifest.parquet")


def settings(**domains: object) -> Parameters:
    finetune = {"input_size": 16, "batch_size": 16, "low_resolution_share": 0, "head_epochs": 1}
    return parameters(finetune=finetune, domains={"epochs": 1, "min_test_images": 3, **domains})


@pytest.fixture
def project(tmp_path, monkeypatch):
    build_training_project(tmp_path)
    monkeypatch.chdir(tmp_path)
    # What it sets would outlive the test.
    monkeypatch.setattr(tasks.leave_one_domain_out, "prepare_training", torch.manual_seed)
    Path("artifacts/ingest/manifest.parquet").write_bytes(b"manifest")
    return tmp_path


def name_domains(domains: list[str]) -> pd.DataFrame:
    """Give the images domains, in turn, and return the manifest."""
    manifest = pd.read_parquet(MANIFEST)
    manifest["domain"] = [domains[place // 10 % len(domains)] for place in range(len(manifest))]
    manifest.to_parquet(MANIFEST, index=False)
    return manifest


def test_every_domain_is_answered_by_a_model_that_never_saw_it(project, monkeypatch):
    manifest = name_domains(["lab", "", "yard"])
    learnt_from: list[set[int]] = []
    fine_tuned = tasks.class_domains.fine_tuned

    def watched(settings, training, validation, *rest):
        learnt_from.append({*training.rows.tolist(), *validation.rows.tolist()})
        return fine_tuned(settings, training, validation, *rest)

    monkeypatch.setattr(tasks.class_domains, "fine_tuned", watched)
    tasks.domains.run(settings())
    used = manifest[manifest["split"] != "test"]
    expected = [set(used["index"]), *(set(used.loc[used["domain"] != name, "index"]) for name in ("lab", "yard"))]
    assert learnt_from == expected
    scores = read_json(SCORES)
    assert (scores["named"], scores["reason"], scores["epochs"]) == (["lab", "yard"], "", 1)
    assert [(row["domain"], row["n"], row["n_training"]) for row in scores["left_out"]] == [
        ("lab", 4, 64),
        ("yard", 4, 64),
    ]
    assert scores["all"]["n"] == 8
    for row in [*scores["left_out"], scores["all"]]:
        difference = row["unseen"]["value"] - row["seen"]["value"]
        assert row["change"]["value"] == pytest.approx(difference, abs=2e-6)
        assert row["change"]["low"] <= row["change"]["value"] <= row["change"]["high"]
    pooled = np.mean([row["unseen"]["value"] for row in scores["left_out"]])
    assert scores["all"]["unseen"]["value"] == pytest.approx(pooled, abs=1e-6)
    assert not list(Path(".kinglet/checkpoints").glob("domains-*"))
    said = tasks.chapters.domains.chapter(0.95)["verdict"]
    assert "suffers most" in said


def test_a_training_goes_on_where_one_of_the_same_images_was_and_nowhere_else(project):
    manifest, given = name_domains(["lab", "yard"]), settings()
    recipe = tasks.class_domains.recipe_for(given, 96)
    without = {
        part: manifest[(manifest["split"] != part) | (manifest["domain"] != "lab")] for part in ("train", "validation")
    }
    folders = [
        tasks.leave_one_domain_out.checkpoint_of(images, recipe, [], given).folder
        for images in (manifest, *without.values(), manifest)
    ]
    assert len(set(folders)) == 3
    assert folders[0] == folders[-1]


@pytest.mark.parametrize(
    ("domains", "changes", "said"),
    [
        ([""], {}, "No image has a domain"),
        (["lab"], {}, "All images that have a domain are of one, lab: leaving it out would leave nothing"),
        (["lab", ""], {}, "are of one, lab"),
        (["lab", "yard"], {"most": 0}, "domains.most is 0: none of the 2 domains is left out."),
        (["lab", "yard"], {"min_test_images": 7}, "None of the domains can be left out: lab: 6 test images"),
    ],
    ids=["no column", "one", "one and some without", "switched off", "too few test images"],
)
def test_where_nothing_can_be_left_out_it_is_said_in_a_sentence(project, capsys, monkeypatch, domains, changes, said):
    name_domains(domains)
    monkeypatch.setattr(tasks.class_domains, "fine_tuned", None)  # nothing may be trained
    tasks.domains.run(settings(**changes))
    scores = read_json(SCORES)
    assert said in scores["reason"]
    assert scores["left_out"] == []
    assert f"note: {scores['reason']}" in capsys.readouterr().err
    chapter = tasks.chapters.domains.chapter(0.95)
    assert chapter is None if domains == [""] else chapter["verdict"] == scores["reason"]


def part(domains: list[str]) -> tasks.domains.Part:
    """Return images of two of four classes, in turn."""
    shows = np.arange(len(domains))[:, None] % 2 == np.arange(4)
    return tasks.domains.Part(np.array(domains, object), shows, np.arange(len(domains)))


def parts(train: list[str], validation: list[str], test: list[str]) -> dict[str, tasks.domains.Part]:
    return {"train": part(train), "validation": part(validation), "test": part(test)}


def test_domains_that_are_not_left_out_are_named_with_the_reason():
    test = [*["a"] * 9, *["b"] * 5, *["c"] * 5, *["d"] * 2]
    found = tasks.domains.not_left_out(
        ["a", "b", "c", "d"], parts(["a", "b", "c", "d"], ["a", "c"], test), settings(most=1).domains
    )
    assert found == {
        "d": "2 test images, domains.min_test_images is 3",
        "b": "domains.most is 1",
        "c": "domains.most is 1",
    }
    alone = tasks.domains.not_left_out(["a", "b"], parts(["a", "b"], ["a", "a"], test), settings().domains)
    assert alone == {"a": "without it no image is left to learn from"}


def test_tiles_of_one_image_are_no_test_images_of_their_own():
    tiled = parts(["a", "b"], ["a", "b"], ["a"] * 6 + ["b"] * 6)
    tiled["test"] = replace(tiled["test"], wholes=np.array([0] * 6 + [1, 1, 2, 2, 3, 3]))
    found = tasks.domains.not_left_out(["a", "b"], tiled, settings().domains)
    assert found == {"a": "1 test images, domains.min_test_images is 3"}


def test_a_domain_that_shows_nothing_or_holds_all_there_is_to_learn_is_not_left_out():
    empty = parts(["a", "b"], ["a", "b"], ["a", "b"] * 4)
    empty["train"].shows[1] = False
    empty["test"].shows[1::2] = False
    found = tasks.domains.not_left_out(["a", "b"], empty, settings().domains)
    assert found == {
        "a": "without it no image is left to learn from",
        "b": "its test images show nothing of any class",
    }


def test_classes_that_only_one_domain_has_are_named(project):
    training = part(["lab", "yard", "lab", "yard"])
    # Labels 0 and 1 of four classes: "a" only in lab, "b" only in yard; "c" and "d" in none.
    assert tasks.domains.unknown_classes(["lab", "yard"], training) == {"lab": ["a", "c", "d"], "yard": ["b", "c", "d"]}
