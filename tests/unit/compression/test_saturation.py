import numpy as np
import pytest
from hypothesis import given as forall
from hypothesis import settings
from hypothesis import strategies as some
from hypothesis.extra.numpy import arrays
from onnx import TensorProto, helper, numpy_helper

from kinglet.compression import saturation
from kinglet.compression.calibration import stream_histograms
from kinglet.compression.quantization import quantize_static, weighted_layers
from kinglet.compression.saturation import (
    Emulator,
    convolve_integers,
    emulated_logits,
    logits_and_saturated_pairs,
    logits_without_vnni,
    sums_of_products,
)
from kinglet.models.export import to_onnx
from kinglet.runtime.preprocessing import Preprocessing, normalize
from kinglet.runtime.sessions import open_session, run
from kinglet.runtime.vnni import products_saturate
from tests.unit.models.small_networks import NETWORKS, bright_quadrants

PREPROCESSING = Preprocessing(16, 3, "stretch", (0.45,) * 3, (0.25,) * 3)
PACKED = bright_quadrants(80, seed=4).packed[16]
INPUTS = normalize(PACKED, PREPROCESSING)


def saturating_sum(weights, activations):
    """What vpmaddubsw, vpmaddwd and vpaddd make of two rows of integers, in plain Python."""
    total = n_saturated = 0
    for first in range(0, len(weights), 2):
        products = [int(w) * int(a) for w, a in zip(weights[first : first + 2], activations[first : first + 2])]  # noqa: B905
        pair = min(max(sum(products), -32768), 32767)
        total += pair
        n_saturated += pair != sum(products)
    return total, n_saturated


def reference(weights, activations):
    cells = [[saturating_sum(row, column) for column in activations.T] for row in weights]
    return np.array([[total for total, _ in row] for row in cells]), sum(count for row in cells for _, count in row)


# Extremes beside values from the whole range: pairs that just fit and just do not are common.
weight = some.sampled_from([-128, -127, -64, 0, 1, 64, 65, 127]) | some.integers(-128, 127)
activation = some.sampled_from([0, 1, 254, 255]) | some.integers(0, 255)
sizes = some.tuples(some.integers(1, 4), some.integers(1, 9), some.integers(1, 5))


@settings(deadline=None, max_examples=100)
@forall(some.data(), sizes)
def test_sums_are_those_of_the_instructions_bit_by_bit(data, size):
    n_outputs, n_inputs, n_positions = size
    weights = data.draw(arrays(np.int8, (n_outputs, n_inputs), elements=weight))
    activations = data.draw(arrays(np.uint8, (n_inputs, n_positions), elements=activation))
    sums, n_saturated = sums_of_products(weights, activations)
    expected, expected_count = reference(weights, activations)
    np.testing.assert_array_equal(sums, expected)
    assert n_saturated == expected_count
    exact, none = sums_of_products(weights, activations, saturate=False)
    np.testing.assert_array_equal(exact, weights.astype(int) @ activations.astype(int))
    assert none == 0


@pytest.mark.parametrize(
    ("weights", "activations", "total", "n_saturated"),
    [
        pytest.param([127, 127], [255, 255], 32767, 1, id="too large"),
        pytest.param([-128, -128], [255, 255], -32768, 1, id="too small"),
        pytest.param([64, 64], [255, 255], 32640, 0, id="7 bits always fit"),
        pytest.param([127, -128], [255, 255], -255, 0, id="signs cancel"),
        pytest.param([0, 127, 127, 0], [255] * 4, 64770, 0, id="neighbours, but no pair"),
        pytest.param([127, 127, -128, -128], [255] * 4, -1, 2, id="only pairs saturate, not their sum"),
        pytest.param([127], [255], 32385, 0, id="the last of an odd number is alone"),
        pytest.param([127] * 2048, [255] * 2048, 1024 * 32767, 1024, id="more than float32 holds exactly"),
    ],
)
def test_known_sums(weights, activations, total, n_saturated):
    sums, count = sums_of_products(np.array([weights], np.int8), np.array(activations, np.uint8)[:, None])
    assert (sums.item(), count) == (total, n_saturated)


