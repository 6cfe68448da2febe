"""The writer of int8 files beside the quantizer of ONNX Runtime, whose pairs it sets."""

from collections import Counter

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper
from onnxruntime.quantization import CalibrationMethod, QuantType
from onnxruntime.quantization.calibrate import TensorData, TensorsData
from onnxruntime.quantization.qdq_quantizer import QDQQuantizer

from kinglet.compression.calibration import range_of, stream_histograms
from kinglet.compression.hard_gates import gates_of
from kinglet.compression.integer_nodes import FLOAT_RESULT, OPERATORS, nodes_left_in_float
from kinglet.compression.qdq import Grid, grid_of_range, grid_of_weight, with_room_for_bias, write_qdq
from kinglet.compression.quantization import _prepare, quantize_static
from kinglet.models.detector import Detector, DetectorSpec
from kinglet.models.efficientnet_lite import efficientnet_lite_spec
from kinglet.models.export import to_onnx
from kinglet.runtime.detection import DETECTOR_OUTPUTS
from kinglet.runtime.sessions import load_session
from tests.unit.compression import foreign_networks
from tests.unit.models.small_networks import NETWORKS, live_in


def by_onnxruntime(model, histograms, weight_bits):
    """What ONNX Runtime's own quantizer makes of the same graph, ranges and choice of nodes."""
    prepared = _prepare(model)
    ranges = {name: range_of(statistics, "minmax") for name, statistics in histograms.items()}
    ranges.update(dict.fromkeys(gates_of(prepared), (0.0, 1.0)))
    data = {name: TensorData(lowest=np.float32(low), highest=np.float32(high)) for name, (low, high) in ranges.items()}
    quantizer = QDQQuantizer(
        prepared,
        per_channel=True,
        reduce_range=weight_bits == 7,
        weight_qType=QuantType.QInt8,
        activation_qType=QuantType.QUInt8,
        tensors_range=TensorsData(CalibrationMethod.MinMax, data),
        nodes_to_quantize=[],
        nodes_to_exclude=[node.name for node in nodes_left_in_float(prepared)],
        op_types_to_quantize=list(OPERATORS),
        extra_options={
            "QDQKeepRemovableActivations": False,
            "ForceQuantizeNoInputCheck": False,
            "OpTypesToExcludeOutputQuantization": list(FLOAT_RESULT),
        },
    )
    quantizer.quantize_model()
    quantizer.model.topological_sort()
    return quantizer.model.model


def answers(model, inputs):
    session = load_session(model.SerializeToString(), threads=1)
    return session.run(None, {session.get_inputs()[0].name: inputs})


def kinds(model):
    return Counter(node.op_type for node in model.graph.node)


def detector():
    torch.manual_seed(0)
    spec = DetectorSpec.on(efficientnet_lite_spec(1.0, 1.0, 3, 10, 0.0), 3)
    network = live_in(Detector(spec))
    for layer in (*network.head.classes, *network.head.distances):
        torch.nn.init.normal_(layer.bias)  # equal ones are stored once, and ONNX Runtime's quantizer loses those
    return to_onnx(network, 64, 3, {}, outputs=DETECTOR_OUTPUTS)


GRAPHS = {
    **{name: lambda make=make: to_onnx(make(), 16, 3, {}) for name, make in NETWORKS.items()},
    **{name: lambda name=name: foreign_networks.exported(name) for name in foreign_networks.FOREIGN},
    "detector": detector,
}


@pytest.mark.parametrize("bits", [8, 7])
@pytest.mark.parametrize("graph", GRAPHS)
def test_the_file_computes_what_onnxruntimes_quantizer_would_have_written(graph, bits):
    model = GRAPHS[graph]()
    size = 64 if graph == "detector" else 16
    inputs = np.random.default_rng(0).normal(0.2, 1, (4, 3, size, size)).astype(np.float32)
    histograms = stream_histograms(model, inputs)
    own, theirs = quantize_static(model, histograms, "minmax", bits), by_onnxruntime(model, histograms, bits)
    assert kinds(own) == kinds(theirs)
    onnx.checker.check_model(own)
    for found, expected in zip(answers(own, inputs), answers(theirs, inputs), strict=True):
        np.testing.assert_array_equal(found, expected)


# --- what differs, or cannot be seen there


def two_layers(*, weights=("w", "w"), biases=("b", "b"), bias=1.0):
    """A file of two convolutions of one pixel, `first` and `second`, by default with one weight and one bias."""
    generator = np.random.default_rng(1)
    stored = {name: generator.normal(0, 1, (3, 3, 1, 1)).astype(np.float32) for name in weights}
    stored |= {name: np.full(3, bias, np.float32) for name in biases}
    nodes = [
        helper.make_node("Conv", ["images", weights[0], biases[0]], ["between"], "first"),
        helper.make_node("Conv", ["between", weights[1], biases[1]], ["logits"], "second"),
    ]
    shape = ["n", 3, 4, 4]
    ends = [[helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)] for name in ("images", "logits")]
    initializers = [numpy_helper.from_array(value, name) for name, value in stored.items()]
    graph = helper.make_graph(nodes, "two", *ends, initializers)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)


