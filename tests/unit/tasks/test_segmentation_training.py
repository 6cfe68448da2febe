"""The training step where images have masks, on a handful of painted blots."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pandas as pd
import pytest
import torch

from kinglet.data import mask_augmentation
from kinglet.errors import KingletError
from kinglet.models.registry import pretrained_segmenter
from kinglet.runtime.segmentation import VOID
from kinglet.runtime.sessions import read_metadata
from kinglet.training.schedules import EpochBudget
from tasks import finetune
from tasks.artifacts import read_card
from tasks.models import load_model, read_manifest, save_model
from tasks.parameters import Parameters, load_parameters
from tasks.segmentation_quantize import judged_segmenters
from tasks.segmentation_training import BUDGET, masked_images, segmenter_recipe
from tasks.setting_values import MASK_AUGMENTATIONS
from tests.unit.data.test_mask_augmentation import painted

CLASSES = ["background", "blot"]
SIZE = 64
PARTS = ["train"] * 8 + ["validation"] * 3


def settings(**changes: Any) -> Parameters:
    training = {
        "backbone": "mobilenet-v2",
        "input_size": SIZE,
        "low_resolution_share": 0,
        "epochs": 0.06,
        "batch_size": 4,
    }
    return Parameters.model_validate(
        {
            "problem": "segmentation",
            "data": {"source": "cells", "images": "cells", "fit": "pad"},
            "finetune": {**training, **changes},
        }
    )


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with what `ingest` and `split` leave for gray images with bars at the left."""
    monkeypatch.chdir(tmp_path)
    for folder in ("artifacts/ingest", "artifacts/split"):
        Path(folder).mkdir(parents=True)
    images = painted(len(PARTS))
    masks = images.masks.copy()
    masks[:, :, :6] = VOID
    np.save(f"artifacts/ingest/images_{SIZE}.npy", images.packed)
    np.save(f"artifacts/ingest/masks_{SIZE}.npy", masks)
    index = np.arange(len(PARTS))
    pd.DataFrame({"index": index, "width": SIZE, "height": SIZE}).to_parquet("artifacts/ingest/manifest.parquet")
    pd.DataFrame({"index": index, "split": PARTS, "label_index": -1}).to_parquet("artifacts/split/manifest.parquet")
    Path("artifacts/split/classes.json").write_text(json.dumps(CLASSES))
    sizes = {"teacher": SIZE, "low_resolution": SIZE, "student": SIZE, "students": {}, "candidates": []}
    Path("artifacts/ingest/source.json").write_text(json.dumps({"input_sizes": sizes, "short_side": SIZE}))
    return tmp_path


def test_the_teacher_of_a_segmentation_is_a_segmenter_and_its_file_says_so(project: Path) -> None:
    finetune.run(settings())
    network, card = load_model(project / "artifacts/finetune/teacher")
    assert (card.problem, card.classes, card.input_size, card.channels) == ("segmentation", CLASSES, SIZE, 1)
    assert card.architecture["family"] == "segmenter"
    assert card.notes["history"][0]["miou"] > 0
    session = onnxruntime.InferenceSession("artifacts/finetune/teacher/model.onnx", providers=["CPUExecutionProvider"])
    preprocessing, classes = read_metadata(session)
    assert (preprocessing, classes) == (card.preprocessing, CLASSES)
    assert json.loads(session.get_modelmeta().custom_metadata_map["kinglet.problem"]) == "segmentation"
    images = torch.randn(2, 1, SIZE, SIZE)
    with torch.inference_mode():
        expected = network(images).numpy()
    np.testing.assert_allclose(session.run(None, {"images": images.numpy()})[0], expected, atol=1e-3, rtol=1e-3)
    assert not list((project / ".kinglet/checkpoints").glob("*"))


def test_a_training_without_a_labelled_pixel_is_refused(project: Path) -> None:
    masks = np.load(f"artifacts/ingest/masks_{SIZE}.npy")
    masks[8:] = VOID
    np.save(f"artifacts/ingest/masks_{SIZE}.npy", masks)
    with pytest.raises(KingletError, match="None of the 3 validation images has a pixel with a class"):
        finetune.run(settings())
    assert not Path("artifacts/finetune").exists()


def test_images_come_with_the_masks_of_their_split(project: Path) -> None:
    images = masked_images(read_manifest(), "validation", SIZE)
    assert images.rows.tolist() == [8, 9, 10]
    assert images.counts(2).sum() == 3 * SIZE * (SIZE - 6)


def test_int8_segmenters_are_judged_by_validation_images_and_calibrated_by_training_images(project: Path) -> None:
    network, _ = pretrained_segmenter("mobilenet-v2", 1, len(CLASSES), 0)
    folder = project / "artifacts/finetune/teacher"
    facts: dict[str, Any] = {"mean": [0.5], "std": [0.25], "classes": CLASSES, "notes": {}, "problem": "segmentation"}
    save_model(folder, network, step="finetune", parent="", input_size=SIZE, channels=1, fit="pad", **facts)
    calibration, judge = judged_segmenters(onnx.load(folder / "model.onnx"), read_card(folder), settings().quantize, 0)
    assert sorted(judge.choice.rows.tolist()) == [8, 9, 10]
    packed = np.load(f"artifacts/ingest/images_{SIZE}.npy")
    assert {image.tobytes() for image in calibration} == {image.tobytes() for image in packed[:8]}


def test_windows_come_first_and_a_budget_decides_how_many_epochs() -> None:
    recipe = segmenter_recipe(settings(epochs=10, low_resolution_share=0.6).finetune, 512, 24, 0, BUDGET)
    assert recipe.phases == ((6.0, 256), (4.0, 512))
    whole = segmenter_recipe(settings(epochs=10).finetune, 512, 24, 0, BUDGET)
    assert whole.phases == ((10.0, 512),)
    # 144 pictures of 256 pixels and 144 of 512, half of the epochs each, are 23.6 million pixels an epoch.
    budget = EpochBudget(pixels=118e6, fewest=1, most=60)
    planned = segmenter_recipe(settings(epochs="auto", low_resolution_share=0.5).finetune, 512, 24, 0, budget)
    assert sum(epochs for epochs, _ in planned.phases) == pytest.approx(5.0)


def test_few_images_are_turned_and_many_are_shown_at_other_scales() -> None:
    few, many = (segmenter_recipe(settings().finetune, 512, n, 0, BUDGET).augment for n in (24, 2400))
    assert few == ("flip", "flip_vertically", "turn", "crop", "color")
    assert many == ("flip", "crop", "scale", "color")
    named = segmenter_recipe(settings(augment=["elastic"]).finetune, 512, 24, 0, BUDGET)
    assert named.augment == ("elastic",)


def test_the_known_augmentations_are_those_of_the_library() -> None:
    assert mask_augmentation.MASK_AUGMENTATIONS == MASK_AUGMENTATIONS


def test_the_settings_that_segmentation_begins_with_can_be_read() -> None:
    assert load_parameters(Path("params/segmentation.yaml")).problem == "segmentation"
