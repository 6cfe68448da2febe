import numpy as np
import onnx
import pytest
import torch
from onnx import numpy_helper
from torch import nn

from kinglet.compression.equalization import equalize, find_pairs
from kinglet.models.export import fold_batch_norms, to_onnx
from kinglet.runtime.sessions import open_session, run
from tests.unit.models.small_networks import NETWORKS

IMAGES = np.random.default_rng(1).normal(0, 1, (8, 3, 32, 32)).astype(np.float32)


class Chain(nn.Module):
    """Dense, depthwise and dense convolutions with `activation` between, their channels of very different ranges."""

    def __init__(self, activation: type[nn.Module]) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.layers = nn.Sequential(
            nn.Conv2d(3, 8, 3),
            activation(),
            nn.Conv2d(8, 8, 3, groups=8),
            activation(),
            nn.Conv2d(8, 8, 1),
            nn.Conv2d(8, 8, 3, groups=2),
        )
        self.classifier = nn.Linear(8, 4)
        ranges = torch.logspace(-2, 1, 8)
        self.layers[0].weight.data *= ranges.view(-1, 1, 1, 1)
        self.layers[0].bias.data *= ranges
        self.layers[2].weight.data /= ranges.view(-1, 1, 1, 1)

    def forward(self, x):
        return self.classifier(self.layers(x).mean((2, 3)))


def answers(model):
    return run(open_session(model.SerializeToString(), threads=1), IMAGES)


def assert_same_function(found, expected):
    np.testing.assert_allclose(found, expected, atol=1e-5 * np.abs(expected).max())


def spread(weight, axis):
    ranges = np.abs(np.moveaxis(weight, axis, 0).reshape(weight.shape[axis], -1)).max(1)
    return ranges.max() / ranges.min()


@pytest.mark.parametrize("family", list(NETWORKS))
def test_folding_batch_normalization_leaves_the_function_unchanged(family):
    network = NETWORKS[family]()
    with torch.inference_mode():
        expected = network(torch.from_numpy(IMAGES)).numpy()
        assert_same_function(fold_batch_norms(network)(torch.from_numpy(IMAGES)).numpy(), expected)
    assert_same_function(answers(to_onnx(network, 32, 3, {})), expected)


@pytest.mark.parametrize("family", list(NETWORKS))
def test_equalization_leaves_the_function_unchanged(family):
    model = to_onnx(NETWORKS[family](), 32, 3, {})
    equalized, _ = equalize(model)
    onnx.checker.check_model(equalized)
    assert_same_function(answers(equalized), answers(model))


def test_channels_of_dense_and_depthwise_layers_get_equal_ranges_over_relu():
    model = to_onnx(Chain(nn.ReLU), 32, 3, {})
    equalized, n_pairs = equalize(model)
    assert n_pairs == 2  # dense to depthwise, depthwise to dense; the grouped one is left alone
    assert_same_function(answers(equalized), answers(model))
    before, after = (
        {item.name: numpy_helper.to_array(item) for item in found.graph.initializer} for found in (model, equalized)
    )
    first, depthwise, last = (f"layers.{place}.weight" for place in (0, 2, 4))
    for channel in range(8):
        ranges = [np.abs(after[first][channel]).max(), np.abs(after[depthwise][channel]).max()]
        assert ranges[0] == pytest.approx(ranges[1], rel=0.01)
        assert np.abs(after[last][:, channel]).max() == pytest.approx(ranges[1], rel=0.01)
    assert spread(before[first], 0) > 100
    assert spread(after[first], 0) < spread(before[first], 0) / 5


def test_layers_over_relu6_are_left_alone():
    model = to_onnx(Chain(nn.ReLU6), 32, 3, {})
    equalized, n_pairs = equalize(model)
    assert n_pairs == 0
    assert equalized.SerializeToString() == model.SerializeToString()


def test_an_output_that_a_skip_reads_too_is_left_alone():
    pairs = find_pairs(to_onnx(NETWORKS["residual-cnn"](), 32, 3, {}))
    # Inside each of the three blocks; the stages' own convolutions feed a skip as well. The last stage has no block.
    assert [(pair.first.name.split("/")[-2], pair.second.name.split("/")[-2]) for pair in pairs] == [
        ("conv1", "conv2")
    ] * 3


def test_dead_channels_stay_dead():
    network = Chain(nn.ReLU)
    network.layers[0].weight.data[3] = 0
    network.layers[4].weight.data[:, 5] = 0
    model = to_onnx(network, 32, 3, {})
    equalized, _ = equalize(model)
    assert_same_function(answers(equalized), answers(model))


def test_the_argument_stays_and_the_same_model_gives_the_same_bytes():
    model = to_onnx(NETWORKS["residual-cnn"](), 32, 3, {})
    before = model.SerializeToString()
    assert equalize(model)[0].SerializeToString() == equalize(model)[0].SerializeToString() != before
    assert model.SerializeToString() == before
