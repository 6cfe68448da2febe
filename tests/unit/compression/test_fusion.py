"""What ONNX Runtime really runs, and the known traps of its quantizer."""

import functools

import numpy as np
import onnx
import pytest
import torch
from onnx import numpy_helper
from torch import nn

from kinglet.compression.bias_correction import correct_biases
from kinglet.compression.calibration import METHODS, stream_histograms
from kinglet.compression.fusion import Fusions, fusions_of, optimized
from kinglet.compression.quantization import compare, quantize_static, weighted_layers
from kinglet.models.efficientnet_lite import efficientnet_lite_spec
from kinglet.models.export import to_onnx
from kinglet.models.inverted_residual import InvertedResidualNet
from kinglet.models.residual_cnn import ResidualCnn, ResidualCnnSpec, ResidualStage
from kinglet.runtime.sessions import open_session, run
from tests.unit.models.small_networks import NETWORKS, live_in

# Operators that carry bytes from layer to layer without computing with them.
CARRIERS = {"Transpose", "Flatten", "Reshape"}


def residual_16():
    """The student of params.yaml."""
    torch.manual_seed(0)
    stages = (ResidualStage(16, 2, (16,)), ResidualStage(32, 2, (32, 32)), ResidualStage(64, 2, (64, 64)))
    return live_in(ResidualCnn(ResidualCnnSpec(1, stages, 10)))


def efficientnet_lite0():
    torch.manual_seed(0)
    return live_in(InvertedResidualNet(efficientnet_lite_spec(1.0, 1.0, 1, 10, 0.0)))


@functools.cache
def histograms_of(make):
    return stream_histograms(to_onnx(make(), 32, 1, {}), images(4, 1, 32))


def images(n, channels, size, seed=0):
    return np.random.default_rng(seed).normal(0.2, 1, (n, channels, size, size)).astype(np.float32)


def values_of(model):
    return {item.name: numpy_helper.to_array(item) for item in model.graph.initializer}


def answers(model, inputs):
    return run(open_session(model.SerializeToString(), threads=1), inputs)


@pytest.mark.parametrize(
    ("make", "expected"),
    [
        (residual_16, {"QLinearConv": 13, "QLinearAdd": 5, "QLinearGlobalAveragePool": 1, "QGemm": 1}),
        (efficientnet_lite0, {"QLinearConv": 49, "QLinearAdd": 9, "QLinearGlobalAveragePool": 1, "QGemm": 1}),
    ],
)
def test_every_layer_of_our_networks_is_computed_in_integers(make, expected):
    model = to_onnx(make(), 32, 1, {})
    inputs = images(4, 1, 32)
    quantized = quantize_static(model, stream_histograms(model, inputs), "minmax")
    for found in (quantized, correct_biases(model, quantized, inputs).model):
        fusions = fusions_of(found)
        assert fusions.integer_layers == len(weighted_layers(model))
        assert fusions.float_layers == 0
        # One conversion of the images and one of the logits, none between the layers.
        assert fusions.conversions == 2
        left = {name: n for name, n in fusions.operators.items() if name not in CARRIERS}
        assert left == {**expected, "QuantizeLinear": 1, "DequantizeLinear": 1}


@pytest.mark.parametrize("make", [residual_16, efficientnet_lite0])
@pytest.mark.parametrize("places", [[0], [2, 3], [5], [-2], [-1], [1, 4, -1]])
def test_spared_layers_and_no_others_are_computed_in_float(make, places):
    """ONNX Runtime brings a float layer between Q and DQ to int8 by itself, per tensor, if its bias is a constant."""
    model = to_onnx(make(), 32, 1, {})
    spared = [weighted_layers(model)[place] for place in places]
    fusions = fusions_of(quantize_static(model, histograms_of(make), "minmax", 8, spared))
    assert (fusions.float_layers, fusions.integer_layers) == (len(spared), len(weighted_layers(model)) - len(spared))


def test_a_pair_that_stops_a_fusion_is_seen():
    model = to_onnx(residual_16(), 28, 1, {})
    quantized = quantize_static(model, stream_histograms(model, images(4, 1, 28)), "minmax")
    layer = next(node for node in quantized.graph.node if node.op_type == "Conv")
    # Float weights between quantized activations: both conversions stay.
    source = next(node for node in quantized.graph.node if node.output[0] == layer.input[1])
    stored, scales, _ = (values_of(quantized)[name] for name in source.input)
    weight = (stored * scales.reshape(-1, 1, 1, 1)).astype(np.float32)
    quantized.graph.initializer.append(numpy_helper.from_array(weight, "float_weight"))
    layer.input[1] = "float_weight"
    fusions = fusions_of(quantized)
    assert fusions.float_layers == 1
    assert fusions.conversions > 2


