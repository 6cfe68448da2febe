"""Cross-validation where images have masks: assign_folds, crossvalidate, pool_folds and label_errors in turn."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from sklearn import metrics

from kinglet.atomic import read_json
from kinglet.data.packed_masks import MaskedImages
from kinglet.errors import KingletError
from kinglet.reporting import silent
from kinglet.runtime.segmentation import VOID
from kinglet.training.checkpoints import Checkpoint
from tasks import crossvalidate, segmentation_folds
from tasks.artifacts import CROSSVALIDATE, FINETUNE, FOLDS, LABEL_ERROR_COUNTS, OUT_OF_FOLD, TEACHER, read_card
from tasks.parameters import Parameters
from tasks.segmentation_benchmark import mask_decoding_time
from tasks.teacher import keep_teacher
from tests.unit.data.test_mask_augmentation import painted
from tests.unit.models.segmenter_files import lively_segmenter
from tests.unit.tasks.cross_validated import cross_validate

CLASSES = ["background", "blot"]
SIZE, WIDTH, HEIGHT, N = 64, 96, 48, 12
SCORES = Path("artifacts/pool_folds/scores.json")


def settings() -> Parameters:
    return Parameters.model_validate(
        {
            "problem": "segmentation",
            "data": {"source": "cells", "images": "cells", "fit": "pad", "label_corrections": "corrections.csv"},
            "finetune": {"backbone": "mobilenet-v2", "input_size": SIZE, "low_resolution_share": 0, "batch_size": 4},
            "crossvalidate": {"folds": [1, 2], "epochs": 0.04},
        }
    )


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project with wide images and their masks, of which the first columns are void; nothing of it is trained."""
    root = tmp_path_factory.mktemp("folds")
    for folder in ("ingest/masks", "split", "profile"):
        (root / "artifacts" / folder).mkdir(parents=True)
    images, index = painted(N), np.arange(N)
    packed, masks = images.packed.copy(), images.masks.copy()
    for bar in (slice(0, 16), slice(48, SIZE)):
        packed[:, bar], masks[:, bar] = 0, VOID
    masks[:, :, :6] = VOID
    np.save(root / f"artifacts/ingest/images_{SIZE}.npy", packed)
    np.save(root / f"artifacts/ingest/masks_{SIZE}.npy", masks)
    for place in index.tolist():
        own = Image.fromarray(masks[place, 16:48]).resize((WIDTH, HEIGHT), Image.Resampling.NEAREST)
        own.save(root / f"artifacts/ingest/masks/{place}.png")
    parts = np.where(index < 9, "train", np.where(index < 10, "validation", "test"))
    facts = pd.DataFrame({"index": index, "width": WIDTH, "height": HEIGHT, "near_group": index})
    facts["pixels_sha256"] = [f"{number:064x}" for number in index]
    for step in ("ingest/manifest", "profile/images"):
        facts.to_parquet(root / f"artifacts/{step}.parquet", index=False)
    manifest = pd.DataFrame({"index": index, "split": parts, "label_index": -1, "group": "", "path": "p"})
    manifest.to_parquet(root / "artifacts/split/manifest.parquet", index=False)
    (root / "artifacts/split/classes.json").write_text(json.dumps(CLASSES))
    sizes = {"teacher": SIZE, "low_resolution": SIZE, "student": SIZE, "students": {}, "candidates": []}
    (root / "artifacts/ingest/source.json").write_text(json.dumps({"input_sizes": sizes, "short_side": HEIGHT}))
    (root / "corrections.csv").write_text("path,label,new_label,confidence,decision\n")
    return root


