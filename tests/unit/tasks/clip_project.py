"""A project in a folder with everything that the evidence steps read for networks over clips, and two of them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnxruntime.quantization as quantization
import pandas as pd

from kinglet.atomic import read_json, write_json
from kinglet.runtime import bundles
from kinglet.runtime.device import this_device
from kinglet.runtime.preprocessing import model_input
from tasks.artifacts import BENCHMARK, CLIPS, DOMAINS, INGEST, SOURCE_FACTS, SPLIT, ModelCard, packed_clips, write_card
from tasks.opened_models import digest_of
from tasks.parameters import Parameters
from tests.unit.models.clip_files import (
    CHANNELS,
    CLASSES,
    FRAMES,
    PREPROCESSING,
    SIZE,
    moving_bars,
    write_clip_network,
)
from tests.unit.tasks.detector_project import latency_of
from tests.unit.tasks.segmenter_project import Recipe
from tests.unit.tasks.small_project import write_data

RATE = 12.5
# A bar that moves less than this stands still; the second is quantized by ONNX Runtime's own tool.
TEACHER = Recipe("teacher", "finetune", "", 0.1, 0, 0.8)
SMALL = Recipe("teacher-int8", "quantize", "teacher", 0.16, 0, 0.3)
RECIPES = (TEACHER, SMALL)


def parameters(**changes: dict) -> Parameters:
    """Return parameters of video; changes: {section: {key: value}}."""
    values: dict = {
        "problem": "video",
        "data": {"source": "videos", "images": "videos", "fit": "pad"},
        "clips": {"frames": FRAMES},
        "finetune": {"backbone": "efficientnet-lite0", "input_size": SIZE, "epochs": 1},
        "crossvalidate": {"folds": []},
        "domains": {"most": 0},
        "evaluate": {"top_k": 2},
        "compare": {"min_slice_images": 5},
        "robustness": {"images": 6},
        "select": {"max_accuracy_drop": 0.4},
        "report": {"sample_errors": 4},
    }
    for section, change in changes.items():
        values[section] = {**values.get(section, {}), **change}
    return Parameters.model_validate(values)


def build_clip_project(root: Path, n: int = 72, recipes: tuple[Recipe, ...] = RECIPES) -> None:
    """Write the artifacts of all steps before `evaluate` under `root`/artifacts, and of `benchmark`."""
    clips, labels = moving_bars(n)
    splits = np.array(["train", "validation", "test"])[np.arange(n) // len(CLASSES) % 3]
    write_data(root, {SIZE: clips[:, FRAMES // 2]}, labels, splits, CLASSES)
    np.save(root / packed_clips(SIZE), clips)
    seconds = (np.arange(FRAMES) / RATE).tolist()
    rows = [
        {"index": index, "video": f"{index}.mp4", "width": SIZE, "height": SIZE, "seconds": seconds}
        for index in range(n)
    ]
    pd.DataFrame(rows).to_parquet(root / CLIPS, index=False)
    domains = np.array(["hall", "yard"])[np.arange(n) // (3 * len(CLASSES)) % 2]
    manifest = pd.read_parquet(root / SPLIT / "manifest.parquet").assign(domain=domains)
    for step in (INGEST, SPLIT):
        manifest.to_parquet(root / step / "manifest.parquet", index=False)
    left_out = read_json(root / DOMAINS / "scores.json")
    left_out["not_left_out"] = {"attic": "3 test clips, domains.min_test_images is 20"}
    write_json(root / DOMAINS / "scores.json", left_out)
    facts = read_json(root / SOURCE_FACTS)
    facts |= {"clips": {"frames": FRAMES, "frames_per_second": RATE}, "generated": {"made_by": "a test"}}
    write_json(root / SOURCE_FACTS, facts)
    for recipe in recipes:
        write_clip_model(root, recipe)
    models = {recipe.name: {**latency_of(root, recipe), "sha256": digest(root, recipe)} for recipe in recipes}
    facts = {"device": this_device().to_dict(), "threads": 1, "seconds_per_model": 2.0}
    write_json(root / BENCHMARK / "latency.json", {**facts, "models": models})


def digest(root: Path, recipe: Recipe) -> str:
    """Return the digest of both files of a model."""
    folder = root / "artifacts" / recipe.step / recipe.name
    return digest_of([folder / bundles.MODEL, folder / bundles.RECURRENT])


def write_clip_model(root: Path, recipe: Recipe) -> Path:
    """Write a model's folder; return it."""
    folder = root / "artifacts" / recipe.step / recipe.name
    write_clip_network(folder, recipe.threshold)
    is_int8 = recipe.name.endswith("int8")
    if is_int8:
        quantize_frame_part(folder / "model.onnx")
    card = ModelCard(
        name=recipe.name,
        step=recipe.step,
        parent=recipe.parent,
        precision="int8" if is_int8 else "fp32",
        problem="video",
        architecture={"family": "bars", "spec": {}},
        input_size=SIZE,
        channels=CHANNELS,
        fit="pad",
        mean=[0.0] * CHANNELS,
        std=[1.0] * CHANNELS,
        classes=CLASSES,
        parameters=SIZE * SIZE * CHANNELS,
        notes={},
    )
    write_card(folder, card)
    return folder


class Frames(quantization.CalibrationDataReader):
    """Frames of a few clips, one by one."""

    def __init__(self) -> None:
        frames = moving_bars(6, seed=9)[0].reshape(-1, SIZE, SIZE, CHANNELS)
        self._tensors = iter(model_input(frames, PREPROCESSING))

    def get_next(self) -> dict | None:
        """Return the next frame as the model takes it."""
        tensor = next(self._tensors, None)
        return None if tensor is None else {"images": tensor[None]}


def quantize_frame_part(file: Path) -> None:
    """Bring a frame part to 8 bits, in its own file."""
    float_file = file.with_name("float.onnx")
    file.replace(float_file)
    quantization.quantize_static(float_file, file, Frames(), weight_type=quantization.QuantType.QInt8, per_channel=True)
    float_file.unlink()
