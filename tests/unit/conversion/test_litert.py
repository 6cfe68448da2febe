"""The .tflite file: which integers it holds, what cannot be written, and how pads are told apart."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from kinglet.conversion.convolution_window import Window
from kinglet.conversion.litert import convert_to_litert
from kinglet.errors import KingletError
from kinglet.runtime.engines import ONNXRUNTIME, open_engine
from tests.unit.conversion.conftest import IMAGES, SHAPE, Files
from tests.unit.conversion.runtimes import needs


def same_pads(edge: int, kernel: int, stride: int, dilation: int) -> tuple[int, int]:
    """Return what "SAME" pads, by trying: the fewest pixels, the odd one at the end, for ceil(edge / stride) steps."""
    reach = (kernel - 1) * dilation + 1
    for total in itertools.count():
        steps = (edge + total - reach) // stride + 1
        if steps == -(-edge // stride):
            return total // 2, total - total // 2
    raise AssertionError


@pytest.mark.parametrize("edge", [1, 6, 7, 24])
@pytest.mark.parametrize("kernel", [1, 3, 5])
@pytest.mark.parametrize("stride", [1, 2, 3])
@pytest.mark.parametrize("dilation", [1, 2])
def test_pads_are_told_from_those_of_the_format(edge: int, kernel: int, stride: int, dilation: int) -> None:
    before, after = same_pads(edge, kernel, stride, dilation)
    for pads in ((before, after), (before + 1, after), (before, after + 1)):
        window = Window(
            (kernel, kernel),
            {"strides": [stride] * 2, "dilations": [dilation] * 2, "pads": [pads[0], pads[0], pads[1], pads[1]]},
        )
        assert window.is_same((edge, edge)) == (pads == (before, after))
    size = window.output_size(edge, edge + stride)
    assert size[1] == size[0] + 1


@needs("litert")
@pytest.mark.parametrize("family", ["residual-cnn", "inverted-residual"])
def test_an_int8_file_keeps_every_weight_scale_and_zero_point(files: Files, tmp_path: Path, family: str) -> None:
    from ai_edge_litert.interpreter import Interpreter

    model = onnx.load(files.paths[family, "int8"])
    convert_to_litert(files.paths[family, "int8"], tmp_path)
    interpreter = Interpreter(model_path=str(tmp_path / "model.tflite"))
    interpreter.allocate_tensors()
    details = {item["name"]: item for item in interpreter.get_tensor_details() if item["name"]}
    stored = {item.name: numpy_helper.to_array(item) for item in model.graph.initializer}
    quantizers = [node for node in model.graph.node if node.op_type == "QuantizeLinear"]
    layers = [node for node in model.graph.node if node.op_type in ("Conv", "Gemm")]
    for node in layers:
        weights = stored[node.input[1].removesuffix("_DequantizeLinear_Output") + "_quantized"]
        tensor = interpreter.get_tensor(details[node.input[1]]["index"])
        depthwise = node.op_type == "Conv" and tensor.shape[0] == 1 and weights.shape[0] != 1
        axes = (1, 2, 3, 0) if depthwise else (0, 2, 3, 1)[: weights.ndim] if weights.ndim == 4 else (0, 1)
        np.testing.assert_array_equal(tensor, weights.transpose(axes))
        assert details[node.input[1]]["dtype"] == np.int8
    kept = 0
    for node in quantizers:
        scale, zero_point = stored[node.input[1]], stored[node.input[2]]
        if node.output[0] in details:  # not those of a Flatten, which is another name for the same
            assert details[node.output[0]]["quantization"] == (pytest.approx(float(scale)), int(zero_point) - 128)
            kept += 1
    assert kept == len(quantizers) - 1
    assert sum(item["dtype"] == np.float32 for item in details.values()) == 2  # images and logits


@needs("litert")
def test_the_file_takes_images_as_its_format_does(files: Files, tmp_path: Path) -> None:
    from ai_edge_litert.interpreter import Interpreter

    convert_to_litert(files.paths["residual-cnn", "fp32"], tmp_path)
    interpreter = Interpreter(model_path=str(tmp_path / "model.tflite"))
    (images,), (logits,) = interpreter.get_input_details(), interpreter.get_output_details()
    assert (images["name"], images["shape_signature"].tolist()) == ("images", [-1, 24, 24, 3])
    assert (logits["name"], logits["shape_signature"].tolist()) == ("logits", [-1, 4])
    interpreter.allocate_tensors()
    interpreter.set_tensor(images["index"], IMAGES[:1].transpose(0, 2, 3, 1))
    interpreter.invoke()
    expected = open_engine(ONNXRUNTIME, files.paths["residual-cnn", "fp32"], SHAPE, threads=1).run(IMAGES[:1])
    np.testing.assert_allclose(interpreter.get_tensor(logits["index"]), expected, atol=2e-5)


def one_layer(tmp_path: Path, *nodes: onnx.NodeProto, **constants: np.ndarray) -> Path:
    """Write a graph from images (n, 4, 6, 6) to logits."""
    graph = helper.make_graph(
        list(nodes),
        "graph",
        [helper.make_tensor_value_info("images", TensorProto.FLOAT, ["batch", 4, 6, 6])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, None)],
        [numpy_helper.from_array(np.asarray(values, np.float32), name) for name, values in constants.items()],
    )
    path = tmp_path / "one.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9), path)
    return path


def node(kind: str, *inputs: str, to: str = "logits", **attributes: Any) -> onnx.NodeProto:
    name = f"the-{kind}" if to == "logits" else f"the-{kind}-{to}"
    return helper.make_node(kind, list(inputs), [to], name=name, **attributes)


@needs("litert")
@pytest.mark.parametrize(
    ("made", "constants", "said"),
    [
        ([node("Sigmoid", "images")], {}, "the-Sigmoid (Sigmoid): LiteRT's file is written for QuantizeLinear, Conv"),
        (
            [node("Conv", "images", "w", group=2)],
            {"w": np.ones((4, 2, 1, 1))},
            "the-Conv (Conv): only plain and depthwise",
        ),
        (
            [node("Conv", "images", "w", auto_pad="SAME_LOWER")],
            {"w": np.ones((4, 4, 1, 1))},
            "with explicit padding",
        ),
        ([node("Clip", "images", "low", "high")], {"low": -1, "high": 1}, "the-Clip (Clip): only the bounds 0 and 6"),
        ([node("Add", "images", "b")], {"b": np.ones((1, 4, 1, 1))}, "only sums of two activations of one shape"),
        (
            [node("GlobalAveragePool", "images", to="p"), node("Conv", "p", "w")],
            {"w": np.ones((4, 4, 1, 1))},
            "the-Conv (Conv): it works on images only",
        ),
        (
            [node("GlobalAveragePool", "images", to="p"), node("Relu", "p")],
            {},
            "the-GlobalAveragePool-p (GlobalAveragePool): no activation right after it",
        ),
        ([node("Flatten", "images")], {}, "the-Flatten (Flatten): only what a GlobalAveragePool has flattened"),
        (
            [
                node("GlobalAveragePool", "images", to="p"),
                node("Flatten", "p", to="f"),
                node("Gemm", "f", "w", alpha=0.5),
            ],
            {"w": np.ones((4, 3))},
            "the-Gemm (Gemm): only the product of rows and weights plus a bias",
        ),
    ],
)
def test_what_cannot_be_written_is_named_by_its_node(
    tmp_path: Path, made: list[onnx.NodeProto], constants: dict[str, np.ndarray], said: str
) -> None:
    path = one_layer(tmp_path, *made, **constants)
    with pytest.raises(KingletError) as caught:
        convert_to_litert(path, tmp_path)
    assert said in caught.value.message
    assert str(path) in caught.value.message
    assert not (tmp_path / "model.tflite").exists()


@needs("litert")
def test_layers_without_bias_and_weights_the_other_way_round_answer_as_in_onnx(tmp_path: Path) -> None:
    generator = np.random.default_rng(3)
    path = one_layer(
        tmp_path,
        node("Conv", "images", "w", to="c", strides=[2, 1], dilations=[1, 2], pads=[1, 0, 0, 2]),
        node("Relu", "c", to="r"),
        node("Conv", "r", "d", to="e", group=4, pads=[1, 1, 1, 1]),  # two filters for every channel
        node("Clip", "e", "low", "high", to="k"),
        node("GlobalAveragePool", "k", to="p"),
        node("Flatten", "p", to="f"),
        node("Gemm", "f", "g"),
        w=generator.normal(size=(4, 4, 3, 3)),
        d=generator.normal(size=(8, 1, 3, 3)),
        low=0,
        high=6,
        g=generator.normal(size=(8, 5)),
    )
    convert_to_litert(path, tmp_path)
    images = generator.standard_normal((3, 4, 6, 6), np.float32)
    expected = open_engine(ONNXRUNTIME, path, (4, 6, 6), threads=1).run(images)
    found = open_engine("litert", tmp_path / "model.tflite", (4, 6, 6), threads=1).run(images)
    np.testing.assert_allclose(found, expected, atol=1e-5)
