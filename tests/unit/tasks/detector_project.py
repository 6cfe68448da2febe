"""A project in a folder with everything that the evidence steps read for detectors: photos of squares, three models.

Squares lie on a grid of 16 pixels of the input, so that a detector is a mean over each cell and a list of boxes.
"""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
import pandas as pd
from onnx import TensorProto, helper, numpy_helper

from kinglet.atomic import read_json, write_json
from kinglet.runtime import bundles
from kinglet.runtime.detection import BOXES_NAME
from kinglet.runtime.device import this_device
from kinglet.runtime.preprocessing import Preprocessing, placement
from kinglet.runtime.sessions import CLASSES_KEY, PREPROCESSING_KEY
from tasks.artifacts import BENCHMARK, BOXES, BUNDLE, DOMAINS, INGEST, POOL_FOLDS, SPLIT, ModelCard, write_card
from tasks.parameters import Parameters
from tests.unit.tasks.small_project import cross_validated, write_data

CLASSES = ["green", "red"]
WIDTH, HEIGHT, SIZE, CELL = 128, 64, 64, 16
PLACE = placement(WIDTH, HEIGHT, SIZE, "pad")


@dataclass(frozen=True)
class Recipe:
    """A detector: sure of a cell from a brightness on, which is another in every cell by so much, with boxes that lie
    off by so many pixels of the input.
    """

    name: str
    step: str
    parent: str
    threshold: float
    unevenness: float
    offset: float
    latency_ms: float


TEACHER = Recipe("teacher", "finetune", "", 0.42, 0.0, 0.0, 4.0)
SMALL = Recipe("teacher-int8", "quantize", "teacher", 0.44, 0.02, 1.0, 1.5)
BAD = Recipe("student", "distill", "teacher", 0.42, 0.0, 8.0, 1.0)
RECIPES = (TEACHER, SMALL, BAD)


def parameters(**changes: dict) -> Parameters:
    """Return parameters of detection; changes: {section: {key: value}}."""
    values: dict = {
        "problem": "detection",
        "data": {"source": "photos", "images": "photos", "fit": "pad"},
        "finetune": {"backbone": "efficientnet-lite0", "input_size": SIZE, "epochs": 1},
        "crossvalidate": {"folds": []},
        "domains": {"most": 0},
        "compare": {"min_slice_images": 5},
        "robustness": {"images": 8},
        "select": {"max_accuracy_drop": 0.1},
        "report": {"sample_errors": 6},
    }
    for section, change in changes.items():
        values[section] = {**values.get(section, {}), **change}
    return Parameters.model_validate(values)


def build_detector_project(root: Path, n: int = 60, recipes: tuple[Recipe, ...] = RECIPES) -> None:
    """Write the artifacts of all steps before `evaluate` under `root`/artifacts, and of `benchmark`."""
    images, boxes = photos_of_squares(n)
    splits = np.array(["train", "validation", "test"])[np.arange(n) % 3]
    write_data(root, {SIZE: images}, np.zeros(n, np.int64), splits, CLASSES)
    artifacts = root / "artifacts"
    left_out = root / DOMAINS / "scores.json"
    write_json(left_out, {**read_json(left_out), "headline": "map_50"})
    manifest = pd.read_parquet(root / SPLIT / "manifest.parquet").assign(label="", label_index=-1)
    manifest.to_parquet(root / SPLIT / "manifest.parquet", index=False)
    manifest.assign(width=WIDTH, height=HEIGHT).to_parquet(root / INGEST / "manifest.parquet", index=False)
    boxes.to_parquet(root / BOXES, index=False)
    part = pd.Series(splits)[boxes["index"].to_numpy()].to_numpy()
    counts = {
        split: {label: int(((part == split) & (boxes["label"] == label)).sum()) for label in CLASSES}
        for split in ("train", "validation", "test")
    }
    write_json(artifacts / "split" / "counts.json", counts)
    write_json(root / POOL_FOLDS / "scores.json", cross_validated(n, ("map_50", "map")))
    for recipe in recipes:
        write_detector(root, recipe)
    models = {recipe.name: latency_of(root, recipe) for recipe in recipes}
    facts = {"device": this_device().to_dict(), "threads": 1, "seconds_per_model": 2.0}
    write_json(root / BENCHMARK / "latency.json", {**facts, "models": models})