RANGES = {"images": (-1.0, 1.0), "between": (-2.0, 4.0), "logits": (-4.0, 8.0)}


def written(model, bits=8, in_float=()):
    return write_qdq(onnx.shape_inference.infer_shapes(model), RANGES, bits, in_float)


def values_of(model):
    return {item.name: numpy_helper.to_array(item) for item in model.graph.initializer}


def read_by(model, name, place):
    """What a node reads: the tensor as it is stored, and its scale; None for that where it is in float."""
    makers = {node.output[0]: node for node in model.graph.node}
    source = next(node for node in model.graph.node if node.name == name).input[place]
    values = values_of(model)
    if source in values:
        return values[source], None
    return values[makers[source].input[0]], values[makers[source].input[1]]


def test_layers_with_one_bias_have_it_each_in_steps_of_their_own():
    model = written(two_layers())
    steps = []
    for name, source in (("first", "images"), ("second", "between")):
        stored, scale = read_by(model, name, 2)
        np.testing.assert_allclose(stored * scale, 1.0, rtol=1e-4)
        np.testing.assert_allclose(scale, grid_of_range(RANGES[source]).scale * read_by(model, name, 1)[1], rtol=1e-6)
        steps.append(scale)
    assert (steps[0] != steps[1]).all()


def test_a_weight_that_a_spared_layer_shares_stays_float_for_it():
    model = written(two_layers(), in_float={"second"})
    assert read_by(model, "first", 1)[0].dtype == np.int8
    assert read_by(model, "second", 1)[0].dtype == np.float32


def test_layers_with_one_weight_and_biases_of_very_different_size_fit_both_into_32_bits():
    model = two_layers(biases=("b", "c"))
    large = next(item for item in model.graph.initializer if item.name == "c")
    large.CopyFrom(numpy_helper.from_array(np.full(3, 3e7, np.float32), "c"))
    quantized = written(model)
    for name, expected in (("first", 1.0), ("second", 3e7)):
        stored, scale = read_by(quantized, name, 2)
        assert np.abs(stored.astype(np.int64)).max() < 2**31 - 1
        np.testing.assert_allclose(stored * scale.astype(np.float64), expected, rtol=1e-4)
        weight, step = read_by(quantized, name, 1)
        original = values_of(model)["w"]
        assert (np.abs(weight * step.reshape(-1, 1, 1, 1) - original) <= 0.51 * step.reshape(-1, 1, 1, 1)).all()


def test_the_factor_of_a_gemms_bias_is_in_the_stored_bias():
    stored = {"w": np.eye(3, dtype=np.float32), "b": np.array([1, -2, 4], np.float32)}
    node = helper.make_node("Gemm", ["images", "w", "b"], ["logits"], "gemm", beta=0.5)
    ends = [[helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n", 3])] for name in ("images", "logits")]
    initializers = [numpy_helper.from_array(value, name) for name, value in stored.items()]
    graph = helper.make_graph([node], "gemm", *ends, initializers)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    quantized, inputs = written(model), np.array([[0.5, -1, 0.25]], np.float32)
    (expected,), (found,) = answers(model, inputs), answers(quantized, inputs)
    np.testing.assert_allclose(found, expected, atol=0.06)


def test_a_range_that_is_missing_is_named():
    model = onnx.shape_inference.infer_shapes(two_layers())
    with pytest.raises(ValueError, match="range of between"):
        write_qdq(model, {name: RANGES[name] for name in ("images", "logits")}, 8, ())


@pytest.mark.parametrize(
    ("limits", "scale", "zero_point"), [((-1, 2), 3 / 255, 85), ((0.5, 2), 2 / 255, 0), ((0, 0), 1, 0)]
)
def test_a_grid_covers_its_range_with_zero_on_it(limits, scale, zero_point):
    grid = grid_of_range(limits)
    assert grid.scale == np.float32(scale)
    assert grid.zero_point == zero_point


def test_a_weights_grid_has_a_scale_for_every_channel():
    weight = np.array([[1, -2.54], [0, 0], [0.5, 0.25]], np.float32)
    grid = grid_of_weight(weight, 0, 8)
    np.testing.assert_allclose(grid.scale, [0.02, 1, 0.5 / 127], rtol=1e-6)
    np.testing.assert_array_equal(grid.nearest(weight), [[50, -127], [0, 0], [127, 64]])
    assert grid_of_weight(weight, None, 7).scale == np.float32(2.54 / 64)


def test_room_for_a_bias_is_made_only_where_it_lacks():
    grid = Grid(np.array([1e-3, 1e-3], np.float32), np.zeros(2, np.int8), 0)
    wider = with_room_for_bias(grid, np.asarray(1e-3, np.float32), np.array([2.0, 1e5], np.float32))
    assert wider.scale[0] == grid.scale[0]
    assert 1e5 / (wider.scale[1] * 1e-3) < 2**31 - 1
