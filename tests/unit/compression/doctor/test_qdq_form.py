"""One form for what every quantizer writes."""

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper
from onnxruntime.quantization import QuantType

from kinglet.compression.doctor.effects import logits_of
from kinglet.compression.doctor.graph import Graph
from kinglet.compression.doctor.qdq_form import dynamic_nodes, is_quantized, to_qdq
from kinglet.runtime.vnni import products_saturate
from tests.unit.compression.doctor.broken_files import INT8_SYMMETRIC, QOPERATOR, quantized


@pytest.mark.parametrize(
    "settings",
    [
        pytest.param({}, id="per channel"),
        pytest.param({"per_channel": False, "weight_type": QuantType.QUInt8}, id="per tensor, uint8 weights"),
        pytest.param(INT8_SYMMETRIC, id="int8 activations"),
    ],
)
def test_integer_operators_become_the_same_network_in_pairs(work, settings):
    if settings is INT8_SYMMETRIC and products_saturate():
        pytest.skip("this processor has no VNNI: its integer operators saturate with int8 activations, pairs do not")
    model = quantized(work.float_model, work.calibration, **settings, **QOPERATOR)
    assert {"QLinearConv", "QLinearAdd", "QGemm"} <= {node.op_type for node in model.graph.node}
    pairs = to_qdq(model)
    onnx.checker.check_model(pairs)
    assert not {node.op_type for node in pairs.graph.node} & {"QLinearConv", "QLinearAdd", "QGemm"}
    # The kernels are the same: what is left are ties in rounding.
    expected, found = logits_of(model, work.inputs), logits_of(pairs, work.inputs)
    assert np.abs(expected - found).max() < 0.03 * np.ptp(expected)
    assert [layer.is_quantized for layer in Graph(pairs).layers] == [True] * 10


def test_float_weights_behind_a_quantize_node_are_stored_as_integers(good):
    """As NNCF and Neural Compressor write them."""
    model = onnx.ModelProto()
    model.CopyFrom(good)
    layer = Graph(to_qdq(good)).layers[2]
    stored = {item.name: item for item in model.graph.initializer}[layer.weight.name]
    node = next(node for node in model.graph.node if stored.name in node.input)
    floats = numpy_helper.from_array(layer.weights, "float_weights")
    model.graph.initializer.append(floats)
    quantize = helper.make_node("QuantizeLinear", ["float_weights", *node.input[1:]], ["again"], name="q", axis=0)
    node.input[0] = "again"
    model.graph.node.insert(0, quantize)
    found = Graph(to_qdq(model)).layers[2]
    np.testing.assert_array_equal(found.weight.values, layer.weight.values)
    assert [pair.tensor for pair in Graph(to_qdq(model)).pairs] == [pair.tensor for pair in Graph(to_qdq(good)).pairs]


def test_every_node_gets_a_name_of_its_own(good):
    model = onnx.ModelProto()
    model.CopyFrom(good)
    for node in model.graph.node:
        node.name = "" if node.op_type == "Conv" else "same"
    names = [node.name for node in to_qdq(model).graph.node]
    assert len(set(names)) == len(names)


def test_a_float_file_is_told_from_a_quantized_one(work, good):
    assert is_quantized(good)
    assert not is_quantized(work.float_model)
    assert dynamic_nodes(good) == []
