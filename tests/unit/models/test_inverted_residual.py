import json

import pytest
import torch

from kinglet.models.inverted_residual import ConvBatchNorm, InvertedResidualSpec, block_table
from tests.unit.models.small_networks import inverted_residual

STAGES = [(1, 3, 1, 16, 1), (6, 5, 2, 24, 2)]


def test_block_table_lists_every_block_with_its_widths():
    first, second, third = block_table(STAGES, 32)
    assert (first.expanded, first.out, first.kernel, first.stride) == (32, 16, 3, 1)
    assert (second.expanded, second.out, second.kernel, second.stride) == (96, 24, 5, 2)
    assert (third.expanded, third.out, third.kernel, third.stride) == (144, 24, 5, 1)
    assert [block.has_expansion for block in (first, second, third)] == [False, True, True]
    # Only the last neither changes the width nor strides.
    assert [block.has_skip for block in (first, second, third)] == [False, False, True]


def test_specification_survives_json():
    spec = InvertedResidualSpec(1, 32, block_table(STAGES, 32), 64, 7, 0.3, 1e-5, 0.02)
    assert InvertedResidualSpec.from_dict(json.loads(json.dumps(spec.to_dict()))) == spec


def test_depth_groups_hold_every_parameter_once():
    network = inverted_residual()
    grouped = [parameter for part in network.depth_groups() for parameter in part.parameters()]
    assert len({id(parameter) for parameter in grouped}) == len(grouped)
    assert {id(parameter) for parameter in grouped} == {id(parameter) for parameter in network.parameters()}


def test_skip_adds_the_input():
    network = inverted_residual()
    block = network.blocks[-1]
    x = torch.randn(2, 32, 4, 4)
    assert block.has_skip
    torch.testing.assert_close(block(x), x + block.project(block.depthwise(block.expand(x))))


def test_activation_is_clipped_at_six():
    layer = ConvBatchNorm(3, 8, 1, eps=1e-3, momentum=0.1).eval()
    y = layer(torch.randn(4, 3, 8, 8) * 100)
    assert y.min() == 0
    assert y.max() == 6


@pytest.mark.parametrize(("in_channels", "groups"), [(4, 1), (1, 1)])
def test_a_single_output_channel_sees_every_input_channel(in_channels, groups):
    layer = ConvBatchNorm(in_channels, 1, 1, groups=groups, eps=1e-3, momentum=0.1)
    assert layer[0].weight.shape == (1, in_channels, 1, 1)
