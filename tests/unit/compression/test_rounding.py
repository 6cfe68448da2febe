import itertools

import numpy as np
import onnx
import pytest
import torch
from onnx import numpy_helper
from torch.nn import functional

from kinglet.compression import rounding
from kinglet.compression.calibration import stream_histograms
from kinglet.compression.fusion import fusions_of
from kinglet.compression.graph_walk import Walk
from kinglet.compression.quantization import WEIGHTED, quantize_static, weighted_layers
from kinglet.compression.rounding import round_rows, round_weights
from kinglet.models.export import to_onnx
from tests.unit.models.small_networks import NETWORKS


def images(n, seed):
    generator = np.random.default_rng(seed)
    # Smooth images: neighbouring pixels, and so the inputs of a layer, are alike.
    return generator.normal(0.2, 1, (n, 3, 8, 8)).astype(np.float32).repeat(4, 2).repeat(4, 3)


def squared_error(found, steps, samples):
    return float((((found - steps) @ samples.swapaxes(1, 2)) ** 2).mean())


def test_products_stay_nearer_than_with_each_weight_rounded_to_its_nearest_step():
    generator = np.random.default_rng(0)
    steps = generator.normal(0, 3, (2, 8, 12))
    samples = generator.normal(0, 1, (2, 400, 3)) @ generator.normal(0, 1, (2, 3, 12))
    found = round_rows(steps, samples, 127)
    np.testing.assert_array_equal(found, np.rint(found))
    assert squared_error(found, steps, samples) < 0.5 * squared_error(np.rint(steps), steps, samples)


def test_it_is_near_the_best_of_all_roundings():
    generator = np.random.default_rng(1)
    steps = generator.normal(0, 3, (1, 1, 6))
    samples = generator.normal(0, 1, (1, 300, 3)) @ generator.normal(0, 1, (1, 3, 6))
    up_or_down = [np.floor(steps) + np.reshape(ups, (1, 1, 6)) for ups in itertools.product((0, 1), repeat=6)]
    errors = sorted(squared_error(choice, steps, samples) for choice in up_or_down)
    assert squared_error(round_rows(steps, samples, 127), steps, samples) <= errors[len(errors) // 8]


def test_independent_inputs_leave_every_weight_at_its_nearest_step():
    steps = np.random.default_rng(2).normal(0, 3, (1, 4, 5))
    np.testing.assert_array_equal(round_rows(steps, np.eye(5)[None] * 3, 127), np.rint(steps))


def test_whole_numbers_stay_within_the_limit():
    steps = np.full((1, 3, 4), 63.9)
    found = round_rows(steps, np.ones((1, 50, 4)), 64)
    assert np.abs(found).max() <= 64


@pytest.mark.parametrize(
    ("shape", "options"),
    [((6, 3, 3, 3), {"stride": 2, "padding": 1}), ((3, 1, 5, 5), {"groups": 3, "padding": 2}), ((4, 3, 1, 1), {})],
)
def test_windows_times_weights_are_the_convolution(shape, options):
    x, weight = torch.from_numpy(images(2, 3)), torch.randn(shape, generator=torch.Generator().manual_seed(0))
    expected = functional.conv2d(x, weight, **options)
    pads, stride = [options.get("padding", 0)] * 4, [options.get("stride", 1)] * 2
    node = onnx.helper.make_node("Conv", ["x", "w"], ["y"], pads=pads, strides=stride, group=options.get("groups", 1))
    samples = rounding._windows(node, x.numpy(), shape)
    rows = weight.numpy().reshape(len(samples), -1, samples.shape[2])
    found = np.einsum("gsi,goi->sgo", samples, rows).reshape(samples.shape[1], -1)
    everything = expected.movedim(1, 3).reshape(-1, shape[0]).numpy()
    places = np.linspace(0, len(everything) - 1, len(found)).astype(int)
    np.testing.assert_allclose(found, everything[places], atol=1e-4)


@pytest.mark.parametrize("family", list(NETWORKS))
@pytest.mark.parametrize("bits", [7, 8])
def test_only_weights_change_by_few_steps_and_the_file_stays_what_it_was(family, bits):
    model = to_onnx(NETWORKS[family](), 32, 3, {})
    inputs = images(24, 1)
    quantized = quantize_static(model, stream_histograms(model, inputs), "minmax", bits)
    before = quantized.SerializeToString()
    found = round_weights(model, quantized, inputs)
    onnx.checker.check_model(found)
    assert quantized.SerializeToString() == before
    assert round_weights(model, quantized, inputs).SerializeToString() == found.SerializeToString()
    stored = {item.name: numpy_helper.to_array(item) for item in quantized.graph.initializer}
    changed = 0
    for item in found.graph.initializer:
        old, new = stored[item.name], numpy_helper.to_array(item)
        if not np.array_equal(old, new):
            changed += 1
            assert new.dtype == np.int8
            assert np.abs(new.astype(int)).max() <= (64 if bits == 7 else 127)
    assert changed > len(weighted_layers(model)) / 2
    assert fusions_of(found).operators == fusions_of(quantized).operators


@pytest.mark.parametrize("family", list(NETWORKS))
def test_outputs_of_the_layers_are_nearer_to_those_of_float_weights(family):
    model = to_onnx(NETWORKS[family](), 32, 3, {})
    inputs, others = images(48, 1), images(24, 2)
    quantized = quantize_static(model, stream_histograms(model, inputs), "minmax", 7)
    found = round_weights(model, quantized, inputs)
    first = next(node for node in quantized.graph.node if node.op_type in WEIGHTED)
    expected = Walk(model, others).value(first_layer_output(model))
    errors = [np.square(Walk(item, others).value(first.output[0]) - expected).mean() for item in (quantized, found)]
    assert errors[1] < errors[0]


def first_layer_output(model):
    return next(node.output[0] for node in model.graph.node if node.op_type in WEIGHTED)
