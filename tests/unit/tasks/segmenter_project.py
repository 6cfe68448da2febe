"""A project in a folder with everything that the evidence steps read for segmenters: photos of blots, three models.

Blots of two colours lie on a noisy ground, so that a segmenter is a mean over a few pixels and a threshold.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
import pandas as pd
from onnx import TensorProto, helper, numpy_helper
from PIL import Image

from kinglet.atomic import read_json, write_json
from kinglet.runtime.device import this_device
from kinglet.runtime.preprocessing import Preprocessing, resize
from kinglet.runtime.segmentation import VOID
from kinglet.runtime.sessions import CLASSES_KEY, PREPROCESSING_KEY
from tasks.artifacts import BENCHMARK, DOMAINS, INGEST, POOL_FOLDS, SPLIT, ModelCard, mask_file, write_card
from tasks.parameters import Parameters
from tasks.segmentation_bundle import pack_segmenter
from tests.unit.tasks.detector_project import latency_of
from tests.unit.tasks.small_project import cross_validated, write_data

CLASSES = ["ground", "green", "red"]
WIDTH, HEIGHT, SIZE, STRIDE = 96, 64, 64, 4


@dataclass(frozen=True)
class Recipe:
    """A segmenter: sure of a colour from this brightness on, with masks that lie off by so many steps of the output."""

    name: str
    step: str
    parent: str
    threshold: float
    shift: int
    latency_ms: float


TEACHER = Recipe("teacher", "finetune", "", 0.4, 0, 4.0)
SMALL = Recipe("teacher-int8", "quantize", "teacher", 0.42, 0, 1.5)
BAD = Recipe("student", "distill", "teacher", 0.4, 2, 1.0)
RECIPES = (TEACHER, SMALL, BAD)


def parameters(**changes: dict) -> Parameters:
    """Return parameters of segmentation; changes: {section: {key: value}}."""
    values: dict = {
        "problem": "segmentation",
        "data": {"source": "photos", "images": "photos", "fit": "pad"},
        "finetune": {"backbone": "efficientnet-lite0", "input_size": SIZE, "epochs": 1},
        "crossvalidate": {"folds": []},
        "domains": {"most": 0},
        "compare": {"min_slice_images": 5},
        "robustness": {"images": 4},
        "select": {"max_accuracy_drop": 0.1},
        "report": {"sample_errors": 4},
    }
    for section, change in changes.items():
        values[section] = {**values.get(section, {}), **change}
    return Parameters.model_validate(values)


def build_segmenter_project(root: Path, n: int = 30, recipes: tuple[Recipe, ...] = RECIPES) -> None:
    """Write the artifacts of all steps before `evaluate` under `root`/artifacts, and of `benchmark`."""
    photos, masks = photos_of_blots(n)
    splits = np.array(["train", "validation", "test"])[np.arange(n) % 3]
    packed = np.stack([resize(photo, SIZE, "pad") for photo in photos])
    write_data(root, {SIZE: packed}, np.zeros(n, np.int64), splits, CLASSES)
    left_out = root / DOMAINS / "scores.json"
    write_json(left_out, {**read_json(left_out), "headline": "miou"})
    manifest = pd.read_parquet(root / SPLIT / "manifest.parquet").assign(label="", label_index=-1)
    manifest.to_parquet(root / SPLIT / "manifest.parquet", index=False)
    manifest.assign(width=WIDTH, height=HEIGHT).to_parquet(root / INGEST / "manifest.parquet", index=False)
    for index, mask in enumerate(masks):
        file = root / mask_file(index)
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(mask).save(file)
    shows = np.array([[label in mask for label in range(len(CLASSES))] for mask in masks])
    counts = {
        split: dict(zip(CLASSES, shows[splits == split].sum(axis=0).tolist(), strict=True))
        for split in ("train", "validation", "test")
    }
    write_json(root / SPLIT / "counts.json", counts)
    write_json(root / POOL_FOLDS / "scores.json", cross_validated(n, ("miou", "dice", "pixel_accuracy")))
    for recipe in recipes:
        write_segmenter(root, recipe)
    models = {recipe.name: latency_of(root, recipe) for recipe in recipes}
    facts = {"device": this_device().to_dict(), "threads": 1, "seconds_per_model": 2.0}
    write_json(root / BENCHMARK / "latency.json", {**facts, "models": models})


def photos_of_blots(n: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Return photos (n, HEIGHT, WIDTH, 3) and their masks (n, HEIGHT, WIDTH) with a strip of void; some show no red."""
    generator = np.random.default_rng(seed)
    y, x = np.mgrid[:HEIGHT, :WIDTH]
    images = generator.normal(60, 25, (n, HEIGHT, WIDTH, 3))
    masks = np.zeros((n, HEIGHT, WIDTH), np.uint8)
    for image, mask in zip(images, masks, strict=True):
        for label in generator.choice([1, 1, 2], 3).tolist():
            centre, radius = generator.uniform(12, (HEIGHT - 12, WIDTH - 12)), generator.uniform(6, 14)
            mask[(y - centre[0]) ** 2 + (x - centre[1]) ** 2 < radius**2] = label
        for label in (1, 2):
            image[mask == label, 2 - label] += generator.uniform(50, 130)
    masks[:, :, :4] = VOID
    return images.clip(0, 255).astype(np.uint8), masks


