"""A detector from its training to its bundle: int8, timed, packed, opened, on a handful of painted rectangles."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx
import pandas as pd
import pytest
import torch

from kinglet.atomic import read_json, write_json
from kinglet.compression import detector_without_vnni
from kinglet.errors import KingletError
from kinglet.runtime import DetectionPredictor, bundles
from kinglet.runtime.histograms import bin_counts
from kinglet.runtime.preprocessing import resize
from kinglet.runtime.sketches import INPUTS, read_reference
from kinglet.runtime.thresholds import Thresholds
from kinglet.runtime.vnni import products_saturate
from kinglet.runtime.watched_answers import SHARED_WEIGHT
from tasks import benchmark, bundle, evaluate, quantize
from tasks.artifacts import BUNDLE, QUANTIZE, read_card
from tasks.detection_answers import find_objects, read_boxed
from tasks.detection_bundle import WITH_SUPPRESSION
from tasks.detection_without_vnni import open_without_vnni
from tasks.models import save_model
from tasks.parameters import Parameters
from tests.unit.data.painted_rectangles import painted
from tests.unit.models.test_detector import lively, small_detector

CLASSES = ["blue", "red"]
SIZE, WIDTH, HEIGHT = 64, 96, 72
PARTS = ["train"] * 12 + ["validation"] * 3 + ["test"] * 3
PARAMETERS = Parameters.model_validate(
    {
        "problem": "detection",
        "data": {"source": "cells", "images": "cells", "fit": "pad"},
        "finetune": {"backbone": "mobilenet-v2", "input_size": SIZE},
        "quantize": {"calibration_images": 8, "methods": ["minmax"], "weight_bits": [8], "qat_epochs": 0},
        "benchmark": {"seconds_per_model": 0.01, "batch_sizes": [1]},
    }
)


@pytest.fixture(scope="module")
def project(tmp_path_factory) -> Path:
    """A folder with what `ingest`, `split` and `finetune` leave; the network is untrained and sees things."""
    root = tmp_path_factory.mktemp("project")
    images = painted(len(PARTS), size=WIDTH)
    ingest, split, profile = (root / "artifacts" / name for name in ("ingest", "split", "profile"))
    for folder in (ingest, split, profile):
        folder.mkdir(parents=True)
    np.save(ingest / f"images_{SIZE}.npy", np.stack([resize(image[:HEIGHT], SIZE, "pad") for image in images.packed]))
    index = np.arange(len(PARTS))
    for folder, name in ((ingest, "manifest.parquet"), (profile, "images.parquet")):
        pd.DataFrame({"index": index, "width": WIDTH, "height": HEIGHT}).to_parquet(folder / name)
    paths = [f"{number}.png" for number in index]
    pd.DataFrame({"index": index, "path": paths, "domain": "", "split": PARTS, "label_index": -1}).to_parquet(
        split / "manifest.parquet"
    )
    rows = [
        {"index": number, "label": CLASSES[label], **dict(zip(("x1", "y1", "x2", "y2"), box, strict=True))}
        for number, objects in enumerate(images.objects)
        for box, label in zip(objects.xyxy.astype(np.float64), objects.labels, strict=True)
        if box[3] <= HEIGHT
    ]
    pd.DataFrame(rows).to_parquet(ingest / "boxes.parquet")
    (split / "classes.json").write_text(json.dumps(CLASSES))
    with torch.no_grad():
        network = lively(small_detector(len(CLASSES)))
        for level, (classes, distances) in enumerate(zip(network.head.classes, network.head.distances, strict=True)):
            classes.bias += 4 + 0.01 * level
            distances.bias += 0.01 * level
    teacher = root / "artifacts/finetune/teacher"
    teacher.mkdir(parents=True)
    save_model(
        teacher,
        network,
        step="finetune",
        parent="",
        problem="detection",
        input_size=SIZE,
        channels=3,
        fit="pad",
        mean=[0.45] * 3,
        std=[0.25] * 3,
        classes=CLASSES,
        notes={},
    )
    return root


@pytest.fixture(scope="module")
def delivered(project) -> Path:
    """The same folder after the steps from `quantize` to `bundle`, which packs the int8 model."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(project)
        patch.setattr(quantize, "prepare_training", torch.manual_seed)  # what it sets would outlive the test
        quantize.run(PARAMETERS)
        evaluate.run(PARAMETERS)
        benchmark.run(PARAMETERS)
        choice = {"model": "artifacts/quantize/teacher-int8/model.onnx", "reason": "It is the fastest."}
        write_json(Path("artifacts/select/choice.json"), choice)
        bundle.run(PARAMETERS)
    return project


@pytest.fixture
def inside(delivered, monkeypatch) -> Path:
    monkeypatch.chdir(delivered)
    return delivered


def test_an_int8_detector_is_made_and_says_how_it_was_judged(inside):
    card = read_card(QUANTIZE / "teacher-int8")
    assert (card.problem, card.precision, card.takes_pixels) == ("detection", "int8", True)
    guard = card.notes["guard"]
    assert guard["images"] == 3  # the validation images
    assert set(guard["map_50_difference"]) == {"value", "low", "high"}
    assert card.notes["runtime"]["unfused_layers"] == 0


