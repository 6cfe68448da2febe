"""A network over clips of a bar that moves, made by hand: where the bar is, and by how much it has moved so far."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from kinglet.runtime.preprocessing import Preprocessing
from kinglet.runtime.recurrence import NEXT_STATE_NAME, STATE_NAME
from kinglet.runtime.sessions import CLASSES_KEY, FEATURES_NAME, PREPROCESSING_KEY

CLASSES = ["left", "right", "still"]
SIZE, FRAMES, CHANNELS = 16, 6, 3
PREPROCESSING = Preprocessing(SIZE, CHANNELS, "pad", (0.0,) * CHANNELS, (1.0,) * CHANNELS)
OPSET = [helper.make_opsetid("", 17)]
# The state: where the bar was, by how much it has moved, and whether there was a frame before.
STATE_SIZE = 3


def moving_bars(n: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Return clips uint8 (n, FRAMES, SIZE, SIZE, CHANNELS) of bars, some hard to tell, and labels (n,)."""
    generator = np.random.default_rng(seed)
    labels = np.arange(n) % len(CLASSES)
    clips = generator.normal(40, 12, (n, FRAMES, SIZE, SIZE, CHANNELS))
    for clip, label in zip(clips, labels.tolist(), strict=True):
        left, contrast = generator.integers(6, 9), generator.uniform(15, 120)
        for number, frame in enumerate(clip):
            start = left + (-number, number, 0)[label]
            frame[:, max(0, start) : start + 2] += contrast
    return clips.clip(0, 255).astype(np.uint8), labels


def write_clip_network(folder: Path, threshold: float = 0.1, noise: float = 0.0, classes: list[str] = CLASSES) -> None:
    """Write model.onnx and recurrent.onnx. threshold: from which way on a bar moves. noise: in the frame part."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "model.onnx").write_bytes(frame_part(noise, classes).SerializeToString())
    (folder / "recurrent.onnx").write_bytes(recurrent_part(threshold, len(classes)).SerializeToString())


def frame_part(noise: float, classes: list[str]) -> onnx.ModelProto:
    """Return a network that says how far right the brightness of a frame lies."""
    columns = np.linspace(-1, 1, SIZE, dtype=np.float32)
    weights = np.broadcast_to(columns, (1, CHANNELS, SIZE, SIZE)) / (SIZE * CHANNELS)
    weights = (weights + noise * np.random.default_rng(1).normal(size=weights.shape) / SIZE).astype(np.float32)
    nodes = [
        helper.make_node("Conv", ["images", "weights", "bias"], ["mapped"], kernel_shape=[SIZE, SIZE]),
        helper.make_node("Flatten", ["mapped"], [FEATURES_NAME]),
    ]
    graph = helper.make_graph(
        nodes,
        "frames",
        [helper.make_tensor_value_info("images", TensorProto.FLOAT, ["batch", CHANNELS, SIZE, SIZE])],
        [helper.make_tensor_value_info(FEATURES_NAME, TensorProto.FLOAT, ["batch", 1])],
        [numpy_helper.from_array(weights, "weights"), numpy_helper.from_array(np.zeros(1, np.float32), "bias")],
    )
    model = helper.make_model(graph, opset_imports=OPSET, ir_version=8)
    facts = {PREPROCESSING_KEY: json.dumps(PREPROCESSING.to_dict()), CLASSES_KEY: json.dumps(classes)}
    helper.set_model_props(model, facts)
    return model


def recurrent_part(threshold: float, n_classes: int = len(CLASSES)) -> onnx.ModelProto:
    """Return one step: adds what the bar has moved since the frame before, if there was one."""
    answers = np.zeros((1, n_classes), np.float32)
    answers[0, :2] = -20, 20
    bias = np.full(n_classes, -20, np.float32)
    bias[:3] = 0, 0, 20 * threshold
    constants = {
        **{f"take_{place}": np.eye(STATE_SIZE, dtype=np.float32)[:, [place]] for place in range(STATE_SIZE)},
        "nothing": np.zeros((1, 1), np.float32),
        "one": np.ones(1, np.float32),
        "answers": answers,
        "bias": bias,
    }
    nodes = [
        helper.make_node("MatMul", [STATE_NAME, "take_0"], ["before"]),
        helper.make_node("MatMul", [STATE_NAME, "take_1"], ["moved_so_far"]),
        helper.make_node("MatMul", [STATE_NAME, "take_2"], ["has_begun"]),
        helper.make_node("Sub", [FEATURES_NAME, "before"], ["change"]),
        helper.make_node("Mul", ["change", "has_begun"], ["move"]),
        helper.make_node("Add", ["moved_so_far", "move"], ["moved"]),
        helper.make_node("MatMul", [FEATURES_NAME, "nothing"], ["zero"]),
        helper.make_node("Add", ["zero", "one"], ["begun"]),
        helper.make_node("Concat", [FEATURES_NAME, "moved", "begun"], [NEXT_STATE_NAME], axis=1),
        helper.make_node("MatMul", ["moved", "answers"], ["scores"]),
        helper.make_node("Add", ["scores", "bias"], ["logits"]),
    ]
    graph = helper.make_graph(
        nodes,
        "recurrence",
        [
            helper.make_tensor_value_info(FEATURES_NAME, TensorProto.FLOAT, ["batch", 1]),
            helper.make_tensor_value_info(STATE_NAME, TensorProto.FLOAT, ["batch", STATE_SIZE]),
        ],
        [
            helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["batch", n_classes]),
            helper.make_tensor_value_info(NEXT_STATE_NAME, TensorProto.FLOAT, ["batch", STATE_SIZE]),
        ],
        [numpy_helper.from_array(values, name) for name, values in constants.items()],
    )
    return helper.make_model(graph, opset_imports=OPSET, ir_version=8)
