"""The loop that Kinglet's is compared with uses nothing of Kinglet's."""

from __future__ import annotations

import copy

import torch
from torch import nn

from benchmarks.obvious_loop import with_plain_convolutions
from kinglet.models.inverted_residual import InvertedResidualNet, InvertedResidualSpec, block_table


def test_opponent_computes_the_same_with_torchs_own_convolutions_only() -> None:
    torch.manual_seed(0)
    spec = InvertedResidualSpec(1, 8, block_table([(1, 3, 1, 8, 1), (6, 5, 2, 12, 2)], 8), 16, 4)
    network = InvertedResidualNet(spec)
    plain = with_plain_convolutions(copy.deepcopy(network))
    assert {type(module) for module in plain.modules() if isinstance(module, nn.Conv2d)} == {nn.Conv2d}
    images = torch.randn(3, 1, 16, 16)
    torch.testing.assert_close(plain(images), network(images))
