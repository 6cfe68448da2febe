"""Every kind of fault, made by ONNX Runtime's own quantizer where it can make it: named, and in the right place."""

from collections import Counter

import numpy as np
import onnx
import pytest
from onnxruntime.quantization import QuantType

from kinglet.compression.calibration import Histogram, stream_histograms
from kinglet.compression.doctor.bisection import damages
from kinglet.compression.doctor.checks.activations import check_activations
from kinglet.compression.doctor.checks.biases import check_bias_overflow, check_bias_scales
from kinglet.compression.doctor.checks.operators import check_dynamic, check_operators
from kinglet.compression.doctor.checks.placement import check_conversions, check_float_layers, check_fusion
from kinglet.compression.doctor.checks.preprocessing import Way, check_preprocessing
from kinglet.compression.doctor.checks.ranges import check_input_range, check_ranges, noise
from kinglet.compression.doctor.checks.sensitivity import check_sensitive_places, sensitive_places
from kinglet.compression.doctor.checks.weights import check_weights
from kinglet.compression.doctor.checks.without_vnni import check_without_vnni
from kinglet.compression.doctor.effects import logits_of
from kinglet.compression.doctor.graph import Graph
from kinglet.compression.doctor.layer_errors import layer_errors
from kinglet.compression.doctor.qdq_form import to_qdq
from kinglet.compression.doctor.runtime_graph import runtime_graph
from kinglet.compression.fusion import fusions_of
from kinglet.compression.quantization import quantize_static as kinglet_quantized
from kinglet.runtime.preprocessing import Preprocessing
from tests.unit.compression.doctor.broken_files import (
    INT8_SYMMETRIC,
    QOPERATOR,
    changed,
    constants,
    quantized,
    subject_of,
    trials_of,
    with_uneven_channels,
)
from tests.unit.compression.doctor.test_bisection import shuffled
from tests.unit.models.small_networks import bright_quadrants


def distance(model, work):
    """How far a file's answers are from the float file's, as a share of their spread."""
    expected = logits_of(work.float_model, work.inputs)
    return float(np.abs(logits_of(model, work.inputs) - expected).mean() / np.ptp(expected))


def everything(subject, trials):
    runs = runtime_graph(subject.original)
    return [
        *check_activations(subject),
        *check_weights(subject),
        *check_input_range(subject),
        *check_ranges(subject),
        *check_bias_overflow(subject),
        *check_bias_scales(subject),
        *check_operators(subject),
        *check_dynamic(subject.original),
        *check_float_layers(subject, runs),
        *check_fusion(subject, runs),
        *check_conversions(runs),
    ]


def without_relus(model):
    """Take the ReLUs out that stand between two pairs: what older quantizers did with int8 activations."""
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    makers = {name: node for node in copy.graph.node for name in node.output}
    for node in list(copy.graph.node):
        if node.op_type == "Relu":
            before = makers[makers[node.input[0]].input[0]].input[0]  # in front of the pair on its input
            for reader in copy.graph.node:
                reader.input[:] = [before if name == node.output[0] else name for name in reader.input]
            copy.graph.node.remove(node)
    return to_qdq(copy)


def test_dropped_activations_are_found_and_come_back(work):
    model = without_relus(quantized(work.float_model, work.calibration, **INT8_SYMMETRIC))
    (finding,) = check_activations(subject_of(model, work))
    relus = [node for node in work.float_model.graph.node if node.op_type == "Relu"]
    makers = {node.output[0]: node.name for node in work.float_model.graph.node}
    assert set(finding.where) == {makers[node.input[0]] for node in relus}
    assert distance(finding.mend(to_qdq(model)), work) < 0.2 * distance(model, work)


def test_activations_that_are_kept_or_folded_are_not_missed(work, good):
    for model in (good, quantized(work.float_model, work.calibration, **INT8_SYMMETRIC)):
        assert check_activations(subject_of(model, work)) == []


def test_one_scale_for_uneven_channels_is_found_in_its_layer(work):
    factors = 2.0 ** -np.linspace(0, 9, 16)
    uneven = with_uneven_channels(work.float_model, "conv_2", factors)
    model = quantized(uneven, work.calibration, per_channel=False)
    subject = subject_of(model, type(work)(uneven, work.inputs, work.labels, work.calibration))
    (finding,) = check_weights(subject)
    assert finding.where[0] in ("conv_2", "conv_4")
    assert {"conv_2", "conv_4"} <= set(finding.where)
    assert finding.evidence["channels_with_few_levels"]["conv_2"] >= 8
    assert distance(finding.mend(to_qdq(model)), work) < 0.5 * distance(model, work)


