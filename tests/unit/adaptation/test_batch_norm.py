"""Statistics of batch normalizations: by hand for one layer, by numpy for all layers of real networks."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from kinglet.adaptation.batch_norm import adapt_batch_norms, batch_norms
from kinglet.errors import KingletError
from tests.unit.models.small_networks import NETWORKS


def inputs(n: int = 12, seed: int = 3) -> torch.Tensor:
    return 2 + 3 * torch.randn(n, 3, 16, 16, generator=torch.Generator().manual_seed(seed))


def seen_by(network: nn.Module, images: torch.Tensor) -> list[np.ndarray]:
    """Return what every normalization sees when the network, in evaluation mode, answers the images."""
    seen: list[np.ndarray] = []
    hooks = [
        norm.register_forward_pre_hook(lambda _, given: seen.append(given[0].double().numpy().copy()))
        for norm in batch_norms(network)
    ]
    with torch.no_grad():
        network.eval()(images)
    for hook in hooks:
        hook.remove()
    return seen


def test_one_layer_by_hand() -> None:
    layer = nn.BatchNorm2d(1).eval()
    layer.running_mean.fill_(10.0)
    layer.running_var.fill_(8.0)
    first, second = torch.tensor([1.0, 3.0]).view(2, 1, 1, 1), torch.tensor([4.0, 4.0]).view(2, 1, 1, 1)
    # The target's values are 1, 3, 4, 4: mean 3, variance (4 + 0 + 1 + 1) / 4 = 1.5.
    adapt_batch_norms(layer, [first, second], source_share=0.25)
    assert layer.running_mean.item() == pytest.approx(0.25 * 10 + 0.75 * 3)
    assert layer.running_var.item() == pytest.approx(0.25 * 8 + 0.75 * 1.5)


@pytest.mark.parametrize("family", NETWORKS)
@pytest.mark.parametrize("share", [0.0, 0.3])
def test_every_layer_has_the_statistics_of_what_it_then_sees(family: str, share: float) -> None:
    network = NETWORKS[family](seed=4)
    before = [(norm.running_mean.double().numpy(), norm.running_var.double().numpy()) for norm in batch_norms(network)]
    before = [(mean.copy(), variance.copy()) for mean, variance in before]
    weights = {name: value.clone() for name, value in network.named_parameters()}
    adapt_batch_norms(network, [inputs()], share)
    for norm, (mean, variance), seen in zip(batch_norms(network), before, seen_by(network, inputs()), strict=True):
        expected_mean = share * mean + (1 - share) * seen.mean(axis=(0, 2, 3))
        expected_variance = share * variance + (1 - share) * seen.var(axis=(0, 2, 3))
        np.testing.assert_allclose(norm.running_mean, expected_mean, rtol=1e-4, atol=1e-4)
        np.testing.assert_allclose(norm.running_var, expected_variance, rtol=1e-4, atol=1e-4)
    assert not network.training
    assert all(torch.equal(weights[name], value) for name, value in network.named_parameters())


def test_batches_count_by_their_images_in_the_first_layer() -> None:
    whole, parts = NETWORKS["residual-cnn"](seed=4), NETWORKS["residual-cnn"](seed=4)
    adapt_batch_norms(whole, [inputs()], 0.1)
    adapt_batch_norms(parts, [inputs()[:3], inputs()[3:]], 0.1)
    torch.testing.assert_close(batch_norms(whole)[0].running_mean, batch_norms(parts)[0].running_mean)
    torch.testing.assert_close(batch_norms(whole)[0].running_var, batch_norms(parts)[0].running_var)


def test_brighter_images_are_answered_as_before_when_only_their_scale_changed() -> None:
    """A change that the first normalization can undo: every value doubled after a convolution without a bias."""
    network = NETWORKS["residual-cnn"](seed=4)
    images = inputs()
    adapt_batch_norms(network, [images], 0.0)
    with torch.no_grad():
        clean = network(images)
        adapt_batch_norms(network, [2 * images], 0.0)
        torch.testing.assert_close(network(2 * images), clean, rtol=1e-3, atol=1e-3)


def test_a_network_without_batch_normalization_is_refused() -> None:
    with pytest.raises(KingletError, match="no batch normalization") as caught:
        adapt_batch_norms(nn.Sequential(nn.Conv2d(3, 4, 3), nn.GroupNorm(2, 4)), [inputs()], 0.0)
    assert "adapt.models" in caught.value.hint


def test_no_batch_is_refused_and_leaves_no_hook() -> None:
    network = NETWORKS["residual-cnn"](seed=4)
    with pytest.raises(ValueError, match="at least one batch"):
        adapt_batch_norms(network, [], 0.0)
    assert not any(norm._forward_pre_hooks for norm in batch_norms(network))