def photos_of_squares(n: int, seed: int = 0) -> tuple[np.ndarray, pd.DataFrame]:
    """Return letterboxed photos (n, SIZE, SIZE, 3) with up to four squares, some faint, and the rows of their boxes.

    Most have a gleam, too, that is no square.
    """
    generator = np.random.default_rng(seed)
    images = generator.normal(70, 22, (n, SIZE, SIZE, 3))
    rows = []
    for index in range(n):
        for place, cell in enumerate(generator.permutation(8)[: generator.integers(0, 6)].tolist()):
            label = int(generator.integers(2))
            x, y = cell % 4 * CELL, (1 + cell // 4) * CELL
            images[index, y : y + CELL, x : x + CELL, 1 - label] += generator.uniform(10, 90)
            if place == 0:  # a gleam that is no square
                continue
            x1, y1, x2, y2 = PLACE.to_image(np.array([[x, y, x + CELL, y + CELL]], np.float64))[0].tolist()
            rows.append({"index": index, "label": CLASSES[label], "x1": x1, "y1": y1, "x2": x2, "y2": y2})
    images[:, : int(PLACE.top)] = images[:, SIZE - int(PLACE.top) :] = 0
    return images.clip(0, 255).astype(np.uint8), pd.DataFrame(rows)


def write_detector(root: Path, recipe: Recipe, classes: list[str] = CLASSES) -> Path:
    """Write a detector's folder; return it."""
    folder = root / "artifacts" / recipe.step / recipe.name
    folder.mkdir(parents=True)
    (folder / "model.onnx").write_bytes(detector(recipe, classes).SerializeToString())
    card = ModelCard(
        name=recipe.name,
        step=recipe.step,
        parent=recipe.parent,
        precision="int8" if recipe.name.endswith("int8") else "fp32",
        problem="detection",
        architecture={"family": "cells", "spec": {}},
        input_size=SIZE,
        channels=3,
        fit="pad",
        mean=[0.0] * 3,
        std=[1.0] * 3,
        classes=classes,
        parameters=64,
        notes={},
    )
    write_card(folder, card)
    return folder


def detector(recipe: Recipe, classes: list[str]) -> onnx.ModelProto:
    """Return a network that says of every cell how sure it is of each class, and the cell's box."""
    cells = SIZE // CELL
    x, y = np.meshgrid(np.arange(cells) * CELL, np.arange(cells) * CELL)
    corner = np.stack([x.ravel(), y.ravel()], axis=1)
    boxes = np.concatenate([corner, corner + CELL], axis=1) + recipe.offset
    uneven = np.random.default_rng(0).normal(0, recipe.unevenness, (1, cells**2, 2))
    constants = {
        "channels": np.array([1, 0], np.int64),
        "shape": np.array([0, 2, cells**2], np.int64),
        "slope": np.array(25, np.float32),
        "start": (25 * (recipe.threshold + uneven)).astype(np.float32),
        "cells": boxes[None].astype(np.float32),
        "first": np.array([0], np.int64),
        "none": np.array(0, np.float32),
    }
    nodes = [
        helper.make_node("AveragePool", ["images"], ["means"], kernel_shape=[CELL] * 2, strides=[CELL] * 2),
        helper.make_node("Gather", ["means", "channels"], ["of_classes"], axis=1),
        helper.make_node("Reshape", ["of_classes", "shape"], ["flat"]),
        helper.make_node("Transpose", ["flat"], ["by_place"], perm=[0, 2, 1]),
        helper.make_node("Mul", ["by_place", "slope"], ["steep"]),
        helper.make_node("Sub", ["steep", "start"], ["logits"]),
        # The boxes are the same for every image; its number of rows is the batch's.
        helper.make_node("Gather", ["logits", "first"], ["one"], axis=2),
        helper.make_node("Mul", ["one", "none"], ["zeros"]),
        helper.make_node("Add", ["zeros", "cells"], [BOXES_NAME]),
    ]
    ends = [("logits", 2), (BOXES_NAME, 4)]
    graph = helper.make_graph(
        nodes,
        "cells",
        [helper.make_tensor_value_info("images", TensorProto.FLOAT, ["batch", 3, SIZE, SIZE])],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["batch", cells**2, n]) for name, n in ends],
        [numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    preprocessing = Preprocessing(SIZE, 3, "pad", (0.0,) * 3, (1.0,) * 3)
    helper.set_model_props(
        model, {PREPROCESSING_KEY: json.dumps(preprocessing.to_dict()), CLASSES_KEY: json.dumps(classes)}
    )
    return model


def write_bundle(root: Path, recipe: Recipe, folder: Path = BUNDLE) -> None:
    """Write what a gate looks at of a detector's bundle."""
    bundle = root / folder
    bundle.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(root / "artifacts" / recipe.step / recipe.name / "model.onnx", bundle / bundles.MODEL)
    for name in bundles.NEEDED:
        write_json(bundle / name, {})
    bundles.seal(bundle)


def latency_of(root: Path, recipe: Recipe) -> dict:
    """Return what `benchmark` would leave of a detector."""
    p50 = recipe.latency_ms
    return {
        "p50_ms": p50,
        "p50_low_ms": 0.98 * p50,
        "p50_high_ms": 1.02 * p50,
        "p99_ms": 1.3 * p50,
        "size_bytes": int(4e6 * p50),
        "peak_memory_mb": 60.0,
        "sha256": bundles.sha256_of(root / "artifacts" / recipe.step / recipe.name / "model.onnx"),
        "runs": 500,
        "rounds": 100,
        "throughput_per_s": {"1": 1000 / p50},
    }