def test_without_the_float_file_weights_cannot_be_mended(work):
    uneven = with_uneven_channels(work.float_model, "conv_2", 2.0 ** -np.linspace(0, 9, 16))
    (finding,) = check_weights(subject_of(quantized(uneven, work.calibration, per_channel=False), work, False))
    assert "conv_2" in finding.where
    assert finding.mend is None
    assert "not known without the float file" in finding.repair


def with_range(work, tensor, scale, zero_point=0):
    overrides = {tensor: [{"scale": np.array(scale, np.float32), "zero_point": np.array(zero_point, np.uint8)}]}
    return quantized(work.float_model, work.calibration, extra_options={"TensorQuantOverrides": overrides})


@pytest.fixture(scope="module")
def largest(work):
    """The largest value behind the ReLU of conv_9, and that tensor's name."""
    tensor = next(node.output[0] for node in work.float_model.graph.node if node.name == "relu_10")
    return tensor, stream_histograms(work.float_model, work.inputs)[tensor].high


@pytest.mark.parametrize(("factor", "code"), [(0.1, "clipped-range"), (30, "wide-range")])
def test_a_bad_range_is_found_in_its_place(work, largest, factor, code):
    tensor, high = largest
    model = with_range(work, tensor, factor * high / 255)
    (finding,) = check_ranges(subject_of(model, work))
    assert (finding.code, finding.where) == (code, ("conv_9",))
    evidence = finding.evidence["conv_9"]
    assert (evidence["clipped_share"] > 0.05) == (code == "clipped-range")
    assert evidence["noise_gain_db"] > 15
    assert distance(finding.mend(to_qdq(model)), work) < 0.5 * distance(model, work)


def test_ranges_around_zero_for_values_above_it_are_found(work):
    model = quantized(work.float_model, work.calibration, **INT8_SYMMETRIC)
    findings = {finding.code: finding for finding in check_ranges(subject_of(model, work))}
    assert len(findings["symmetric-range"].where) >= 5


def test_outliers_are_told_from_ranges_that_are_too_wide():
    counts = np.zeros(2048)
    counts[:100] = 1e4
    counts[-1] = 1
    stretched = Histogram(0.0, 20.48, counts)
    assert noise(stretched, 0.0, 20.48, 256)[1] == 0
    from kinglet.compression.doctor.checks.ranges import _code
    from kinglet.compression.doctor.layers import Grid

    grid = Grid(np.array([20.48 / 255], np.float32), np.array([0], np.uint8))
    assert _code(stretched, grid, 0.0) == "outliers"


def test_noise_of_a_range_is_that_of_rounding_and_cutting_off():
    values = np.random.default_rng(0).normal(0, 1, 200_000)
    low, high = float(values.min()), float(values.max())
    histogram = Histogram(low, high, np.histogram(values, 2048, (low, high))[0].astype(float))
    found, clipping = noise(histogram, -1.0, 1.0, 256)
    step = 2 / 255
    rounded = np.clip(np.rint((values + 1) / step) * step - 1, -1, 1)
    assert found == pytest.approx(((rounded - values) ** 2).mean(), rel=0.02)
    assert clipping / found > 0.9


def test_an_input_that_was_calibrated_otherwise_is_found(work):
    model = quantized(work.float_model, work.calibration * 60)
    (finding,) = check_input_range(subject_of(model, work))
    assert finding.code == "input-range"
    assert finding.evidence["calibrated"][1] > 20 * finding.evidence["seen"][1]


TINY = {"extra_options": {"QDQDisableWeightAdjustForInt32Bias": True}}


@pytest.fixture(scope="module")
def with_tiny_weights(work):
    values = constants(work.float_model)
    node = next(node for node in work.float_model.graph.node if node.name == "conv_7")
    weight, bias = values[node.input[1]].copy(), values[node.input[2]].copy()
    weight[::2] *= 1e-9  # what is left of these channels is their bias
    bias[::2] = np.abs(bias[::2]) + 0.5
    model = changed(work.float_model, {node.input[1]: weight, node.input[2]: bias})
    return type(work)(model, work.inputs, work.labels, work.calibration)


def test_biases_that_int32_does_not_hold_are_found_and_mended(with_tiny_weights):
    case = with_tiny_weights
    model = quantized(case.float_model, case.calibration, **TINY)
    (finding,) = check_bias_overflow(subject_of(model, case))
    assert finding.where == ("conv_7",)
    assert finding.evidence["channels_share"]["conv_7"] == 0.5
    assert distance(finding.mend(to_qdq(model)), case) < 0.2 * distance(model, case)
    (alone,) = check_bias_overflow(subject_of(model, case, with_float=False))
    assert (alone.where, alone.mend) == (("conv_7",), None)


