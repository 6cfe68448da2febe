import json

import torch
from torch.nn import functional

from kinglet.models.residual_cnn import ResidualCnnSpec, ResidualStage
from tests.unit.models.small_networks import residual_cnn


def test_specification_survives_json():
    spec = ResidualCnnSpec(1, (ResidualStage(8, 2, (8, 4)), ResidualStage(16, 1, ())), 5, 0.1)
    assert ResidualCnnSpec.from_dict(json.loads(json.dumps(spec.to_dict()))) == spec


def test_depth_groups_hold_every_parameter_once():
    network = residual_cnn()
    grouped = [parameter for part in network.depth_groups() for parameter in part.parameters()]
    assert len({id(parameter) for parameter in grouped}) == len(grouped)
    assert {id(parameter) for parameter in grouped} == {id(parameter) for parameter in network.parameters()}


def test_block_is_relu_of_input_plus_two_convolutions():
    block = residual_cnn().stages[1].blocks[0]
    x = torch.randn(2, 24, 5, 5)

    def convolve(x, conv, norm):
        scale = norm.weight / (norm.running_var + norm.eps).sqrt()
        y = functional.conv2d(x, conv.weight, padding=1)
        return y * scale.view(1, -1, 1, 1) + (norm.bias - norm.running_mean * scale).view(1, -1, 1, 1)

    inner = convolve(x, block.conv1, block.norm1).clamp_min(0)
    expected = (x + convolve(inner, block.conv2, block.norm2)).clamp_min(0)
    torch.testing.assert_close(block(x), expected, rtol=1e-4, atol=1e-4)


def test_strides_give_the_resolution():
    network = residual_cnn()
    sizes = []
    x = torch.zeros(1, 3, 32, 32)
    for stage in network.stages:
        x = stage(x)
        sizes.append(tuple(x.shape[1:]))
    assert sizes == [(16, 16, 16), (24, 8, 8), (32, 8, 8)]
