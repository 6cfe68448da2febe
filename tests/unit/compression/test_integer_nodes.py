"""Networks with the parts of others: what ONNX Runtime computes in integers, and that the emulation says the same."""

from __future__ import annotations

import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper

from kinglet.adoption import adopt
from kinglet.compression.calibration import stream_histograms
from kinglet.compression.classification_judge import ClassificationJudge, LabelledRows
from kinglet.compression.fusion import fusions_of
from kinglet.compression.integer_nodes import nodes_left_in_float, quantized_layers
from kinglet.compression.ladder import STEPS, Settings, open_bench
from kinglet.compression.quantization import prices, quantize_static, weighted_layers
from kinglet.compression.quantized import quantize_up
from kinglet.compression.saturation import Emulator
from kinglet.compression.saturation_variants import with_layers_of
from kinglet.compression.simplification import simplify
from kinglet.reporting import silent
from kinglet.runtime.preprocessing import Preprocessing
from kinglet.runtime.sessions import logits_of, open_session, run
from tests.unit.compression.foreign_networks import FOREIGN, SIZE, exported

INPUTS = np.random.default_rng(0).normal(0, 1, (48, 3, SIZE, SIZE)).astype(np.float32)
# What has to be computed in integers beside the layers, and what ONNX Runtime has no integer kernel for.
INTEGERS = {
    "silu-se": {"QLinearSigmoid": 5, "QLinearMul": 5, "QLinearAdd": 1, "QLinearGlobalAveragePool": 2},
    "hard-swish": {"QLinearMul": 4, "QLinearAdd": 1, "QLinearGlobalAveragePool": 2, "HardSigmoid": 0},
    "dense-net": {"QLinearConcat": 2, "QLinearAveragePool": 1, "QLinearGlobalAveragePool": 1},
    "inception": {"QLinearConcat": 2, "QLinearAveragePool": 2, "QLinearGlobalAveragePool": 1},
    "leaky": {"QLinearLeakyRelu": 2, "QLinearGlobalAveragePool": 1},
    "group-norm": {"QLinearGlobalAveragePool": 1, "InstanceNormalization": 1},
    "conv-next": {"MatMulIntegerToFloat": 4, "LayerNormalization": 2, "GlobalAveragePool": 1},
    "transformer": {"MatMulIntegerToFloat": 8, "Softmax": 2, "MatMul": 4},
}
# Conversions of the images, of the logits and around what has no integer kernel.
CONVERSIONS = {"silu-se": 2, "inception": 2, "leaky": 2, "hard-swish": 2, "dense-net": 6, "group-norm": 5}


@pytest.fixture(scope="module", params=list(FOREIGN))
def family(request):
    return request.param


@pytest.fixture(scope="module")
def model(family):
    return simplify(adopt(exported(family), family))


@pytest.fixture(scope="module")
def histograms(model):
    return stream_histograms(model, INPUTS)


def answers(model):
    return run(open_session(model.SerializeToString(), threads=1), INPUTS)


def test_every_layer_and_what_stands_between_integers_is_computed_in_integers(family, model, histograms):
    quantized = quantize_static(model, histograms, "minmax", 7)
    fusions = fusions_of(quantized)
    assert fusions.integer_layers == len(weighted_layers(model))
    found = {name: fusions.operators.get(name, 0) for name in INTEGERS[family]}
    assert found == INTEGERS[family]
    if family in CONVERSIONS:
        assert fusions.conversions == CONVERSIONS[family]
    expected = answers(model)
    errors = np.abs(answers(quantized) - expected)
    assert errors.max() < 0.2 * expected.std()


def test_the_emulation_answers_as_onnxruntime(model, histograms):
    # 7 bits saturate on no processor, so that this holds wherever the test runs.
    quantized = quantize_static(model, histograms, "minmax", 7)
    emulator = Emulator(quantized)
    assert emulator.layers_at_risk == []
    logits, saturated = emulator.run(INPUTS, saturate=False)
    values = {item.name: numpy_helper.to_array(item) for item in quantized.graph.initializer}
    steps = np.abs(logits - answers(quantized)) / values["logits_scale"]
    # A tie in rounding may end a step apart here and there.
    assert steps.max() < 1.5
    assert (steps > 0.5).mean() < 0.02
    assert sum(saturated.values()) == 0
    np.testing.assert_array_equal(logits, emulator.run(INPUTS)[0])


def test_a_layer_can_take_its_weights_from_another_file(model, histograms):
    whole, reduced = (quantize_static(model, histograms, "minmax", bits) for bits in (8, 7))
    layers = weighted_layers(model)
    assert weighted_layers(whole) == layers
    at_risk = Emulator(whole).layers_at_risk
    mixed = with_layers_of(whole, reduced, at_risk[-1:])
    assert Emulator(mixed).layers_at_risk == at_risk[:-1]
    assert with_layers_of(whole, reduced, layers).graph.initializer == reduced.graph.initializer


def test_the_ladder_and_its_guard_take_a_transformer():
    model = simplify(adopt(exported("transformer"), "transformer"))
    preprocessing = Preprocessing(SIZE, 3, "stretch", (0.45,) * 3, (0.25,) * 3)
    packed = np.random.default_rng(0).integers(0, 256, (96, SIZE, SIZE, 3)).astype(np.uint8)
    session = open_session(model.SerializeToString(), threads=1)
    labels = logits_of(session, packed, np.arange(96), preprocessing).argmax(1)
    calibration, choice = (LabelledRows(packed, rows, labels[rows]) for rows in np.split(np.arange(96), [32]))
    settings = Settings(["minmax"], [8], 0.5, 0)
    judge = ClassificationJudge(model, choice, preprocessing)
    bench = open_bench("it", model, calibration.images, judge, preprocessing, settings, silent, lambda _: None)
    quantized = quantize_up(bench, STEPS, list("abcd"))
    assert quantized.unfused_layers == 0
    assert quantized.notes["guard"]["within_tolerance"]
    assert quantized.notes["without_vnni"]["saturated_pairs"]