def test_biases_that_wrapped_round_are_found_by_the_float_file(with_tiny_weights):
    case = with_tiny_weights
    model = quantized(case.float_model, case.calibration, **TINY)
    layer = Graph(to_qdq(model)).layer["conv_7"]
    node = next(node for node in case.float_model.graph.node if node.name == "conv_7")
    steps = layer.source.scale.astype(float) * layer.weight.grid.scale
    wrapped = np.rint(constants(case.float_model)[node.input[2]] / steps).astype(np.int64).astype(np.int32)
    assert np.abs(wrapped.astype(np.int64)).max() < 2**31 - 1
    model = changed(model, {layer.bias.name: wrapped})
    (finding,) = check_bias_overflow(subject_of(model, case))
    assert (finding.where, finding.evidence["channels_share"]) == (("conv_7",), {"conv_7": 0.5})


def test_biases_with_room_are_not_blamed(with_tiny_weights):
    case = with_tiny_weights
    assert check_bias_overflow(subject_of(quantized(case.float_model, case.calibration), case)) == []


@pytest.mark.parametrize(
    "wrong",
    [
        pytest.param(False, id="the same numbers, which no integer kernel can add"),
        pytest.param(True, id="other numbers"),
    ],
)
def test_biases_in_other_steps_than_their_sums_are_found_and_mended(work, good, wrong):
    layer = Graph(to_qdq(good)).layer["conv_11"]
    node = next(node for node in good.graph.node if layer.bias.name in node.input)
    values = constants(good)
    steps = {node.input[1]: values[node.input[1]] / 4}
    model = changed(good, steps if wrong else {node.input[0]: values[node.input[0]] * 4, **steps})
    subject = subject_of(model, work)
    (finding,) = check_bias_scales(subject)
    assert finding.where == ("conv_11",)
    assert finding.evidence["step_ratio"]["conv_11"] == pytest.approx(4, rel=1e-3)
    assert fusions_of(model).integer_layers == 9
    mended = finding.mend(subject.graph.model)
    assert fusions_of(mended).integer_layers == 10
    assert distance(mended, work) < 0.02
    assert (distance(model, work) > 0.02) == wrong
    (unfused,) = check_fusion(subject, runtime_graph(model))
    assert unfused.where == ("conv_11",)
    assert "other steps" in unfused.what


def test_integer_operators_with_int8_activations_per_channel_are_found(work):
    settings = {"activation_type": QuantType.QInt8, **QOPERATOR}
    model = quantized(work.float_model, work.calibration, **settings)
    (finding,) = check_operators(subject_of(model, work))
    assert finding.code == "qoperator-int8-per-channel"
    assert len(finding.where) >= 8
    pairs = finding.mend(to_qdq(model))
    assert {pair.grid.zero_point.dtype for pair in Graph(pairs).pairs} == {np.dtype(np.uint8)}
    expected = logits_of(to_qdq(model), work.inputs)
    np.testing.assert_allclose(logits_of(pairs, work.inputs), expected, atol=0.05 * np.ptp(expected))


def test_layers_left_in_float_are_found_and_can_be_quantized(work):
    model = quantized(work.float_model, work.calibration, nodes_to_exclude=["conv_9", "gemm_23"])
    subject = subject_of(model, work)
    (finding,) = check_float_layers(subject, runtime_graph(model))
    assert set(finding.where) == {"conv_9", "gemm_23"}
    assert min(finding.evidence["time_share"].values()) > 0
    mended = finding.mend(subject.graph.model)
    assert fusions_of(mended).integer_layers == 10
    assert distance(mended, work) < 0.03


@pytest.mark.parametrize(
    ("kind", "name", "behind"),
    [
        pytest.param(QuantType.QUInt8, "conv_9", "Relu", id="uint8, behind a ReLU"),
        pytest.param(QuantType.QInt8, "conv_4", "Identity", id="int8"),
    ],
)
def test_a_missing_pair_that_stops_a_fusion_is_found_and_put_in(work, kind, name, behind):
    graph = Graph(to_qdq(quantized(work.float_model, work.calibration, activation_type=kind)))
    pair = graph.layer[name].pair
    model = onnx.ModelProto()
    model.CopyFrom(graph.model)
    dropped = [pair.quantize.name, *(node.name for node in pair.dequantizes)]
    instead = onnx.helper.make_node(behind, [pair.tensor], [pair.dequantizes[0].output[0]], name="instead")
    nodes = [node if node.name != pair.quantize.name else instead for node in model.graph.node]
    del model.graph.node[:]
    model.graph.node.extend(node for node in nodes if node.name not in dropped)
    assert not runtime_graph(model).is_integer(name)
    subject = subject_of(model, work)
    (finding,) = check_fusion(subject, runtime_graph(model))
    assert finding.evidence["reasons"][name] == "its output is not quantized"
    mended = finding.mend(subject.graph.model)
    assert runtime_graph(mended).is_integer(name)
    assert distance(mended, work) < 0.03