def test_the_time_of_decoding_stands_beside_that_of_the_network(inside):
    for of_model in read_json(Path("artifacts/benchmark/latency.json"))["models"].values():
        assert of_model["p50_ms"] > 0
        assert of_model["decode"]["p50_ms"] > 0
        assert of_model["decode"]["images"] == 3


def test_the_bundle_is_a_detectors(inside):
    assert bundles.problem_of(BUNDLE) == "detection"
    assert set(bundles.verify(BUNDLE)) >= {bundles.MODEL, WITH_SUPPRESSION, bundles.GOLDEN, bundles.CARD}
    predictor = DetectionPredictor(BUNDLE, threads=1)
    assert predictor.classes == CLASSES
    assert predictor.check_golden(BUNDLE / bundles.GOLDEN) < 0.05
    onnx.checker.check_model(onnx.load(BUNDLE / WITH_SUPPRESSION))


def test_the_reference_counts_training_images_and_shown_objects_in_held_out_ones(inside):
    reference = read_reference(BUNDLE / bundles.REFERENCE)
    assert (reference.problem, reference.classes) == ("detection", tuple(CLASSES))
    assert {reference.columns[name].counts.sum() for name in INPUTS} == {PARTS.count("train") * SHARED_WEIGHT}
    found = pd.read_parquet("artifacts/evaluate/predictions.parquet")
    shown = found[(found["model"] == "teacher-int8") & (found["score"] >= Thresholds().score)]
    per_image = shown.groupby("index").size()
    objects = reference.columns["objects"]
    held_out = [number for number, part in enumerate(PARTS) if part != "train"]
    counts = per_image.reindex(held_out, fill_value=0).to_numpy(np.float64)
    np.testing.assert_array_equal(objects.counts, SHARED_WEIGHT * bin_counts(counts, objects.edges))
    for name in ("confidence", "object size"):
        assert round(reference.columns[name].counts.sum() / SHARED_WEIGHT, 3) == len(per_image)
    sides = np.sqrt((shown["x2"] - shown["x1"]) * (shown["y2"] - shown["y1"]) / (WIDTH * HEIGHT))
    edges = reference.columns["object size"].edges
    assert sides.min() <= edges[0] < edges[-1] <= sides.max()
    of_images = shown.groupby("index")["label_index"].value_counts(normalize=True).unstack(fill_value=0)
    expected = of_images.reindex(columns=range(len(CLASSES)), fill_value=0).sum()
    np.testing.assert_allclose(reference.class_counts / SHARED_WEIGHT, expected, atol=1e-4)


def test_the_card_speaks_of_objects(inside):
    text = (BUNDLE / bundles.CARD).read_text()
    assert text.startswith("# teacher-int8\n\nFinds objects of 2 classes in an image: blue, red.")
    assert "mAP at IoU 0.5 |" in text
    assert "It is the fastest." in text
    assert "median of 3 validation images" in text
    assert "accuracy" not in text


def test_an_int8_detector_is_scored_without_vnni_as_well(inside):
    models = read_json(Path("artifacts/evaluate/scores.json"))["models"]
    assert "without_vnni" not in models["teacher"]
    there = models["teacher-int8"]["without_vnni"]
    assert there["n"] == PARTS.count("test")
    assert 0 <= there["model_onnx"]["low"] <= there["model_onnx"]["value"] <= there["model_onnx"]["high"] <= 1
    has_variant = (QUANTIZE / "teacher-int8" / bundles.WITHOUT_VNNI).is_file()
    assert there["file"] == (bundles.WITHOUT_VNNI if has_variant else bundles.MODEL)
    assert has_variant or there["score"] == there["model_onnx"]
    text = (BUNDLE / bundles.CARD).read_text()
    assert "## x86 processors without VNNI" in text
    assert "On 3 test images, mAP at IoU 0.5 there is" in text


@pytest.mark.skipif(not products_saturate(), reason="the emulation is held against a processor that saturates")
def test_an_emulated_detector_finds_what_one_without_vnni_does(inside, monkeypatch):
    images, file = read_boxed("test", CLASSES), QUANTIZE / "teacher-int8" / bundles.MODEL
    here = find_objects(open_without_vnni(file), images, "here")
    monkeypatch.setattr(detector_without_vnni, "products_saturate", lambda: False)
    emulated = find_objects(open_without_vnni(file), images, "emulated")
    assert len(here) == len(emulated) > 0
    np.testing.assert_allclose(np.sort(emulated.scores), np.sort(here.scores), atol=1e-3)


def test_the_same_bundle_comes_out_again(inside):
    before = (BUNDLE / bundles.CHECKSUMS).read_bytes()
    bundle.run(PARAMETERS)
    assert (BUNDLE / bundles.CHECKSUMS).read_bytes() == before


def test_training_images_without_objects_cannot_judge(inside, monkeypatch):
    boxes = pd.read_parquet("artifacts/ingest/boxes.parquet")
    monkeypatch.setattr("tasks.detection_training.pd.read_parquet", lambda path, **_: _empty(path, boxes, **_))
    with pytest.raises(KingletError, match="show no object"):
        quantize.run(PARAMETERS)


def _empty(path: object, boxes: pd.DataFrame, **options: object) -> pd.DataFrame:
    """Read a table, but no boxes."""
    return boxes.iloc[:0].copy() if "boxes" in str(path) else _read(path, **options)


_read = pd.read_parquet
