"""A project in a folder with everything that the evidence steps read: images, splits, checks and four small models."""

from __future__ import annotations

import hashlib
import json
import shutil
import tempfile
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pyarrow as pa
import pyarrow.parquet
import torch
from onnx import TensorProto, helper, numpy_helper

from kinglet.atomic import write_json, write_text
from kinglet.runtime.preprocessing import Preprocessing, normalize
from kinglet.runtime.sessions import CLASSES_KEY, PREPROCESSING_KEY
from tasks.artifacts import FINETUNE, TEACHER, ModelCard, write_card
from tasks.models import save_model
from tasks.parameters import Parameters
from tasks.plan import plan_of
from tests.unit.models.small_networks import bright_quadrants, residual_cnn

# One that survived, one that was dropped, one too slow to be trained.
TRIALS = """family,trial,candidate,input_size,precision,latency_ms,latency_low_ms,latency_high_ms,\
rungs,accuracy,accuracy_low,accuracy_high,utility,outcome,survivor
residual,0,"residual, 16 px, 8-16 channels",16,int8,0.05,0.049,0.052,\
2,0.81,0.78,0.84,0.83,finished all rungs,student-1
residual,1,"residual, 16 px, 32-64 channels",16,fp32,0.21,0.2,0.24,\
1,0.7,0.67,0.73,,dropped after rung 1 of 2,
residual,2,"residual, 24 px, 32-64 channels",24,int8,0.9,0.88,0.95,\
0,,,,,"up to 0.95 ms, over the budget of 0.5 ms: not trained",
"""
# What a report has anchors for.
CHAPTERS = [
    "verdict",
    "gate",
    "models",
    "tradeoff",
    "waterfall",
    "steps",
    "comparisons",
    "flips",
    "slices",
    "search",
    "confusion",
    "classes",
    "robustness",
    "adaptation",
    "domains",
    "data",
    "cross-validation",
    "label-errors",
    "errors",
    "measurement",
    "settings",
]
CLASSES = ["bottom", "left", "right", "top"]
SIZES = (16, 24)


@dataclass(frozen=True)
class Recipe:
    """A model: random filters, then a linear layer fitted to the training images."""

    name: str
    step: str
    parent: str
    input_size: int
    filters: int


RECIPES = (
    Recipe("teacher", "finetune", "", 24, 96),
    Recipe("student", "distill", "teacher", 16, 12),
    Recipe("student-pruned", "prune", "student", 16, 6),
    Recipe("teacher-int8", "quantize", "teacher", 24, 48),
)


def parameters(**changes: dict) -> Parameters:
    """Return small parameters; changes: {section: {key: value}}."""
    values: dict = {
        "data": {"source": "photos", "images": "photos"},
        "finetune": {"backbone": "efficientnet-lite0", "input_size": 24, "epochs": 1},
        "distill": {
            "epochs": 1,
            "students": {"student": {"input_size": 16, "stages": [{"width": 8, "stride": 2}]}},
        },
        "benchmark": {"seconds_per_model": 0.02, "batch_sizes": [1, 4]},
        "compare": {"min_slice_images": 5},
        "robustness": {"images": 8},
        "select": {"max_accuracy_drop": 0.5},
        "report": {"sample_errors": 6},
    }
    for section, change in changes.items():
        values[section] = {**values.get(section, {}), **change}
    return Parameters.model_validate(values)


def build_training_project(root: Path) -> None:
    """Write 120 images of 16 pixels, 96 of them to train on, and a teacher with random weights."""
    shutil.copytree(built_once().name, root, dirs_exist_ok=True)
    # Whether it is copied or was built just now, a test begins with the same random numbers.
    torch.manual_seed(0)


@cache
def built_once() -> tempfile.TemporaryDirectory[str]:
    """Return the folder of which training projects are copies; it goes with the process."""
    kept = tempfile.TemporaryDirectory()
    root = Path(kept.name)
    images = bright_quadrants(120, (16,), seed=1)
    splits = np.array(["train"] * 8 + ["validation", "test"])[np.arange(120) % 10]
    write_data(root, images.packed, images.labels, splits, ["a", "b", "c", "d"])
    facts = {"mean": [0.45] * 3, "std": [0.25] * 3, "classes": ["a", "b", "c", "d"], "notes": {}}
    folder = root / FINETUNE / TEACHER
    save_model(folder, residual_cnn(), step="finetune", parent="", input_size=16, channels=3, fit="stretch", **facts)
    return kept