def test_nodes_are_known_by_the_files_names_whatever_layout_of_images_they_run_in(work, good):
    for model in (work.float_model, good):
        runs = runtime_graph(model)
        assert all(runs.shares[layer.name] > 0 for layer in Graph(to_qdq(model)).layers)
        assert sum(runs.shares.values()) == pytest.approx(1)


def test_islands_of_float_operators_are_found(work):
    model = quantized(work.float_model, work.calibration, op_types_to_quantize=["Conv"], nodes_to_exclude=["conv_9"])
    (finding,) = check_conversions(runtime_graph(model))
    assert {"Add", "Relu"} <= set(finding.evidence["operators"])
    assert finding.evidence["conversions"] >= 3
    assert 0 < finding.evidence["time_share"] < 1


def test_a_sensitive_place_that_does_the_damage_is_named(work, good):
    subject, trials = shuffled(subject_of(good, work), ["conv_0"]), trials_of(work)
    damage = damages(subject, trials, subject.graph.model)
    (finding,) = check_sensitive_places(subject, layer_errors(subject), damage)
    assert (finding.evidence["place"], finding.where) == ("first convolution", ("conv_0",))
    assert finding.evidence["damage_share"] > 0.8
    assert sensitive_places(subject) == {"first convolution": ["conv_0"], "head": ["gemm_23"]}


def test_saturation_is_computed_and_unknown_operators_are_said(work, good):
    values = constants(good)
    layer = Graph(to_qdq(good)).layer["conv_9"]
    loud = np.where(values[layer.weight.name] >= 0, 127, -127).astype(np.int8)
    subject, trials = subject_of(changed(good, {layer.weight.name: loud}), work, False), trials_of(work)
    (finding,) = check_without_vnni(subject, trials, saturates=False)
    assert finding.code == "saturation"
    assert "conv_9" in finding.where
    assert finding.evidence["with_7_bit_weights"]["value"] >= finding.evidence["accuracy_difference"]["value"]
    left, before = (finding.evidence[key] for key in ("saturated_pairs_with_7_bit_weights", "saturated_pairs"))
    assert left < 0.01 * sum(before.values())
    signed = subject_of(quantized(work.float_model, work.calibration, **INT8_SYMMETRIC), work)
    (unknown,) = check_without_vnni(signed, trials, saturates=True)
    assert unknown.code == "saturation-unknown"
    assert "uint8 activations only" in unknown.what


@pytest.mark.parametrize(
    ("stated", "best"),
    [
        pytest.param({"mean": (0.0,) * 3, "std": (1 / 255,) * 3}, "minus-one-one", id="0 to 255"),
        pytest.param({"mean": (0.5,) * 3, "std": (0.5,) * 3}, None, id="right"),
    ],
)
def test_a_preprocessing_that_suits_better_is_found(work, good, stated, best):
    images = bright_quadrants(300, seed=2)
    way = Way("stated", Preprocessing(16, 3, "stretch", **stated))
    packed = {"stretch": images.packed[16]}
    found = check_preprocessing(way, packed, images.labels, lambda x: logits_of(good, x), 0.01)
    assert [finding.code for finding in found] == ([] if best is None else ["preprocessing"])
    if best:
        assert found[0].severity == "critical"
        assert found[0].effect.accuracy.low > 0


def test_no_way_looks_better_by_chance_because_many_are_tried():
    labels = np.arange(100) % 2
    packed = {"stretch": np.zeros((100, 4, 4, 3), np.uint8)}
    stated = Way("stated", Preprocessing(4, 3, "stretch", (0.0,) * 3, (1.0,) * 3))

    def found(seed):
        generator = np.random.default_rng(seed)
        return check_preprocessing(stated, packed, labels, lambda x: generator.normal(size=(len(x), 2)), 0.01)

    # With intervals of 95 % each there would be 3.
    assert sum(len(found(seed)) for seed in range(30)) <= 1


def test_blue_first_is_tried_where_there_are_colours(work):
    labels = np.arange(200) % 2
    images = np.zeros((200, 4, 4, 3), np.uint8)
    images[labels == 0, ..., 0] = 200
    images[labels == 1, ..., 2] = 200

    def predict(inputs):
        return inputs.mean((2, 3))[:, [2, 0]]  # a network that was given blue first

    stated = Way("stated", Preprocessing(4, 3, "stretch", (0.0,) * 3, (1.0,) * 3))
    (finding,) = check_preprocessing(stated, {"stretch": images}, labels, predict, 0.01)
    assert "blue first" in finding.what


def test_a_file_of_kinglets_own_has_none_of_these_faults(work):
    model = kinglet_quantized(work.float_model, stream_histograms(work.float_model, work.calibration), "minmax")
    found = Counter(finding.code for finding in everything(subject_of(model, work), trials_of(work)))
    assert not set(found) - {"outliers"}