def test_counts_are_of_layers_and_of_conversions():
    fusions = Fusions({"Add": 3, "DequantizeLinear": 2, "FusedConv": 1, "QGemm": 1, "QLinearConv": 4})
    assert (fusions.integer_layers, fusions.float_layers, fusions.conversions) == (5, 1, 2)
    assert fusions.to_dict()["operators"] == fusions.operators


def test_the_optimized_graph_answers_as_the_file():
    # Kernels whose sums do not saturate are no part of the graph: both are opened as they are served.
    def answers(model, inputs):
        return run(open_session(model.SerializeToString(), threads=1, exact_sums=False), inputs)

    model = to_onnx(NETWORKS["residual-cnn"](), 32, 3, {})
    inputs = images(8, 3, 32)
    quantized = quantize_static(model, stream_histograms(model, inputs), "minmax")
    np.testing.assert_array_equal(answers(optimized(quantized), inputs), answers(quantized, inputs))


@pytest.mark.parametrize("method", list(METHODS))
@pytest.mark.parametrize("family", list(NETWORKS))
def test_activations_that_leave_the_file_live_on_in_the_range_of_their_tensor(family, method):
    """With int8 activations ONNX Runtime's quantizer drops live ReLUs (onnxruntime#9425, #11660).

    A ReLU may only go if the tensor that takes its place cannot hold what the ReLU cuts off.
    """
    model = to_onnx(NETWORKS[family](), 32, 3, {})
    quantized = quantize_static(model, stream_histograms(model, images(16, 3, 32)), method)
    floats, values = values_of(model), values_of(quantized)
    gone = [node for node in model.graph.node if node.op_type in ("Relu", "Clip")]
    kept = {node.output[0] for node in quantized.graph.node if node.op_type in ("Relu", "Clip")}
    assert gone
    assert not kept
    for node in gone:
        scale, zero_point = values[f"{node.output[0]}_scale"], values[f"{node.output[0]}_zero_point"]
        assert zero_point.dtype == np.uint8
        assert zero_point == 0
        if node.op_type == "Clip":
            assert 255 * scale <= floats[node.input[2]] * (1 + 1e-6)


def test_a_relu_that_cuts_off_nearly_everything_still_cuts():
    network = NETWORKS["residual-cnn"]()
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.bias.data -= 1
    model = to_onnx(network, 32, 3, {})
    inputs = images(32, 3, 32)
    quantized = quantize_static(model, stream_histograms(model, inputs), "minmax")
    reference, found = answers(model, inputs), answers(quantized, inputs)
    assert np.abs(found - reference).max() < 0.05 * np.ptp(reference)


def test_files_hold_pairs_of_conversions_and_no_integer_operators():
    """Per-channel weights with QOperator and int8 activations gave 0 % (onnxruntime#12072)."""
    model = to_onnx(NETWORKS["inverted-residual"](), 32, 3, {})
    inputs = images(32, 3, 32)
    quantized = quantize_static(model, stream_histograms(model, inputs), "minmax")
    operators = {node.op_type for node in quantized.graph.node}
    assert not {name for name in operators if name.startswith(("QLinear", "QGemm")) or name.endswith("Integer")}
    assert {"QuantizeLinear", "DequantizeLinear"} < operators
    kinds = {values_of(quantized)[node.input[2]].dtype for node in quantized.graph.node if "Quantize" in node.op_type}
    assert np.dtype(np.uint8) in kinds
    agreement, _ = compare(answers(model, inputs), answers(quantized, inputs))
    assert agreement > 0.9


@pytest.mark.parametrize("largest", [1e-9, 1e-12])
def test_a_bias_does_not_overflow_where_weights_are_tiny(largest):
    """A bias is stored in steps of input scale times weight scale, which int32 cannot hold (onnxruntime#22020)."""
    network = NETWORKS["residual-cnn"]()
    network.stages[1].norm.bias.data[:] = torch.linspace(-0.5, 2, 24)
    network.stages[1].conv.weight.data[::2] *= largest  # what is left of these channels is their bias
    model = to_onnx(network, 32, 3, {})
    inputs = images(32, 3, 32)
    quantized = quantize_static(model, stream_histograms(model, inputs), "minmax")
    values = values_of(quantized)
    for name, bias in values.items():
        if bias.dtype == np.int32 and name.endswith("bias_quantized"):
            stored = bias * values[name.removesuffix("quantized") + "quantized_scale"].astype(np.float64)
            np.testing.assert_allclose(
                stored, values_of(model)[name.removesuffix("_quantized")], rtol=1e-3, atol=1e-3 * np.abs(stored).max()
            )
    reference = answers(model, inputs)
    for found in (quantized, correct_biases(model, quantized, inputs).model):
        assert np.abs(answers(found, inputs) - reference).max() < 0.05 * np.ptp(reference)
        onnx.checker.check_model(found)
