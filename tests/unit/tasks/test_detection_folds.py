"""Cross-validation where images have boxes: assign_folds, crossvalidate, pool_folds and label_errors in turn."""

from __future__ import annotations

import contextlib
import io
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval
from torch import nn

import tasks.crossvalidate
import tasks.detection_training
from kinglet.atomic import read_json
from kinglet.errors import KingletError
from tasks.artifacts import BOXES, CROSSVALIDATE, FOLDS, LABEL_ERROR_COUNTS, OUT_OF_FOLD, PROFILE
from tasks.chapters import cross_validation
from tasks.detection_report import SCORES as WORDS
from tasks.parameters import Parameters
from tests.unit.tasks.cross_validated import cross_validate
from tests.unit.tasks.painted_domains import SIZE, pictures, write_painted
from tests.unit.training.test_detection import network as small_detector

PARTS = np.array(["train"] * 28 + ["validation"] * 4 + ["test"] * 4)
N = 32
SCORES = Path("artifacts/pool_folds/scores.json")
SIDES = ["x1", "y1", "x2", "y2"]


def settings() -> Parameters:
    training = {"backbone": "mobilenet-v2", "input_size": SIZE, "low_resolution_share": 0, "batch_size": 4}
    return Parameters.model_validate(
        {
            "problem": "detection",
            "data": {"source": "p", "images": "p", "fit": "pad", "label_corrections": "corrections.csv"},
            "finetune": {**training, "learning_rate": 1e-2, "layer_decay": 1, "ema_decay": 0.9, "augment": ["flip"]},
            "crossvalidate": {"folds": [1, 2], "epochs": 24},
        }
    )


def small(patch: pytest.MonkeyPatch) -> None:
    """Let detectors be small, untrained ones."""

    def detector(*_: Any) -> tuple[nn.Module, None]:
        return small_detector(), None

    patch.setattr(tasks.detection_training, "pretrained_detector", detector)
    patch.setattr(tasks.crossvalidate, "prepare_training", lambda _: None)  # what it sets would outlive this


