"""The maps that a network shows are those at the end of each resolution, and its answer stays the same."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from kinglet.models.export import fold_batch_norms
from kinglet.models.feature_maps import feature_maps
from tests.unit.models.small_networks import NETWORKS

IMAGES = torch.randn(3, 3, 32, 32, generator=torch.Generator().manual_seed(0))
# (channels, edge): the last part before the resolution falls, and the last one of all.
SHAPES = {
    "inverted-residual": [(16, 16), (24, 8), (64, 4)],
    "residual-cnn": [(16, 16), (32, 8)],
}


@pytest.mark.parametrize("family", list(NETWORKS))
@pytest.mark.parametrize("training", [False, True])
@torch.no_grad()
def test_maps_end_each_resolution_and_the_answer_is_the_networks_own(family: str, training: bool) -> None:
    network = NETWORKS[family]().train(training)
    maps, logits = feature_maps(network, IMAGES)
    assert [(one.shape[1], one.shape[2]) for one in maps] == SHAPES[family]
    assert torch.equal(logits, network(IMAGES))
    torch.testing.assert_close(maps[-1].mean((2, 3)), network.features(IMAGES))


@pytest.mark.parametrize("family", list(NETWORKS))
@torch.no_grad()
def test_maps_without_batch_normalizations_are_the_same(family: str) -> None:
    network = NETWORKS[family]()
    for one, other in zip(
        feature_maps(network, IMAGES)[0], feature_maps(fold_batch_norms(network), IMAGES)[0], strict=True
    ):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-4)


def test_a_network_whose_parts_are_not_known_shows_none() -> None:
    with pytest.raises(TypeError, match="Linear shows no feature maps"):
        feature_maps(nn.Linear(2, 2), torch.zeros(1, 2))