@pytest.mark.parametrize(
    ("channels", "n_outputs", "group", "attributes"),
    [
        pytest.param(4, 3, 1, {"pads": [1, 1, 1, 1]}, id="padded with the zero point"),
        pytest.param(3, 4, 1, {"strides": [2, 2], "pads": [0, 1, 1, 0]}, id="odd channels: pairs span two pixels"),
        pytest.param(1, 8, 1, {"dilations": [2, 1]}, id="one channel: pairs are pixels in a row"),
        pytest.param(4, 6, 2, {}, id="groups"),
    ],
)
def test_convolutions_pair_weights_by_row_column_and_channel(channels, n_outputs, group, attributes):
    generator = np.random.default_rng(channels)
    images = generator.choice([0, 128, 255], (2, channels, 6, 7)).astype(np.uint8)
    weights = generator.choice([-128, -90, 0, 90, 127], (n_outputs, channels // group, 3, 3)).astype(np.int8)
    sums, count = convolve_integers(images, weights, {"group": group, **attributes}, 200, True)
    exact, _ = convolve_integers(images, weights, {"group": group, **attributes}, 200, False)
    top, left, bottom, right = attributes.get("pads", [0] * 4)
    (stride, _), dilations = attributes.get("strides", (1, 1)), attributes.get("dilations", (1, 1))
    padded = np.pad(images, ((0, 0), (0, 0), (top, bottom), (left, right)), constant_values=200)
    expected_count = 0
    for index in np.ndindex(*sums.shape):
        image, output, row, column = index
        of_group, per_group = channels // group, n_outputs // group
        first = output // per_group * of_group
        seen = [
            padded[image, first + c, row * stride + i * dilations[0], column * stride + j * dilations[1]]
            for i in range(3)
            for j in range(3)
            for c in range(of_group)
        ]
        own = [weights[output, c, i, j] for i in range(3) for j in range(3) for c in range(of_group)]
        total, saturated = saturating_sum(own, seen)
        assert sums[index] == total
        assert exact[index] == sum(int(w) * int(a) for w, a in zip(own, seen, strict=True))
        expected_count += saturated
    assert count == expected_count > 0


def test_depthwise_convolutions_never_saturate():
    images = np.full((1, 4, 5, 5), 255, np.uint8)
    weights = np.full((4, 1, 3, 3), 127, np.int8)
    sums, count = convolve_integers(images, weights, {"group": 4}, 0, True)
    assert (sums == 9 * 127 * 255).all()
    assert count == 0


@pytest.fixture(scope="module", params=list(NETWORKS))
def model(request):
    return to_onnx(NETWORKS[request.param](), 16, 3, {"classes": ["a", "b", "c", "d"]})


@pytest.fixture(scope="module")
def histograms(model):
    return stream_histograms(model, INPUTS)


@pytest.mark.parametrize("method", ["minmax", "percentile"])
@pytest.mark.parametrize("n_float", [0, 2])
def test_without_saturation_the_answers_are_those_of_onnxruntime(model, histograms, method, n_float):
    layers = weighted_layers(model)
    # 7 bits saturate on no processor, so that this holds wherever the test runs.
    quantized = quantize_static(model, histograms, method, 7, layers[1::2][:n_float])
    emulator = Emulator(quantized)
    assert len(emulator.layers_at_risk) <= n_float
    logits, saturated = emulator.run(INPUTS, saturate=False)
    expected = run(open_session(quantized.SerializeToString(), threads=1), INPUTS)
    assert logits.dtype == np.float32
    values = {item.name: numpy_helper.to_array(item) for item in quantized.graph.initializer}
    # A tie in rounding may end a step apart here and there.
    steps = np.abs(logits - expected) / values["logits_scale"]
    assert steps.max() < 2.5
    assert (steps > 0.5).mean() < 0.1
    assert (logits.argmax(1) == expected.argmax(1)).mean() > 0.97
    assert sum(saturated.values()) == 0
    if not n_float:
        np.testing.assert_array_equal(logits, emulator.run(INPUTS)[0])


def test_8_bits_saturate_and_say_in_which_layers(model, histograms):
    quantized = quantize_static(model, histograms, "minmax", 8)
    emulator = Emulator(quantized)
    logits, saturated = emulator.run(INPUTS)
    exact, none = emulator.run(INPUTS, saturate=False)
    assert sum(none.values()) == 0
    assert sum(saturated.values()) > 0
    assert {name for name, count in saturated.items() if count} <= set(emulator.layers_at_risk)
    assert set(saturated) == set(weighted_layers(model))
    assert not np.array_equal(logits, exact)


def test_this_processor_adds_as_it_is_believed_to(model, histograms):
    """Where it has no VNNI, ONNX Runtime as it serves is what is emulated, bit by bit; elsewhere nothing saturates."""
    quantized = quantize_static(model, histograms, "minmax", 8)
    content, emulator = quantized.SerializeToString(), Emulator(quantized)
    served = run(open_session(content, threads=1, exact_sums=False), INPUTS)
    steps = np.abs(served - emulator.run(INPUTS, saturate=products_saturate())[0])
    assert steps.max() < 2.5 * numpy_helper.to_array(logits_scale(quantized))
    # What decides about models does not depend on the processor.
    exact = run(open_session(content, threads=1), INPUTS)
    steps = np.abs(exact - emulator.run(INPUTS, saturate=False)[0])
    assert steps.max() < 2.5 * numpy_helper.to_array(logits_scale(quantized))
    assert np.array_equal(served, exact) != products_saturate()


def logits_scale(quantized):
    return next(item for item in quantized.graph.initializer if item.name == "logits_scale")


def test_a_float_model_is_at_no_risk_and_gets_the_same_answers(model):
    emulator = Emulator(model)
    assert emulator.layers_at_risk == []
    logits, saturated = emulator.run(INPUTS)
    np.testing.assert_allclose(logits, run(open_session(model.SerializeToString(), threads=1), INPUTS), atol=1e-4)
    assert not saturated


def test_layer_left_in_float_is_at_no_risk(model, histograms):
    at_risk = Emulator(quantize_static(model, histograms, "minmax", 8)).layers_at_risk
    spared = Emulator(quantize_static(model, histograms, "minmax", 8, at_risk[-1:])).layers_at_risk
    assert spared == at_risk[:-1]


def test_workers_and_batches_change_nothing(model, histograms):
    quantized = quantize_static(model, histograms, "minmax", 8)
    rows = np.arange(len(PACKED))[::-1]
    logits, saturated = emulated_logits(Emulator(quantized), PACKED, rows, PREPROCESSING, workers=3)
    alone, counts = Emulator(quantized).run(normalize(PACKED[rows], PREPROCESSING))
    np.testing.assert_array_equal(logits, alone)
    assert saturated == counts


def test_a_processor_that_saturates_answers_itself_and_the_emulation_counts(model, histograms, monkeypatch):
    quantized = quantize_static(model, histograms, "minmax", 8)
    rows = np.arange(len(PACKED))
    emulated, _ = emulated_logits(Emulator(quantized), PACKED, rows, PREPROCESSING)
    step = numpy_helper.to_array(logits_scale(quantized))
    elsewhere = logits_without_vnni(quantized, PACKED, rows, PREPROCESSING, saturates=False)
    np.testing.assert_array_equal(elsewhere, emulated)
    here = logits_without_vnni(quantized, PACKED, rows, PREPROCESSING)
    assert np.abs(here - emulated).max() < 2.5 * step

    monkeypatch.setattr(saturation, "COUNTED_IMAGES", 16)
    logits, saturated = logits_and_saturated_pairs(quantized, PACKED, rows, PREPROCESSING)
    assert np.abs(logits - emulated).max() < 2.5 * step
    assert saturated == Emulator(quantized).run(INPUTS[:16])[1]


def one_layer(activation, limits, scale, zero_point=0):
    """A quantized pointwise convolution, then `activation`, then a quantization of this scale and zero point."""
    constants = {
        "one": np.float32(1),
        "zero": np.uint8(0),
        "scale": np.float32(scale),
        "zero_point": np.uint8(zero_point),
        "weight": np.full((1, 2, 1, 1), 127, np.int8),
        "no_shift": np.int8(0),
        **{f"limit_{index}": np.float32(limit) for index, limit in enumerate(limits)},
    }
    nodes = [
        helper.make_node("QuantizeLinear", ["images", "one", "zero"], ["q"]),
        helper.make_node("DequantizeLinear", ["q", "one", "zero"], ["x"]),
        helper.make_node("DequantizeLinear", ["weight", "one", "no_shift"], ["w"]),
        helper.make_node("Conv", ["x", "w"], ["y"], name="layer"),
        helper.make_node(activation, ["y", *(f"limit_{index}" for index in range(len(limits)))], ["z"]),
        helper.make_node("QuantizeLinear", ["z", "scale", "zero_point"], ["zq"]),
        helper.make_node("DequantizeLinear", ["zq", "scale", "zero_point"], ["logits"]),
    ]
    graph = helper.make_graph(
        nodes,
        "one layer",
        [helper.make_tensor_value_info("images", TensorProto.FLOAT, ["n", 2, 1, 1])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["n", 1, 1, 1])],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)])