def write_segmenter(root: Path, recipe: Recipe, classes: list[str] = CLASSES, fit: str = "pad") -> Path:
    """Write a segmenter's folder; return it."""
    folder = root / "artifacts" / recipe.step / recipe.name
    folder.mkdir(parents=True)
    (folder / "model.onnx").write_bytes(segmenter(recipe, classes, fit).SerializeToString())
    card = ModelCard(
        name=recipe.name,
        step=recipe.step,
        parent=recipe.parent,
        precision="int8" if recipe.name.endswith("int8") else "fp32",
        problem="segmentation",
        architecture={"family": "blots", "spec": {}},
        input_size=SIZE,
        channels=3,
        fit=fit,
        mean=[0.0] * 3,
        std=[1.0] * 3,
        classes=classes,
        parameters=12,
        notes={},
    )
    write_card(folder, card)
    return folder


def segmenter(recipe: Recipe, classes: list[str], fit: str = "pad") -> onnx.ModelProto:
    """Return a network that says of every few pixels how much green and red is there."""
    weights = np.zeros((3, 3, 2 * recipe.shift + 1, 2 * recipe.shift + 1), np.float32)
    for label, channel in ((1, 1), (2, 0)):
        weights[label, channel, 0, 0] = 25
    bias = np.array([0, -25 * recipe.threshold, -25 * recipe.threshold], np.float32)
    nodes = [
        helper.make_node("AveragePool", ["images"], ["means"], kernel_shape=[STRIDE] * 2, strides=[STRIDE] * 2),
        helper.make_node("Conv", ["means", "weights", "bias"], ["logits"], pads=[recipe.shift] * 4),
    ]
    edge = SIZE // STRIDE
    graph = helper.make_graph(
        nodes,
        "blots",
        [helper.make_tensor_value_info("images", TensorProto.FLOAT, ["batch", 3, SIZE, SIZE])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["batch", 3, edge, edge])],
        [numpy_helper.from_array(weights, "weights"), numpy_helper.from_array(bias, "bias")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    preprocessing = Preprocessing(SIZE, 3, fit, (0.0,) * 3, (1.0,) * 3)
    helper.set_model_props(
        model, {PREPROCESSING_KEY: json.dumps(preprocessing.to_dict()), CLASSES_KEY: json.dumps(classes)}
    )
    return model


def write_bundle(root: Path, recipe: Recipe, folder: Path) -> None:
    """Write a segmenter's bundle."""
    file = root / "artifacts" / recipe.step / recipe.name / "model.onnx"
    photos, _ = photos_of_blots(2, seed=7)
    images = np.stack([resize(photo, SIZE, "pad") for photo in photos])
    pack_segmenter(root / folder, file, file.with_name("none.onnx"), images, f"# {recipe.name}\n")
