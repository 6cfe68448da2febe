"""Layers of the int8 file and of the float file, and the float twin that is made of both."""

import numpy as np
import onnx
import pytest

from kinglet.compression.doctor.effects import logits_of
from kinglet.compression.doctor.graph import Graph
from kinglet.compression.doctor.matching import Activation, match
from kinglet.compression.doctor.qdq_form import to_qdq
from kinglet.compression.doctor.twin import float_twin
from kinglet.compression.equalization import equalize
from kinglet.errors import KingletError
from kinglet.models.export import to_onnx
from tests.unit.compression.doctor.broken_files import INT8_SYMMETRIC, QOPERATOR, changed, constants, quantized
from tests.unit.models.small_networks import NETWORKS

RELU = Activation(0.0, np.inf)


def renamed(model, prefix):
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    for node in copy.graph.node:
        node.name = f"{prefix}{node.name}"
    return copy


def test_layers_are_matched_by_name_and_activations_with_them(work, good):
    found = match(Graph(to_qdq(good)), work.float_model)
    assert found.how == "by name"
    assert {name: layer.name for name, layer in found.layers.items()} == {name: name for name in found.layers}
    assert len(found.layers) == 10
    assert found.activations["conv_0"] == RELU
    assert found.activations["add_5"] == RELU
    assert found.activations["conv_4"] == Activation(-np.inf, np.inf)


def test_without_names_layers_are_matched_by_order_and_weights(work, good):
    found = match(Graph(to_qdq(good)), renamed(work.float_model, "other_"))
    assert found.how == "by order and weights"
    assert [layer.name for layer in found.layers.values()] == [f"other_{name}" for name in found.layers]
    assert len(found.layers) == 10


def test_batch_normalization_of_the_float_file_is_folded_first(work, good):
    model = onnx.ModelProto()
    model.CopyFrom(work.float_model)
    first = model.graph.node[0]
    values = constants(model)
    factors = np.linspace(0.25, 4, 16).astype(np.float32)
    zeros, ones = np.zeros(16, np.float32), np.full(16, 1 - 1e-5, np.float32)
    parts = {"gamma": factors, "beta": values[first.input[2]], "mean": zeros, "variance": ones}
    model = changed(model, {first.input[1]: values[first.input[1]] / factors[:, None, None, None]})
    model.graph.initializer.extend(onnx.numpy_helper.from_array(value, name) for name, value in parts.items())
    first = model.graph.node[0]
    norm = onnx.helper.make_node("BatchNormalization", ["raw", *parts], [first.output[0]], name="norm", epsilon=1e-5)
    first.output[0] = "raw"
    del first.input[2:]
    model.graph.node.insert(1, norm)
    found = match(Graph(to_qdq(good)), model)
    assert found.altered == ()
    assert found.activations["conv_0"] == RELU
    np.testing.assert_allclose(
        found.layers["conv_0"].weights, values[work.float_model.graph.node[0].input[1]], rtol=1e-4
    )


def test_files_of_another_network_are_refused(work, good):
    other = to_onnx(NETWORKS["residual-cnn"](seed=5), 16, 3, {})
    with pytest.raises(KingletError, match="another network: 0 of the 10 layers"):
        match(Graph(to_qdq(good)), other)


def test_weights_that_are_no_rounding_of_the_float_files_stand_in_for_themselves(work):
    equalized, _ = equalize(work.float_model)
    model = quantized(equalized, work.calibration)
    found = match(Graph(to_qdq(model)), work.float_model)
    assert len(found.altered) >= 2
    assert not set(found.altered) & set(found.layers)
    twin = float_twin(Graph(to_qdq(model)), found)
    assert (logits_of(twin, work.inputs).argmax(1) == logits_of(work.float_model, work.inputs).argmax(1)).mean() > 0.98


@pytest.mark.parametrize(
    "settings",
    [
        pytest.param({}, id="pairs"),
        pytest.param(INT8_SYMMETRIC, id="int8 activations"),
        pytest.param(QOPERATOR, id="integer operators"),
        pytest.param({"op_types_to_quantize": ["Conv"]}, id="convolutions only"),
    ],
)
def test_the_twin_computes_what_the_float_file_computes(work, settings):
    graph = Graph(to_qdq(quantized(work.float_model, work.calibration, **settings)))
    twin = float_twin(graph, match(graph, work.float_model))
    onnx.checker.check_model(twin)
    assert not {node.op_type for node in twin.graph.node} & {"QuantizeLinear", "DequantizeLinear"}
    expected = logits_of(work.float_model, work.inputs)
    np.testing.assert_allclose(logits_of(twin, work.inputs), expected, atol=1e-3 * np.ptp(expected))


def test_the_stand_in_has_rounded_weights_and_exact_activations(work, good):
    graph = Graph(to_qdq(good))
    stand_in = float_twin(graph, None)
    weights = {f"{layer.name}.float_weight": layer.weights for layer in graph.layers}
    stored = constants(stand_in)
    for name, values in weights.items():
        np.testing.assert_array_equal(stored[name], values)
    expected = logits_of(work.float_model, work.inputs)
    assert np.abs(logits_of(stand_in, work.inputs) - expected).max() < 0.05 * np.ptp(expected)
    nodes = [node for node in work.float_model.graph.node if node.name in graph.layer]
    rounded = changed(work.float_model, {node.input[1]: graph.layer[node.name].weights for node in nodes})
    np.testing.assert_allclose(
        logits_of(stand_in, work.inputs), logits_of(rounded, work.inputs), atol=0.01 * np.ptp(expected)
    )