@pytest.mark.parametrize(
    ("activation", "limits", "zero_point", "in_integers"),
    [
        pytest.param("Relu", [], 0, True, id="uint8 without a shift has no negative numbers anyway"),
        pytest.param("Relu", [], 10, False, id="the shift leaves room for negative numbers"),
        pytest.param("Clip", [0, 70_000], 0, True, id="uint8 ends earlier"),
        pytest.param("Clip", [0, 60_000], 0, False, id="the limit is reached first"),
    ],
)
def test_a_layer_counts_as_integer_where_its_activation_is_needless(activation, limits, zero_point, in_integers):
    quantized = one_layer(activation, limits, 256, zero_point)
    emulator = Emulator(quantized)
    assert emulator.layers_at_risk == (["layer"] if in_integers else [])
    inputs = np.full((1, 2, 1, 1), 255, np.float32)
    exact = run(open_session(quantized.SerializeToString(), threads=1), inputs)
    np.testing.assert_array_equal(emulator.run(inputs, saturate=False)[0], exact)
    logits, saturated = emulator.run(inputs)
    assert sum(saturated.values()) == in_integers
    assert logits.item() == (32768 if in_integers else exact.item())


def test_float_operators_between_the_layers_are_those_of_onnxruntime():
    quantized = one_layer("Sigmoid", [], 1 / 255)
    inputs = np.random.default_rng(0).normal(0, 1, (16, 2, 1, 1)).astype(np.float32)
    expected = run(open_session(quantized.SerializeToString(), threads=1), inputs)
    np.testing.assert_array_equal(Emulator(quantized).run(inputs, saturate=False)[0], expected)


def test_sums_in_integers_of_another_kind_are_refused():
    quantized = one_layer("Relu", [], 1)
    quantized.graph.node[4].op_type, quantized.graph.node[4].domain = "QLinearSigmoid", "com.microsoft"
    with pytest.raises(ValueError, match="QLinearSigmoid"):
        Emulator(quantized)