@pytest.fixture(scope="module")
def validated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project after all steps of the cross-validation."""
    root = tmp_path_factory.mktemp("folds")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(root)
        small(patch)
        write_painted("detection", PARTS, np.full(len(PARTS), ""), pictures(len(PARTS)))
        manifest = pd.read_parquet("artifacts/split/manifest.parquet")
        manifest.assign(group="").to_parquet("artifacts/split/manifest.parquet")
        PROFILE.mkdir()
        facts = {"index": manifest["index"], "near_group": manifest["index"]}
        facts["pixels_sha256"] = [f"{7919 * number % 104729:064x}" for number in manifest["index"]]
        pd.DataFrame(facts).to_parquet(PROFILE / "images.parquet")
        Path("corrections.csv").write_text("path,label,new_label,confidence,decision\n")
        cross_validate(settings())
    return root


@pytest.fixture
def here(validated: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(validated)
    small(monkeypatch)
    return validated


def coco_scores(rows: list[int], found: pd.DataFrame) -> dict[str, float]:
    """Return what pycocotools says of detections in these images."""
    boxes = pd.read_parquet(BOXES)
    boxes = boxes[boxes["index"].isin(rows)]
    number = {label: place for place, label in enumerate(("blue", "red"))}

    def annotation(row: Any, label: int) -> dict[str, Any]:
        width, height = row.x2 - row.x1, row.y2 - row.y1
        box = [float(value) for value in (row.x1, row.y1, width, height)]
        return {"image_id": int(row.index), "category_id": label, "bbox": box, "area": box[2] * box[3], "iscrowd": 0}

    truths = [annotation(row, number[row.label]) for row in boxes.itertuples(index=False, name="Box")]
    truth = COCO()
    truth.dataset = {
        "images": [{"id": row} for row in rows],
        "categories": [{"id": 0}, {"id": 1}],
        "annotations": [{**one, "id": place + 1} for place, one in enumerate(truths)],
    }
    answers = [
        {**annotation(row, int(row.label_index)), "score": float(row.score)}
        for row in found.itertuples(index=False, name="Box")
    ]
    with contextlib.redirect_stdout(io.StringIO()):
        truth.createIndex()
        evaluation = COCOeval(truth, truth.loadRes(answers), "bbox")
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    return {"map": evaluation.stats[0], "map_50": evaluation.stats[1]}


def test_every_image_is_held_out_once_and_its_detections_are_kept(here: Path) -> None:
    plan = pd.read_parquet(FOLDS)
    assert sorted(plan["index"]) == list(range(N))
    for fold in (1, 2):
        table = pd.read_parquet(CROSSVALIDATE / f"1-{fold}/predictions.parquet")
        assert list(table) == ["index", "label_index", "score", *SIDES]
        held_out = plan.loc[plan["fold"] == fold, "index"]
        assert set(table["index"]) <= set(held_out)
        facts = read_json(CROSSVALIDATE / f"1-{fold}/fold.json")
        assert facts["n"] == len(held_out)
        assert facts["n"] + facts["n_training"] + facts["n_validation"] == N
    assert not list(Path(".kinglet/checkpoints").glob("crossvalidate-*"))


def test_the_scores_are_those_of_pycocotools(here: Path) -> None:
    scores, plan = read_json(SCORES), pd.read_parquet(FOLDS)
    tables = [pd.read_parquet(CROSSVALIDATE / f"1-{fold}/predictions.parquet") for fold in (1, 2)]
    rows = [plan.loc[plan["fold"] == fold, "index"].tolist() for fold in (1, 2)]
    (pooled,) = scores["pooled"]
    of_all = {name: pooled[name]["value"] for name in ("map_50", "map")}
    for found, own, table in zip(
        [*scores["runs"], of_all], [*rows, [*rows[0], *rows[1]]], [*tables, pd.concat(tables)], strict=True
    ):
        expected = coco_scores(own, table)
        assert {name: found[name] for name in expected} == pytest.approx(expected, abs=1e-6)
    assert pooled["map_50"]["value"] > 0.2
    for name in ("map_50", "map"):
        mean = np.mean([run[name] for run in scores["runs"]])
        assert scores[name]["value"] == pytest.approx(mean, abs=1e-6)
        assert scores[name]["low"] <= mean <= scores[name]["high"]
        assert pooled[name]["low"] < pooled[name]["value"] < pooled[name]["high"]
    assert (scores["folds"], scores["repeats"], scores["n"], scores["epochs"]) == (2, 1, N, 24)


def test_the_chapter_draws_the_precision_of_the_folds(here: Path) -> None:
    teacher = {"test": {"map_50": {"value": 0.9}}}
    chapter = cross_validation.chapter(teacher, 0.95, {name: WORDS[name] for name in ("map_50", "map")}, 2000)
    assert chapter is not None
    assert "mAP50" in chapter["charts"]["wide"]
    assert chapter["resamples"] == 2000


def test_a_fold_trained_again_leaves_the_same_bytes(here: Path) -> None:
    files = sorted((CROSSVALIDATE / "1-1").iterdir())
    before = [path.read_bytes() for path in files]
    tasks.crossvalidate.run(settings(), 1, 1)
    assert [path.read_bytes() for path in files] == before


def test_boxes_have_no_wrong_labels_of_images(here: Path) -> None:
    assert len(pd.read_parquet(OUT_OF_FOLD)) == 0
    assert read_json(LABEL_ERROR_COUNTS)["suspicious"] == 0


def test_a_fold_whose_images_show_nothing_is_refused(
    here: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan, boxes = pd.read_parquet(FOLDS), pd.read_parquet(BOXES)
    boxes = boxes[~boxes["index"].isin(plan.loc[plan["fold"] == 1, "index"])]
    without = tmp_path / "boxes.parquet"
    boxes.to_parquet(without)
    monkeypatch.setattr(tasks.detection_training, "BOXES", without)
    with pytest.raises(KingletError, match=r"None of the \d+ held-out images has a box"):
        tasks.crossvalidate.run(settings(), 1, 1)