def test_the_other_exporter_gives_the_same_integers():
    files = [simplify(adopt(exported("silu-se", dynamo=dynamo, opset=18), "it")) for dynamo in (False, True)]
    np.testing.assert_allclose(*map(answers, files), atol=1e-5)
    integers = [fusions_of(quantize_static(file, stream_histograms(file, INPUTS), "minmax")) for file in files]
    counts = [{name: n for name, n in found.operators.items() if name.startswith("Q")} for found in integers]
    assert counts[0] == counts[1]


@pytest.mark.parametrize("opset", [11, 13, 20])
def test_old_and_new_operator_sets_give_the_same_integers(opset):
    file, usual = (simplify(adopt(exported("hard-swish", opset=number), "it")) for number in (opset, 17))
    np.testing.assert_allclose(answers(file), answers(usual), atol=1e-5)
    quantized = quantize_static(file, stream_histograms(file, INPUTS), "minmax")
    fusions = fusions_of(quantized)
    assert (fusions.conversions, fusions.integer_layers) == (2, len(weighted_layers(file)))


def test_a_layer_can_stay_in_float(model, histograms):
    layers = weighted_layers(model)
    spared = layers[len(layers) // 2]
    whole, partly = (quantize_static(model, histograms, "minmax", 8, names) for names in ([], [spared]))
    assert fusions_of(partly).integer_layers == fusions_of(whole).integer_layers - 1
    assert set(prices(model)) == set(layers)
    assert spared not in Emulator(partly).layers_at_risk


def graph(nodes, constants, shape=(4, 4, 4)):
    """A model of these nodes; `y` comes out."""
    return helper.make_model(
        helper.make_graph(
            nodes,
            "graph",
            [helper.make_tensor_value_info("images", TensorProto.FLOAT, ["n", *shape])],
            [helper.make_tensor_value_info("logits", TensorProto.FLOAT, None)],
            [numpy_helper.from_array(np.asarray(value, np.float32), name) for name, value in constants.items()],
        ),
        opset_imports=[helper.make_opsetid("", 17)],
        ir_version=8,
    )


CONV = helper.make_node("Conv", ["images", "w"], ["a"], name="layer")
W = {"w": np.ones((4, 4, 1, 1))}


@pytest.mark.parametrize(
    ("nodes", "constants", "left"),
    [
        pytest.param([helper.make_node("Add", ["a", "c"], ["logits"])], {"c": 2}, [], id="one number"),
        pytest.param(
            [helper.make_node("Mul", ["a", "c"], ["logits"])], {"c": np.ones((4, 1, 1))}, ["Mul"], id="many numbers"
        ),
        pytest.param(
            [helper.make_node("Tanh", ["a"], ["t"]), helper.make_node("Mul", ["a", "t"], ["logits"])],
            {},
            [],
            id="after an activation between integers",
        ),
        pytest.param(
            [helper.make_node("Softmax", ["a"], ["t"]), helper.make_node("Add", ["a", "t"], ["logits"])],
            {},
            ["Add"],
            id="after what is computed in float",
        ),
        pytest.param(
            [helper.make_node("MatMul", ["a", "a"], ["logits"])], {}, ["MatMul"], id="a product of two activations"
        ),
    ],
)
def test_a_node_follows_what_reaches_it(nodes, constants, left):
    model = graph([CONV, *nodes], {**W, **constants})
    assert [node.op_type for node in nodes_left_in_float(model)] == left
    assert [node.name for node in quantized_layers(model)] == ["layer"]


@pytest.mark.parametrize("count_include_pad", [0, 1])
@pytest.mark.parametrize("pads", [[0, 0, 0, 0], [1, 1, 1, 1]])
@pytest.mark.parametrize("ceil_mode", [0, 1])
@pytest.mark.parametrize("zero_point_is_odd", [False, True])
def test_means_of_windows_are_rounded_as_the_kernel_does(count_include_pad, pads, ceil_mode, zero_point_is_odd):
    options = {"kernel_shape": [2, 2], "strides": [2, 2], "pads": pads, "ceil_mode": ceil_mode}
    constants = {"s": np.float32(0.0158), "w": np.eye(4).reshape(4, 4, 1, 1)}
    pool = helper.make_node("AveragePool", ["x"], ["y"], count_include_pad=count_include_pad, **options)
    nodes = [
        helper.make_node("QuantizeLinear", ["images", "s", "z"], ["q"]),
        helper.make_node("DequantizeLinear", ["q", "s", "z"], ["x"]),
        pool,
        helper.make_node("QuantizeLinear", ["y", "s", "z"], ["r"]),
        helper.make_node("DequantizeLinear", ["r", "s", "z"], ["logits"]),
    ]
    model = graph(nodes, constants, (4, 7, 8))
    zero_point = np.uint8(120 + zero_point_is_odd)
    model.graph.initializer.append(numpy_helper.from_array(np.asarray(zero_point), "z"))
    assert fusions_of(model).operators["QLinearAveragePool"] == 1
    inputs = np.random.default_rng(1).normal(0, 0.7, (8, 4, 7, 8)).astype(np.float32)
    logits = run(open_session(model.SerializeToString(), threads=1), inputs)
    if ceil_mode and count_include_pad:  # whose integer kernel computes another mean: it is never quantized
        pool.input[0], pool.output[0] = "a", "logits"
        assert nodes_left_in_float(graph([CONV, pool], W)) == [pool]
        return
    np.testing.assert_array_equal(Emulator(model).run(inputs)[0], logits)
