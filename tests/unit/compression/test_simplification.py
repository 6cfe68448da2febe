"""Graphs of other exporters are written with the operators that the quantizer knows, and compute the same."""

from __future__ import annotations

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

from kinglet.compression.quantization import weighted_layers
from kinglet.compression.simplification import simplify
from kinglet.models.onnx_graph import add_metadata, read_metadata

RANDOM = np.random.default_rng(0)


def graph_of(nodes: list, constants: dict[str, np.ndarray], size: int = 9, opset: int = 17) -> onnx.ModelProto:
    graph = helper.make_graph(
        nodes,
        "main",
        [helper.make_tensor_value_info("images", TensorProto.FLOAT, ["batch", 3, size, size])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["batch", None])],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)
    onnx.checker.check_model(model, full_check=True)
    return model


def conv(pads: str, size: int = 3, stride: int = 2) -> tuple[list, dict[str, np.ndarray]]:
    """Return Conv, a batch normalization, ReLU, a mean over the picture, a product with a matrix, an addition."""
    attributes = {"auto_pad": pads, "strides": [stride] * 2}
    nodes = [
        helper.make_node("Conv", ["images", "filters"], ["filtered"], name="conv", **attributes),
        helper.make_node("BatchNormalization", ["filtered", "gamma", "beta", "mean", "var"], ["normal"]),
        helper.make_node("Relu", ["normal"], ["positive"]),
        helper.make_node("ReduceMean", ["positive"], ["pooled"], axes=[2, 3], keepdims=0),
        helper.make_node("MatMul", ["pooled", "weights"], ["products"]),
        helper.make_node("Add", ["products", "bias"], ["logits"]),
    ]
    constants = {
        "filters": RANDOM.normal(0, 1, (8, 3, size, size)).astype(np.float32),
        "gamma": RANDOM.uniform(0.5, 1.5, 8).astype(np.float32),
        "beta": RANDOM.normal(0, 1, 8).astype(np.float32),
        "mean": RANDOM.normal(0, 1, 8).astype(np.float32),
        "var": RANDOM.uniform(0.5, 1.5, 8).astype(np.float32),
        "weights": RANDOM.normal(0, 1, (8, 5)).astype(np.float32),
        "bias": RANDOM.normal(0, 1, 5).astype(np.float32),
    }
    return nodes, constants


def answers(model: onnx.ModelProto, size: int = 9) -> np.ndarray:
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    images = np.random.default_rng(1).standard_normal((3, 3, size, size), dtype=np.float32)
    return session.run(None, {"images": images})[0]


@pytest.mark.parametrize("pads", ["SAME_UPPER", "SAME_LOWER", "VALID", "NOTSET"])
@pytest.mark.parametrize(("kernel", "stride"), [(3, 2), (4, 2), (2, 3)])
def test_a_graph_of_keras_kind_becomes_conv_pool_gemm(pads, kernel, stride):
    given = graph_of(*conv(pads, kernel, stride), size=10)
    simple = simplify(given)
    operators = [node.op_type for node in simple.graph.node]
    assert operators == ["Conv", "Relu", "GlobalAveragePool", "Flatten", "Gemm"]
    assert not any(item.name == "auto_pad" and item.s != b"NOTSET" for item in simple.graph.node[0].attribute)
    np.testing.assert_allclose(answers(simple, 10), answers(given, 10), rtol=1e-4, atol=1e-4)
    gemm = simple.graph.node[-1]
    assert {item.name: item.i for item in gemm.attribute if item.name == "transB"} == {"transB": 1}
    assert len(weighted_layers(simple)) == 2


def test_a_product_without_an_addition_and_a_mean_by_stored_axes_are_found_too():
    nodes, constants = conv("VALID")
    nodes = [*nodes[:3], *nodes[3:5]]
    nodes[3] = helper.make_node("ReduceMean", ["positive", "axes"], ["mean4"], keepdims=1)
    nodes[4] = helper.make_node("Flatten", ["mean4"], ["flat"])
    nodes.append(helper.make_node("MatMul", ["flat", "weights"], ["logits"]))
    del constants["bias"]
    given = graph_of(nodes, {**constants, "axes": np.array([-1, -2], np.int64)}, opset=18)
    simple = simplify(given)
    assert [node.op_type for node in simple.graph.node][-3:] == ["GlobalAveragePool", "Flatten", "Gemm"]
    np.testing.assert_allclose(answers(simple), answers(given), rtol=1e-4, atol=1e-4)


def test_metadata_stay_and_the_given_model_is_not_changed():
    given = graph_of(*conv("VALID"))
    add_metadata(given, {"classes": ["a", "b"]})
    before = given.SerializeToString()
    simple = simplify(given)
    assert given.SerializeToString() == before
    assert read_metadata(simple) == {"classes": ["a", "b"]}
    assert [item.domain for item in simple.opset_import] == [""]
