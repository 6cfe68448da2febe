"""The training step where images have boxes, on a handful of painted rectangles."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pandas as pd
import pytest
import torch

from kinglet.data.resolutions import low_resolution_of_detector
from kinglet.errors import KingletError
from kinglet.runtime.preprocessing import resize
from kinglet.runtime.sessions import read_metadata
from tasks import finetune
from tasks.detection_training import boxed_images, detector_recipe
from tasks.models import load_model, read_manifest
from tasks.parameters import Parameters, load_parameters
from tasks.setting_values import BOX_AUGMENTATIONS
from tests.unit.data.painted_rectangles import painted

CLASSES = ["blue", "red"]
SIZE, WIDTH, HEIGHT = 64, 96, 72
PARTS = ["train"] * 8 + ["validation"] * 3


def settings(**changes: Any) -> Parameters:
    training = {"backbone": "mobilenet-v2", "input_size": SIZE, "low_resolution_share": 0, "epochs": 1, "batch_size": 4}
    return Parameters.model_validate(
        {
            "problem": "detection",
            "data": {"source": "cells", "images": "cells", "fit": "pad"},
            "finetune": {**training, **changes},
        }
    )


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with what `ingest` and `split` leave for images of 96 x 72 pixels; the last image has no box."""
    monkeypatch.chdir(tmp_path)
    for folder in ("artifacts/ingest", "artifacts/split"):
        Path(folder).mkdir(parents=True)
    images = painted(len(PARTS), size=WIDTH)
    packed = np.stack([resize(image[:HEIGHT], SIZE, "pad") for image in images.packed])
    np.save(f"artifacts/ingest/images_{SIZE}.npy", packed)
    index = np.arange(len(PARTS))
    pd.DataFrame({"index": index, "width": WIDTH, "height": HEIGHT}).to_parquet("artifacts/ingest/manifest.parquet")
    pd.DataFrame({"index": index, "split": PARTS, "label_index": -1}).to_parquet("artifacts/split/manifest.parquet")
    rows = [
        {"index": number, "label": ["red", "blue"][label], **dict(zip(("x1", "y1", "x2", "y2"), box, strict=True))}
        for number, objects in enumerate(images.objects[:-1])
        for box, label in zip(objects.xyxy.astype(np.float64), objects.labels, strict=True)
        if box[3] <= HEIGHT
    ]
    pd.DataFrame([*rows, {**rows[0], "label": "ignored"}]).to_parquet("artifacts/ingest/boxes.parquet")
    Path("artifacts/split/classes.json").write_text(json.dumps(CLASSES))
    sizes = {"teacher": SIZE, "low_resolution": SIZE, "student": SIZE, "students": {}, "candidates": []}
    Path("artifacts/ingest/source.json").write_text(json.dumps({"input_sizes": sizes, "short_side": HEIGHT}))
    return tmp_path


def test_boxes_are_read_in_pixels_of_the_packed_images(project: Path) -> None:
    images = boxed_images(read_manifest(), "train", SIZE, "pad", CLASSES)
    assert images.rows.tolist() == list(range(8))
    assert images.insides[0].tolist() == [0, 8, 64, 56]
    n_checked = 0
    for row, objects in zip(images.rows, images.objects, strict=True):
        for (x1, y1, x2, y2), label in zip(objects.xyxy, objects.labels, strict=True):
            colour = images.packed[row, round((y1 + y2) / 2), round((x1 + x2) / 2)]
            assert colour.tolist() == ([0, 0, 255] if label == 0 else [255, 0, 0])
            n_checked += 1
    assert n_checked >= 8
    boxes = pd.read_parquet("artifacts/ingest/boxes.parquet")
    assert n_checked == int(((boxes["index"] < 8) & (boxes["label"] != "ignored")).sum())
    assert len(boxed_images(read_manifest(), "validation", SIZE, "pad", CLASSES).objects[-1]) == 0


def test_the_step_leaves_a_detector_that_says_what_it_is_and_the_same_one_every_time(project: Path) -> None:
    finetune.run(settings())
    folder = project / "artifacts/finetune/teacher"
    content = (folder / "model.onnx").read_bytes()
    network, card = load_model(folder)
    assert (card.problem, card.classes, card.input_size, card.fit) == ("detection", CLASSES, SIZE, "pad")
    assert list(card.notes["history"][0]) == ["epoch", "input_size", "loss", "map_50"]
    session = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])
    preprocessing, classes = read_metadata(session)
    assert (preprocessing, classes) == (card.preprocessing, CLASSES)
    assert json.loads(session.get_modelmeta().custom_metadata_map["kinglet.problem"]) == "detection"
    images = torch.randn(2, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        expected = network(images)
    for answer, wanted in zip(session.run(["logits", "boxes"], {"images": images.numpy()}), expected, strict=True):
        np.testing.assert_allclose(answer, wanted.numpy(), atol=1e-3, rtol=1e-4)
    assert not list((project / ".kinglet").rglob("state.pt"))
    finetune.run(settings())
    assert (folder / "model.onnx").read_bytes() == content


def test_parts_without_a_box_are_told(project: Path) -> None:
    boxes = pd.read_parquet("artifacts/ingest/boxes.parquet")
    boxes[boxes["index"] < 8].to_parquet("artifacts/ingest/boxes.parquet")
    with pytest.raises(KingletError, match="None of the 3 validation images has a box"):
        finetune.run(settings())
    assert not (project / "artifacts/finetune").exists()


def test_a_training_of_automatic_length_costs_about_the_same_for_every_data_set() -> None:
    few, many = (
        sum(epochs for epochs, _ in detector_recipe(settings(epochs="auto").finetune, 320, n, 0).phases) * n
        for n in (205, 1000)
    )
    assert few == pytest.approx(many, rel=0.05)
    recipe = detector_recipe(settings(epochs=10, low_resolution_share=0.4).finetune, 320, 100, 0)
    assert recipe.phases == ((4.0, 224), (6.0, 320))
    assert [low_resolution_of_detector(size) for size in (32, 64, 192, 416)] == [32, 32, 128, 288]


@pytest.mark.parametrize(
    ("problem", "name"), [("detection", "erase"), ("detection", "mixup"), ("classification", "mosaic")]
)
def test_an_augmentation_of_the_other_problem_is_refused(tmp_path: Path, problem: str, name: str) -> None:
    values = settings(augment=[name]).model_dump(exclude_unset=True)
    path = tmp_path / "params.yaml"
    path.write_text(json.dumps({key: values[key] for key in ("data", "finetune")} | {"problem": problem} | OFF))
    with pytest.raises(KingletError, match=rf"finetune\.augment names {name}, which {problem} does not have"):
        load_parameters(path)


OFF = {"crossvalidate": {"folds": []}, "domains": {"most": 0}, "quantize": {"qat_epochs": 0}}


def test_the_names_of_the_augmentations_are_those_of_the_library() -> None:
    from kinglet.data import box_augmentation

    assert BOX_AUGMENTATIONS == box_augmentation.BOX_AUGMENTATIONS
