"""Classifiers as other tools export them: other names, layouts, types, a fixed batch axis, a softmax at the end."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper
from PIL import Image

N_CLASSES, SIZE = 4, 8


def foreign(
    *,
    layout: str = "NCHW",
    batch: int | str = 1,
    size: int | str = SIZE,
    channels: int = 3,
    softmax: str = "Softmax",
    dtype: type = np.float32,
    flatten: str = "Reshape",
    opset: int = 17,
    weights: np.ndarray | None = None,
) -> onnx.ModelProto:
    """Return quadrant means → a linear layer, as `weights` (N_CLASSES, 4 * channels), or random, say.

    dtype: np.uint8 gives a graph that begins with a conversion; np.float16 one that computes in halves.
    flatten: the operator before the linear layer. An inner tensor is called as Kinglet calls its output.
    """
    number = np.float16 if dtype is np.float16 else np.float32
    generator = np.random.default_rng(0)
    if weights is None:
        weights = generator.normal(0, 1, (N_CLASSES, 4 * channels))
    constants = {
        "filters": np.eye(channels, dtype=number).reshape(channels, channels, 1, 1),
        "weights": weights.astype(number),
        "bias": generator.normal(0, 0.1, N_CLASSES).astype(number),
    }
    nodes, tensor = [], "input_1"

    def add(op_type: str, inputs: list[str], output: str, **attributes: object) -> str:
        nodes.append(helper.make_node(op_type, inputs, [output], name=f"{op_type}_{output}", **attributes))
        return output

    if dtype is np.uint8:
        tensor = add("Cast", [tensor], "pixels", to=TensorProto.FLOAT)
    if layout == "NHWC":
        tensor = add("Transpose", [tensor], "channels_first", perm=[0, 3, 1, 2])
    tensor = add("Conv", [tensor, "filters"], "images", kernel_shape=[1, 1])
    tensor = add("AveragePool", [tensor], "pooled", kernel_shape=[SIZE // 2] * 2, strides=[SIZE // 2] * 2)
    if flatten == "Reshape":
        constants["shape"] = np.array([batch if isinstance(batch, int) else -1, 4 * channels], np.int64)
        tensor = add("Reshape", [tensor, "shape"], "flat")
    else:
        tensor = add("Flatten", [tensor], "flat")
    tensor = add("Gemm", [tensor, "weights", "bias"], "logits", transB=1)
    if softmax:
        tensor = add(softmax, [tensor], "probabilities", axis=1)
    edges = [channels, size, size] if layout == "NCHW" else [size, size, channels]
    kind = helper.np_dtype_to_tensor_dtype(np.dtype(dtype))
    graph = helper.make_graph(
        nodes,
        "main",
        [helper.make_tensor_value_info("input_1", kind, [batch, *edges])],
        [helper.make_tensor_value_info(tensor, helper.np_dtype_to_tensor_dtype(np.dtype(number)), [batch, N_CLASSES])],
        [numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)
    onnx.checker.check_model(model)
    return model


LEVELS = (40, 100, 160, 220)


def brightness_classifier(scale: float = 1 / 127.5, shift: float = -1.0, size: int = SIZE) -> onnx.ModelProto:
    """Return a classifier of an image's brightness into `LEVELS`, for pixels that were multiplied and shifted so.

    It takes the nearest level, -(m - c)^2 without m^2, which is linear in the mean m: right only where the pixels
    have the scale it was made for.
    """
    centres = np.array(LEVELS) * scale + shift
    constants = {
        "filters": np.eye(3, dtype=np.float32).reshape(3, 3, 1, 1),
        "weights": (2 * centres[:, None] / 3 * np.ones((1, 3)) * 8).astype(np.float32),
        "bias": (-(centres**2) * 8).astype(np.float32),
    }
    nodes = [
        helper.make_node("Conv", ["data", "filters"], ["filtered"], name="conv"),
        helper.make_node("GlobalAveragePool", ["filtered"], ["pooled"]),
        helper.make_node("Flatten", ["pooled"], ["flat"]),
        helper.make_node("Gemm", ["flat", "weights", "bias"], ["scores"], name="fc", transB=1),
        helper.make_node("Softmax", ["scores"], ["prob"], axis=1),
    ]
    graph = helper.make_graph(
        nodes,
        "main",
        [helper.make_tensor_value_info("data", TensorProto.FLOAT, [1, 3, size, size])],
        [helper.make_tensor_value_info("prob", TensorProto.FLOAT, [1, len(LEVELS)])],
        [numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def write_brightness_folder(root: Path, n: int = 400, size: int = SIZE, seed: int = 0) -> None:
    """Write n images of random brightness, PNG files in one folder per level, so that some are hard to tell."""
    generator = np.random.default_rng(seed)
    for number in range(n):
        level = number % len(LEVELS)
        pixels = generator.normal(LEVELS[level] + generator.normal(0, 17), 12, (size, size, 3))
        folder = root / f"{LEVELS[level]:03}"
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(folder / f"{number:04}.png")