def noisy_quadrants(n: int, size: int, channels: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Return images (n, size, size, channels) whose brighter half tells the class, some hard to tell, and labels."""
    generator = np.random.default_rng(seed)
    labels = np.arange(n) % len(CLASSES)
    images = generator.normal(110, 45, (n, size, size, channels))
    halves = [np.s_[size // 2 :, :], np.s_[:, : size // 2], np.s_[:, size // 2 :], np.s_[: size // 2, :]]
    for image, label, strength in zip(images, labels, generator.uniform(2, 40, n), strict=True):
        image[halves[label]] += strength
    return images.clip(0, 255).astype(np.uint8), labels


def build_project(root: Path, n: int = 160, channels: int = 3) -> None:
    """Write the artifacts of all steps before `evaluate` under `root`/artifacts."""
    images, labels = noisy_quadrants(n, SIZES[1], channels)
    packed = {24: images, 16: images[:, 4:20, 4:20]}
    splits = np.array(["train", "train", "validation", "test"])[np.arange(n) // len(CLASSES) % 4]
    write_data(root, packed, labels, splits, CLASSES)
    for recipe in RECIPES:
        write_model(root, recipe, packed[recipe.input_size], labels, splits == "train", CLASSES)


def write_data(
    root: Path, packed: dict[int, np.ndarray], labels: np.ndarray, splits: np.ndarray, classes: list[str]
) -> None:
    """Write what ingest, check_data and split leave."""
    artifacts = root / "artifacts"
    for folder in ("adapt", "ingest", "search", "split", "check_data"):
        (artifacts / folder).mkdir(parents=True)
    for size, images in packed.items():
        np.save(artifacts / "ingest" / f"images_{size}.npy", images)
    edges = sorted(packed)
    input_sizes = {"teacher": edges[-1], "low_resolution": edges[-1], "student": edges[0]}
    input_sizes |= {"students": {"student": edges[0]}, "candidates": []}
    write_json(artifacts / "ingest" / "source.json", {"input_sizes": input_sizes, "short_side": edges[-1]})
    names = np.array(classes)
    manifest = pa.table(
        {
            "index": np.arange(len(labels)),
            "path": [f"{names[label]}/{index:05}.jpg" for index, label in enumerate(labels)],
            "label": names[labels],
            "label_index": labels.astype(np.int64),
            "domain": [""] * len(labels),
            "split": splits,
            "sha256": [hashlib.sha256(f"{index}".encode()).hexdigest() for index in range(len(labels))],
        }
    )
    pyarrow.parquet.write_table(manifest, artifacts / "split" / "manifest.parquet")
    unlabelled = pa.table({"index": pa.array([], pa.int64()), "path": pa.array([], pa.string())})
    pyarrow.parquet.write_table(unlabelled, artifacts / "split" / "unlabelled.parquet")
    write_json(artifacts / "split" / "classes.json", classes)
    write_facts(artifacts, packed[edges[-1]], manifest)
    plan = plan_of(max(1, int((splits == "test").sum())), 0.5, 0.05, 0.95, 0.8)
    write_json(artifacts / "plan" / "plan.json", plan)
    write_text(artifacts / "search" / "trials.csv", TRIALS)
    write_json(artifacts / "prune" / "refused.json", {})
    write_json(artifacts / "prune" / "unrivalled.json", {})
    write_cross_validation(artifacts, classes)
    write_domains(artifacts)
    counts = {
        split: {name: int(((splits == split) & (labels == index)).sum()) for index, name in enumerate(classes)}
        for split in ("train", "validation", "test")
    }
    write_json(artifacts / "split" / "counts.json", counts)
    write_text(
        artifacts / "check_data" / "quarantine.csv",
        "path,reason\nleft/00901.jpg,truncated: 2 of 3 rows readable\nright/<b>.jpg,same pixels as top/00007.jpg\n",
    )
    findings = [
        ("conflicting_labels", "warning", False, 2, ["right/<b>.jpg", "top/00007.jpg"], "1 pair has two labels."),
        ("unreadable", "critical", False, 1, ["left/00901.jpg"], "1 file cannot be decoded (limit 5 %)."),
        ("leakage", "critical", True, 0, [], "No near-duplicates across splits."),
        ("class_balance", "info", True, 0, [], "The largest class has 1.0 times the images of the smallest."),
    ]
    keys = ("check", "severity", "passed", "count", "paths", "message")
    write_json(
        artifacts / "check_data" / "checks.json",
        {"n_critical": 1, "n_warnings": 1, "findings": [dict(zip(keys, row, strict=True)) for row in findings]},
    )
    (root / "champion").mkdir()
    write_json(root / "data" / "sealed_looks.json", [])


def write_facts(artifacts: Path, images: np.ndarray, manifest: pa.Table) -> None:
    """Write the facts on images that steps after `split` read of `profile`."""
    (artifacts / "profile").mkdir()
    facts = pa.table(
        {
            "index": manifest["index"],
            "brightness": images.mean(axis=(1, 2, 3)) / 255,
            "width": np.full(len(images), 100) + 20 * (np.arange(len(images)) % 3),
            "height": np.full(len(images), 100),
        }
    )
    pyarrow.parquet.write_table(facts, artifacts / "profile" / "images.parquet")


def cross_validated(n: int, scores: tuple[str, ...]) -> dict:
    """Return what pool_folds leaves of two folds where images are drawn into. scores: their names."""
    between = {"value": 0.8, "low": 0.7, "high": 0.9}
    runs = [{"repeat": 1, "fold": fold, "n": n // 2, **dict.fromkeys(scores, 0.75 + 0.1 * fold)} for fold in (0, 1)]
    return {
        "folds": 2,
        "repeats": 1,
        "n": n,
        "epochs": 3.0,
        "notes": [],
        **{name: {**between, "deviation": 0.07} for name in scores},
        "runs": runs,
        "pooled": [{"repeat": 1, **dict.fromkeys(scores, between)}],
    }


def write_cross_validation(artifacts: Path, classes: list[str]) -> None:
    """Write what pool_folds and label_errors leave: two folds, two suspicious labels."""
    between = {"value": 0.6, "low": 0.5, "high": 0.7}
    runs = [{"repeat": 1, "fold": fold, "n": 60, "n_training": 60, "accuracy": 0.5 + 0.1 * fold} for fold in (1, 2)]
    scores = {
        "folds": 2,
        "repeats": 1,
        "n": 120,
        "epochs": 0.2,
        "notes": ["class 'top' with 1 images is in 1 of 2 folds only"],
        "classes_in_one_fold": [],
        "accuracy": {**between, "deviation": 0.07},
        "f1_macro": {**between, "deviation": 0.08},
        "runs": runs,
        "pooled": [{"repeat": 1, "accuracy": between, "f1_macro": between}],
    }
    write_json(artifacts / "pool_folds" / "scores.json", scores)
    rows = [f"{index},{classes[0]}/<{index}>.jpg,{classes[0]},{classes[1]},0.97,0.01" for index in (0, 4)]
    head = "index,path,label,likely_label,confidence,label_confidence"
    write_text(artifacts / "label_errors" / "suspicious.csv", "\n".join([head, *rows]) + "\n")
    counts = {"n": 60, "suspicious": 2, "estimated": 2.5}
    write_json(
        artifacts / "label_errors" / "counts.json",
        {**counts, "n": 120, "kept": 1, "by_class": {classes[0]: counts, classes[1]: {**counts, "suspicious": 0}}},
    )


def write_domains(artifacts: Path) -> None:
    """Write what adapt and domains leave: a model with two methods, two domains left out and one that was not."""
    between = {"value": 0.6, "low": 0.5, "high": 0.7}
    change = {"value": 0.12, "low": 0.05, "high": 0.2}
    accuracies = {"target_accuracy": between, "source_accuracy": {"value": 0.8, "low": 0.7, "high": 0.9}}
    method = {**accuracies, "target_change": change, "source_change": {"value": -0.03, "low": -0.05, "high": 0.01}}
    model = {
        "images": {"adaptation": 1200, "labelled": 20, "held_out": 40, "source": 40},
        **accuracies,
        "cost": {"value": 0.2, "low": 0.1, "high": 0.3},
        "methods": {
            "batch_norm": {**method, "recovered": {"value": 0.6, "low": 0.4, "high": 0.8}},
            "finetune": {**method, "recovered": None},
        },
    }
    write_json(
        artifacts / "adapt" / "scores.json", {"target": "demonstration", "is_made": True, "models": {"student": model}}
    )
    np.save(artifacts / "adapt" / "pictures.npy", np.zeros((2, 3, 16, 16, 3), np.uint8))
    row = {"n": 20, "seen": between, "unseen": between, "change": {"value": -0.1, "low": -0.2, "high": -0.02}}
    left_out = [{"domain": name, "n_training": 50, "unknown_classes": ["<top>"], **row} for name in ("lab", "yard")]
    write_json(
        artifacts / "domains" / "scores.json",
        {
            "named": ["attic", "lab", "yard"],
            "left_out": left_out,
            "not_left_out": {"attic": "3 test images, domains.min_test_images is 20"},
            "reason": "",
            "epochs": 0.5,
            "all": {**row, "n": 40},
        },
    )


def write_model(
    root: Path, recipe: Recipe, images: np.ndarray, labels: np.ndarray, train: np.ndarray, classes: list[str]
) -> Path:
    """Fit a model on the training images and write its folder; return it."""
    channels = images.shape[3]
    preprocessing = Preprocessing(recipe.input_size, channels, "stretch", (0.45,) * channels, (0.25,) * channels)
    generator = np.random.default_rng(recipe.filters)
    filters = generator.normal(0, 0.2, (recipe.filters, channels, 5, 5)).astype(np.float32)
    features = onnx_model(filters, None, None, preprocessing, classes)
    session = onnxruntime.InferenceSession(features.SerializeToString(), providers=["CPUExecutionProvider"])
    rows = np.flatnonzero(train)[:6000]
    parts = [
        session.run(None, {"images": normalize(images[rows[start : start + 500]], preprocessing)})[0]
        for start in range(0, len(rows), 500)
    ]
    inputs = np.concatenate(parts).astype(np.float64)
    targets = np.eye(len(classes))[labels[rows]]
    gram = inputs.T @ inputs + 0.02 * len(rows) * np.eye(inputs.shape[1])
    weights = np.linalg.solve(gram, inputs.T @ (targets - targets.mean(axis=0)))
    folder = root / "artifacts" / recipe.step / recipe.name
    folder.mkdir(parents=True)
    model = onnx_model(filters, 8 * weights, 8 * targets.mean(axis=0), preprocessing, classes)
    (folder / "model.onnx").write_bytes(model.SerializeToString())
    write_card(
        folder,
        ModelCard(
            name=recipe.name,
            step=recipe.step,
            parent=recipe.parent,
            precision="int8" if recipe.name.endswith("int8") else "fp32",
            problem="classification",
            architecture={"family": "filters", "spec": {}},
            input_size=recipe.input_size,
            channels=channels,
            fit="stretch",
            mean=list(preprocessing.mean),
            std=list(preprocessing.std),
            classes=classes,
            parameters=int(filters.size + weights.size + len(classes)),
            notes={},
        ),
    )
    return folder


def onnx_model(
    filters: np.ndarray,
    weights: np.ndarray | None,
    bias: np.ndarray | None,
    preprocessing: Preprocessing,
    classes: list[str],
) -> onnx.ModelProto:
    """Return filters, ReLU, pooling to 3 x 3 and, with weights, a linear layer; without, its inputs."""
    size = preprocessing.input_size
    after_filters = (size - 5) // 2 + 1
    window = after_filters // 3
    nodes = [
        helper.make_node("Conv", ["images", "filters"], ["filtered"], kernel_shape=[5, 5], strides=[2, 2]),
        helper.make_node("Relu", ["filtered"], ["positive"]),
        helper.make_node("AveragePool", ["positive"], ["pooled"], kernel_shape=[window] * 2, strides=[window] * 2),
        helper.make_node("Flatten", ["pooled"], ["flat" if weights is not None else "logits"]),
    ]
    constants = [numpy_helper.from_array(filters, "filters")]
    if weights is not None and bias is not None:
        nodes.append(helper.make_node("Gemm", ["flat", "weights", "bias"], ["logits"]))
        constants.append(numpy_helper.from_array(weights.astype(np.float32), "weights"))
        constants.append(numpy_helper.from_array(bias.astype(np.float32), "bias"))
    shape: list[str | int | None] = ["batch", preprocessing.channels, size, size]
    width = len(classes) if weights is not None else None
    graph = helper.make_graph(
        nodes,
        "filters",
        [helper.make_tensor_value_info("images", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["batch", width])],
        constants,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    helper.set_model_props(
        model, {PREPROCESSING_KEY: json.dumps(preprocessing.to_dict()), CLASSES_KEY: json.dumps(classes)}
    )
    return model
