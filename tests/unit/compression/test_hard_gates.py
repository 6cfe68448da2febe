import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper

from kinglet.compression.hard_gates import gates_of, write_hard_gates_as_convolutions
from kinglet.runtime.sessions import open_session, run

INPUTS = np.random.default_rng(0).normal(0, 4, (16, 3, 5, 5)).astype(np.float32)


def model(gate, first="Conv", **attributes):
    weights = np.random.default_rng(1).normal(0, 1, (6, 3, 1, 1)).astype(np.float32)
    nodes = [
        helper.make_node(first, ["images", "w"] if first == "Conv" else ["images"], ["x"], name="first"),
        helper.make_node(gate, ["x"], ["logits"], name="gate", **attributes),
    ]
    graph = helper.make_graph(
        nodes,
        "gate",
        [helper.make_tensor_value_info("images", TensorProto.FLOAT, ["n", 3, 5, 5])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, None)],
        [numpy_helper.from_array(weights, "w")] if first == "Conv" else [],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def answers(of):
    return run(open_session(of.SerializeToString(), threads=1), INPUTS)


@pytest.mark.parametrize(
    ("gate", "attributes", "operators"),
    [
        pytest.param("HardSigmoid", {}, ["Conv", "Conv", "Clip"], id="with the slope that ONNX gives it"),
        pytest.param("HardSigmoid", {"alpha": 1 / 6}, ["Conv", "Conv", "Clip"], id="with that of MobileNetV3"),
        pytest.param("HardSwish", {}, ["Conv", "Conv", "Clip", "Mul"], id="hard swish"),
    ],
)
def test_a_gate_becomes_a_convolution_of_the_same_function(gate, attributes, operators):
    written = model(gate, **attributes)
    expected = answers(written)
    write_hard_gates_as_convolutions(written)
    assert [node.op_type for node in written.graph.node] == operators
    assert [node.name for node in written.graph.node][:2] == ["first", "gate"]
    np.testing.assert_allclose(answers(written), expected, atol=1e-5)
    clip = written.graph.node[2]
    assert gates_of(written) == [clip.input[0], clip.output[0]]


def test_a_gate_after_anything_but_a_convolution_stays():
    kept = model("HardSigmoid", first="Tanh")
    before = kept.SerializeToString()
    write_hard_gates_as_convolutions(kept)
    assert kept.SerializeToString() == before
    assert gates_of(kept) == []
