"""adapt for detectors and segmenters: batch statistics of a domain, scored as `evaluate` scores a model there."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from torch import nn

import tasks.adapt
import tasks.chapters.adaptation
import tasks.evaluate
import tasks.image_adaptation
from kinglet.atomic import read_json, write_json
from kinglet.data.batches import standardize
from tasks.artifacts import ADAPT, ADAPTED_MODELS, BOXES, INGEST, SPLIT, mask_file
from tasks.models import load_model, save_model
from tasks.parameters import Parameters
from tests.unit.data.painted_rectangles import painted
from tests.unit.models.segmenter_files import lively_segmenter
from tests.unit.models.test_detector import lively, small_detector

SIZE = 64
PARTS = np.array(["train"] * 4 + ["validation"] * 4 + ["test"] * 12 + ["adaptation"] * 16 + ["target_test"] * 10)
IS_TARGET = np.isin(PARTS, ["adaptation", "target_test"])
MEAN, STD = [0.45] * 3, [0.25] * 3
CLASSES = {"detection": ["blue", "red"], "segmentation": ["background", "blue", "red"]}
HEADLINES = {"detection": "map_50", "segmentation": "miou"}
PROBLEMS = pytest.mark.parametrize("built", list(HEADLINES), indirect=True)


def settings(problem: str) -> Parameters:
    return Parameters.model_validate(
        {
            "problem": problem,
            "data": {"source": "photos", "images": "photos", "fit": "pad"},
            "finetune": {"backbone": "mobilenet-v2", "input_size": SIZE},
            "adapt": {"models": ["teacher"], "target": "yard", "methods": ["batch_norm"], "source_share": 0.25},
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
    images, n = painted(len(PARTS), size=SIZE, seed=3), len(PARTS)
    packed = np.where(IS_TARGET[:, None, None, None], images.packed // 2, images.packed)
    for folder in (INGEST, SPLIT):
        folder.mkdir(parents=True)
    np.save(INGEST / f"images_{SIZE}.npy", packed)
    index = np.arange(n)
    pd.DataFrame({"index": index, "width": SIZE, "height": SIZE}).to_parquet(INGEST / "manifest.parquet")
    columns = {"index": index, "path": [f"{number}.png" for number in index], "label_index": -1, "split": PARTS}
    columns |= {"domain": np.where(IS_TARGET, "yard", ""), "sha256": [f"{17 * number % 97:02}" for number in index]}
    pd.DataFrame(columns).to_parquet(SPLIT / "manifest.parquet")
    write_json(SPLIT / "classes.json", CLASSES[problem])
    rows = []
    for number, objects in enumerate(images.objects):
        mask = np.zeros((SIZE, SIZE), np.uint8)
        for (x1, y1, x2, y2), label in zip(objects.xyxy.astype(int).tolist(), objects.labels.tolist(), strict=True):
            rows.append({"index": number, "label": CLASSES["detection"][label], "x1": x1, "y1": y1, "x2": x2, "y2": y2})
            mask[y1:y2, x1:x2] = 1 + label
        mask_file(number).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(mask).save(mask_file(number))
    pd.DataFrame(rows).astype(dict.fromkeys(("x1", "y1", "x2", "y2"), float)).to_parquet(BOXES)
    facts = {"step": "finetune", "parent": "", "input_size": SIZE, "channels": 3, "fit": "pad", "notes": {}}
    facts |= {"mean": MEAN, "std": STD, "classes": CLASSES[problem], "problem": problem}
    save_model(Path("artifacts/finetune/teacher"), network_of(problem), **facts)


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


@PROBLEMS
def test_scores_are_those_that_evaluate_gives_a_model_on_the_domain_and_beside_it(built, tmp_path, monkeypatch):
    problem, root = built
    shutil.copytree(root, tmp_path / "copy")
    monkeypatch.chdir(tmp_path / "copy")
    scores, name = read_json(ADAPT / "scores.json"), HEADLINES[problem]
    assert (scores["target"], scores["is_made"], scores["headline"]) == ("yard", False, name)
    of_model = scores["models"]["teacher"]
    assert of_model["images"] == {"adaptation": 16, "labelled": 0, "held_out": 10, "source": 12}
    after = of_model["methods"]["batch_norm"]
    manifest = pd.read_parquet(SPLIT / "manifest.parquet")
    for part, word in (("test", "source"), ("target_test", "target")):
        shown = manifest[manifest["split"].isin(["validation", part])]
        shown.replace({"split": {part: "test"}}).to_parquet(SPLIT / "manifest.parquet")
        values = []
        for folder, found in ((None, of_model), (ADAPTED_MODELS / "teacher-batch-norm", after)):
            if folder:
                for file in folder.iterdir():
                    shutil.copy(file, "artifacts/finetune/teacher")
            tasks.evaluate.run(settings(problem))
            (scored,) = read_json(Path("artifacts/evaluate/scores.json"))["models"].values()
            assert found[f"{word}_{name}"] == scored["test"][name]
            values.append(scored["test"][name]["value"])
        assert after[f"{word}_change"]["value"] == pytest.approx(values[1] - values[0], abs=2e-6)
        shutil.copytree(root / "artifacts/finetune/teacher", "artifacts/finetune/teacher", dirs_exist_ok=True)


@PROBLEMS
def test_the_first_statistics_are_a_mixture_with_those_of_the_images_to_adapt_to(built, monkeypatch):
    _, root = built
    monkeypatch.chdir(root)
    before, card = load_model(Path("artifacts/finetune/teacher"))
    after, _ = load_model(ADAPTED_MODELS / "teacher-batch-norm")
    packed = np.load(INGEST / f"images_{SIZE}.npy")[PARTS == "adaptation"]
    inputs = standardize(torch.from_numpy(packed.transpose(0, 3, 1, 2)).float(), card.mean, card.std)
    seen = []
    first, adapted = (
        next(module for module in network.modules() if isinstance(module, nn.BatchNorm2d))
        for network in (before, after)
    )
    first.register_forward_pre_hook(lambda _, given: seen.append(given[0]))
    with torch.no_grad():
        before(inputs)
    expected = 0.75 * seen[0].mean((0, 2, 3)) + 0.25 * first.running_mean
    torch.testing.assert_close(adapted.running_mean, expected, atol=1e-4, rtol=1e-3)
    for (name, one), (_, other) in zip(before.named_parameters(), after.named_parameters(), strict=True):
        assert torch.equal(one, other), name  # nothing is trained


@PROBLEMS
def test_the_report_says_what_was_won_in_the_problems_own_metric(built, monkeypatch):
    problem, root = built
    monkeypatch.chdir(root)
    chapter = tasks.chapters.adaptation.chapter(0.95)
    word = {"detection": "mAP50", "segmentation": "mIoU"}[problem]
    (said,) = chapter["verdicts"]
    assert said.startswith(f"teacher reaches an {word} of ")
    assert " on the held-out images of the domain yard, and of " in said
    assert "After batch statistics (on 16 without labels) it reaches " in said
    assert f"Where it came from its {word} changes by " in said
    assert np.load(ADAPT / "pictures.npy").shape == (2, 8, SIZE, SIZE, 3)