@pytest.fixture(scope="module")
def validated(project: Path) -> Path:
    """The project after all steps of the cross-validation."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(project)
        cross_validate(settings())
    return project


@pytest.fixture
def here(validated: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(validated)
    return validated


def test_every_known_pixel_of_a_folds_images_is_counted_once(here: Path) -> None:
    plan = pd.read_parquet(FOLDS)
    assert sorted(plan["index"]) == list(range(10))
    for fold in (1, 2):
        table = pd.read_parquet(CROSSVALIDATE / f"1-{fold}/predictions.parquet")
        assert table.dtypes.astype(str).to_dict() == dict.fromkeys(("index", "truth", "predicted", "pixels"), "int64")
        held_out = plan.loc[plan["fold"] == fold, "index"]
        counted = table.groupby("index")["pixels"].sum()
        assert counted.to_dict() == {
            index: (np.asarray(Image.open(f"artifacts/ingest/masks/{index}.png")) != VOID).sum()
            for index in sorted(held_out)
        }
        facts = read_json(CROSSVALIDATE / f"1-{fold}/fold.json")
        assert facts["n"] == len(held_out)
        assert facts["n"] + facts["n_training"] + facts["n_validation"] == 10


def test_the_scores_are_those_of_scikit_learn(here: Path) -> None:
    scores = read_json(SCORES)
    tables = [pd.read_parquet(CROSSVALIDATE / f"1-{fold}/predictions.parquet") for fold in (1, 2)]
    (pooled,) = scores["pooled"]
    of_all = {name: pooled[name]["value"] for name in ("pixel_accuracy", "miou", "dice")}
    for found, table in zip([*scores["runs"], of_all], [*tables, pd.concat(tables)], strict=True):
        pair, weights = (table["truth"], table["predicted"]), table["pixels"]
        expected = {
            "pixel_accuracy": metrics.accuracy_score(*pair, sample_weight=weights),
            "miou": metrics.jaccard_score(*pair, sample_weight=weights, average="macro"),
            "dice": metrics.f1_score(*pair, sample_weight=weights, average="macro"),
        }
        assert {name: found[name] for name in expected} == pytest.approx(expected, abs=1e-6)
    for name in ("pixel_accuracy", "miou", "dice"):
        mean = np.mean([run[name] for run in scores["runs"]])
        assert scores[name]["value"] == pytest.approx(mean, abs=1e-6)
        assert scores[name]["low"] <= mean <= scores[name]["high"]
        assert pooled[name]["low"] < pooled[name]["value"] < pooled[name]["high"]
    assert (scores["folds"], scores["repeats"], scores["n"]) == (2, 1, 10)


def test_a_fold_trained_again_leaves_the_same_bytes(here: Path) -> None:
    files = sorted((CROSSVALIDATE / "1-1").iterdir())
    before = [path.read_bytes() for path in files]
    crossvalidate.run(settings(), 1, 1)
    assert [path.read_bytes() for path in files] == before


def test_masks_have_no_wrong_labels_of_images(here: Path) -> None:
    assert len(pd.read_parquet(OUT_OF_FOLD)) == 0
    assert read_json(LABEL_ERROR_COUNTS)["suspicious"] == 0


def test_a_fold_whose_masks_are_void_is_refused(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def without_a_class(manifest: pd.DataFrame, split: str, size: int) -> MaskedImages:
        images = painted(2)
        return MaskedImages(images.packed, np.full_like(images.masks, VOID if split == "held out" else 0), images.rows)

    monkeypatch.setattr(segmentation_folds, "masked_images", without_a_class)
    with pytest.raises(KingletError, match="None of the 2 held-out images has a pixel with a class"):
        crossvalidate.run(settings(), 1, 1)


def test_images_are_answered_in_their_own_pixels_as_their_file_is_served(here: Path) -> None:
    network = lively_segmenter(2, 1)
    images = MaskedImages(
        np.load("artifacts/ingest/images_64.npy"), np.load("artifacts/ingest/masks_64.npy"), np.arange(2)
    )
    found = segmentation_folds.own_confusions(network, images, ["cell", "edge"], settings(), silent)
    packed_pixels = sum((images.masks[row] != VOID).sum() for row in range(2))
    own_pixels = sum((np.asarray(Image.open(f"artifacts/ingest/masks/{row}.png")) != VOID).sum() for row in range(2))
    assert found.sum() == own_pixels
    assert own_pixels > 1.5 * packed_pixels
    assert (found.sum(1) > 0).all()


def test_the_time_of_decoding_is_that_of_the_validation_images_own_pixels(here: Path) -> None:
    keep_teacher(
        lively_segmenter(2, 1),
        Checkpoint(here / "checkpoint"),
        problem="segmentation",
        input_size=SIZE,
        channels=1,
        fit="pad",
        mean=[0.449],
        std=[0.226],
        classes=CLASSES,
        notes={},
    )
    found = mask_decoding_time(FINETUNE / TEACHER, read_card(FINETUNE / TEACHER))
    assert found["p50_ms"] > 0
    assert (found["images"], found["megapixels_per_image"]) == (1, round(WIDTH * HEIGHT / 1e6, 4))
